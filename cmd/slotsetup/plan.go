package main

import (
	"github.com/spf13/cobra"

	"example.com/tiffin/cdc"
	"example.com/tiffin/cmd/internal/command"
)

func newPlanCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Print the SQL that prepares the source database, with its reasons",
		Long: `Prints a script for who owns the source database: the daemon's role, its rights, the table's replica
identity, publication, slot, and apart from them the settings of the server. What is there already
is told in a comment; each statement that is missing has its reason. Runs none of them, and needs no
right but to connect; with --offline it connects to nothing and assumes that nothing is there.

The exit status is 0 whether or not something is missing, and 1 if the script could not be completed.`,
		Example: "  slotsetup plan -c tiffin.yaml\n  slotsetup plan -c tiffin.yaml | psql -X -v ON_ERROR_STOP=1 source\n  slotsetup plan -c tiffin.yaml --offline > for-the-dba.sql",
		Args:    command.Args(cobra.NoArgs),
	}
	file := command.ConfigFlag(cmd)
	out := printerFlag(cmd)
	isOffline := cmd.Flags().Bool("offline", false, "do not ask the server: for who may not connect to it yet")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, role, err := load(cmd, *file)
		if err != nil {
			return err
		}
		var script *cdc.Script
		if *isOffline {
			script, err = cdc.PlanOffline(cfg, role)
		} else {
			script, err = cdc.Plan(cmd.Context(), cfg, role)
		}
		if err != nil {
			return out.fails(err)
		}
		for i, line := range script.Head {
			script.Head[i] = command.SameSettings(line, *file)
		}
		if err := out.plan(script); err != nil {
			return err
		}
		return script.Fault
	}
	return cmd
}

// planLine is a statement of plan --json.
type planLine struct {
	Section  string `json:"section"`
	SQL      string `json:"sql"`
	Then     string `json:"then,omitempty"` // what makes it take effect
	Why      string `json:"why"`
	Alters   string `json:"alters,omitempty"`   // what was there before
	Obstacle string `json:"obstacle,omitempty"` // why not now
	Apart    bool   `json:"apart,omitempty"`    // not part of the script: shown only
	Needed   bool   `json:"needed"`
}

func (p *printer) plan(script *cdc.Script) error {
	if !p.json {
		return p.text(script.String())
	}
	for _, section := range script.Sections {
		for _, s := range section.Steps {
			p.object(planLine{Section: section.Name, SQL: s.SQL, Why: s.Subject + " " + s.Why, Alters: s.Alters, Obstacle: s.Obstacle, Needed: true})
		}
		for _, l := range section.Later {
			p.object(planLine{Section: section.Name, SQL: l.Text, Then: l.Then, Why: l.Why, Apart: true, Needed: l.Needed})
		}
	}
	end := struct {
		OK      bool   `json:"ok"`
		Missing int    `json:"missing"`
		Error   string `json:"error,omitempty"`
	}{OK: script.Fault == nil, Missing: len(script.Steps()) + len(script.Needed())}
	if script.Fault != nil {
		end.Error = script.Fault.Error()
	}
	p.object(end)
	return p.err
}
