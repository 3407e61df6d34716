// Command bench measures tiffin from outside, on servers of its own, beside the machine's limit. No
// figure counts unless both sinks hold exactly the expected deliveries.
package main

import (
	"os"

	"example.com/tiffin/cmd/internal/command"
)

// Exit status 1 is a goal missed, sinks that differ, or a figure that could not be measured.
func main() { os.Exit(command.Main(newRootCommand())) }
