package main

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"example.com/tiffin/cdc"
	"example.com/tiffin/cmd/internal/command"
)

func newDropCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "drop",
		Short: "Remove the slot and the publication",
		Long: `Removes the replication slot and the publication, so that the source holds back no log for tiffin any
more, after saying what is lost by it. The daemon cannot run after that until they are made again, and
then loads the table anew; no delivery is lost or repeated by it. Role, rights and replica identity
stay. A slot that is active is refused: stop the daemon first.

It asks on a terminal, and needs --yes elsewhere. Where several processes share the publication, each
with a slot of its own, --slot-only removes one slot and leaves the others their publication.`,
		Example: "  slotsetup drop -c tiffin.yaml\n  TIFFIN_SOURCE_SLOT=tiffin_2 slotsetup drop -c tiffin.yaml --slot-only --yes",
		Args:    command.Args(cobra.NoArgs),
	}
	file := command.ConfigFlag(cmd)
	out := printerFlag(cmd)
	yes := cmd.Flags().Bool("yes", false, "do not ask; needed where standard input is no terminal")
	slotOnly := cmd.Flags().Bool("slot-only", false, "leave the publication")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, _, err := load(cmd, *file)
		if err != nil {
			return err
		}
		dropped := 0
		err = cdc.Drop(cmd.Context(), cfg, *slotOnly, func(r cdc.Removal) (bool, error) { return out.confirms(r, *yes) }, func(s cdc.Step) {
			dropped++
			out.progress(cdc.Progress{Step: s, Outcome: cdc.Done})
		})
		if err != nil {
			return out.fails(err)
		}
		return out.dropped(dropped)
	}
	return cmd
}

// confirms says what will be lost, also with --yes, and asks on a terminal; anywhere else it refuses.
func (p *printer) confirms(r cdc.Removal, yes bool) (bool, error) {
	for _, loss := range r.Losses {
		if p.json {
			p.object(struct {
				Loses string `json:"loses"`
			}{loss})
			continue
		}
		_ = p.text(loss + "\n")
	}
	if p.err != nil || yes {
		return yes, p.err
	}
	var sql []string
	for _, s := range r.Steps {
		sql = append(sql, s.SQL)
	}
	agreed, terminal, err := p.asks(strings.Join(sql, " "))
	switch {
	case err != nil:
		return false, err
	case !terminal:
		return false, command.Usage(p.cmd, errors.New("nothing was removed: standard input is no terminal, confirm with --yes"))
	case !agreed:
		return false, errors.New("nothing was removed: the answer was not yes")
	}
	return true, nil
}

func (p *printer) dropped(n int) error {
	if p.json {
		p.object(struct {
			OK   bool `json:"ok"`
			Done int  `json:"done"`
		}{true, n})
		return p.err
	}
	if n == 0 {
		return errors.Join(p.err, command.Say(p.cmd, "nothing to drop"))
	}
	return p.err
}
