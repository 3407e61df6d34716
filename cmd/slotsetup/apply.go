package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"example.com/tiffin/cdc"
	"example.com/tiffin/cmd/internal/command"
)

func newApplyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "apply",
		Short: "Run what is missing on the source database",
		Long: `Runs the statements of plan that are missing, and reports each step. It may be run at any time; where
all is there it changes nothing. What it did not make (the table's replica identity, an existing role,
publication or slot) it alters only with --yes, or after a yes on a terminal; otherwise it does the
rest and names what is left. Making the slot waits for the transactions that run. A role that is made
has no password yet. Settings of the server are never changed.

The exit status is 0 if nothing is missing any more, 1 if anything is.`,
		Example: "  slotsetup apply -c tiffin.yaml\n  TIFFIN_SETUP_DSN=postgres://postgres@db/app slotsetup apply -c tiffin.yaml --yes",
		Args:    command.Args(cobra.NoArgs),
	}
	file := command.ConfigFlag(cmd)
	out := printerFlag(cmd)
	yes := cmd.Flags().Bool("yes", false, "also alter what was there before")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, role, err := load(cmd, *file)
		if err != nil {
			return err
		}
		agree := func(alterations []cdc.Step) (bool, error) {
			if *yes {
				return true, nil
			}
			agreed, _, err := out.asks(alterationsText(alterations))
			return agreed, err
		}
		tally, err := cdc.Apply(cmd.Context(), cfg, role, agree, out.progress)
		if err != nil {
			return out.fails(err)
		}
		return out.applied(tally)
	}
	return cmd
}

func alterationsText(steps []cdc.Step) string {
	var b strings.Builder
	b.WriteString("This alters what slotsetup did not make:\n")
	for _, s := range steps {
		fmt.Fprintf(&b, "  %s\n      alters %s: %s %s\n", s.SQL, s.Alters, s.Subject, s.Why)
	}
	return b.String()
}

// progressLine is a step of apply --json.
type progressLine struct {
	SQL     string      `json:"sql"`
	Outcome cdc.Outcome `json:"outcome"`
	Text    string      `json:"text,omitempty"`
}

// progress tells of a step. Whether somebody reads it changes nothing.
func (p *printer) progress(of cdc.Progress) {
	if p.json {
		p.object(progressLine{of.Step.SQL, of.Outcome, of.Text})
		return
	}
	line := fmt.Sprintf("%-8s %s\n", of.Outcome, of.Step.SQL)
	if of.Text != "" {
		line += fmt.Sprintf("%-8s %s\n", "", of.Text)
	}
	_ = p.text(line)
}

// applied is the end of apply: what is left is a fault.
func (p *printer) applied(t cdc.Tally) error {
	if p.json {
		p.object(struct {
			OK      bool `json:"ok"`
			Done    int  `json:"done"`
			Left    int  `json:"left"`
			Refused int  `json:"refused"`
			Blocked int  `json:"blocked"`
			Needed  int  `json:"settings_needed"`
		}{t.Complete(), t.Done, t.Left, t.Refused, t.Blocked, len(t.Needed)})
	} else if t.Complete() {
		return errors.Join(p.err, command.Say(p.cmd, "ready    %d statements run", t.Done))
	}
	if p.err != nil || t.Complete() {
		return p.err
	}
	var faults []string
	for _, l := range t.Needed {
		faults = append(faults, l.Why+": "+l.String())
	}
	if t.Refused+t.Blocked > 0 {
		faults = append(faults, fmt.Sprintf("%d statements could not be run, see above", t.Refused+t.Blocked))
	}
	if t.Left > 0 {
		faults = append(faults, fmt.Sprintf("%d statements are left because they alter what slotsetup did not make: --yes runs them", t.Left))
	}
	return errors.New("not ready: " + strings.Join(faults, "; "))
}

// fails ends a command that --json promises a summary of.
func (p *printer) fails(err error) error {
	if p.json {
		p.object(struct {
			OK    bool   `json:"ok"`
			Error string `json:"error"`
		}{false, err.Error()})
	}
	return err
}
