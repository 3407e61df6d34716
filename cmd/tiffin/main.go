// Command tiffin joins campaigns from Kafka with the subscribers of a Postgres table, and
// writes one record and one row per subscriber.
package main

import (
	"os"

	"example.com/tiffin/cmd/internal/command"
)

func main() { os.Exit(command.Main(newRootCommand())) }
