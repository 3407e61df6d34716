package main

import (
	"bufio"
	"errors"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"example.com/tiffin/cdc"
	"example.com/tiffin/cmd/internal/command"
)

func newDropCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "drop",
		Short: "Remove the slot and the publication",
		Long: `Removes the replication slot and the publication, so that the source holds back no log for tiffin any
more. The daemon cannot run after that until they are made again, and then loads the table anew;
no delivery is lost or repeated by it. Role, rights and replica identity stay. A slot that is
active is refused: stop the daemon first.`,
		Example: "  slotsetup drop -c tiffin.yaml --yes",
		Args:    command.Args(cobra.NoArgs),
	}
	file := command.ConfigFlag(cmd)
	yes := cmd.Flags().Bool("yes", false, "do not ask; needed where standard input is no terminal")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, _, err := load(cmd, *file)
		if err != nil {
			return err
		}
		if !*yes {
			if err := confirm(cmd, cfg); err != nil {
				return err
			}
		}
		done := 0
		err = cdc.Drop(cmd.Context(), cfg, func(step cdc.Step) {
			done++
			_ = command.Say(cmd, "%s", step.SQL) // the statement ran, whether or not somebody reads this
		})
		if err != nil {
			return err
		}
		if done == 0 {
			return command.Say(cmd, "-- nothing to drop")
		}
		return nil
	}
	return cmd
}

// confirm asks on a terminal; anywhere else it refuses.
func confirm(cmd *cobra.Command, cfg cdc.Config) error {
	in, ok := cmd.InOrStdin().(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return command.Usage(cmd, errors.New("standard input is no terminal: confirm with --yes"))
	}
	if err := command.Say(cmd, "This removes slot %s and publication %s. The daemon stops joining until they are made again\n(slotsetup apply), and then loads the table anew. Type yes to go on:", cfg.Slot, cfg.Publication); err != nil {
		return err
	}
	answer, err := bufio.NewReader(in).ReadString('\n')
	if strings.TrimSpace(answer) != "yes" {
		return errors.Join(errors.New("nothing was removed: the answer was not yes"), err)
	}
	return nil
}
