// Command slotsetup prepares the source database for tiffin: role, rights, replica identity,
// publication and replication slot.
package main

import (
	"os"

	"example.com/tiffin/cmd/internal/command"
)

func main() { os.Exit(command.Main(newRootCommand())) }
