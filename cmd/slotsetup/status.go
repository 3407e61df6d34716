package main

import (
	"errors"
	"fmt"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"example.com/tiffin/cdc"
	"example.com/tiffin/cmd/internal/command"
)

func newStatusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the slot's health and what is wrong",
		Long: `Shows slot, holder, retained log beside its budgets, lag, publication and replica identity; the last line
is ok, or what is wrong with its fix. A slot that nobody reads from is no fault until it holds back too
much.

The exit status is 0 if all is in order, 1 if something is wrong.`,
		Example: "  slotsetup status -c tiffin.yaml\n  slotsetup status -c tiffin.yaml --json | tail -1",
		Args:    command.Args(cobra.NoArgs),
	}
	file := command.ConfigFlag(cmd)
	out := printerFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, role, err := load(cmd, *file)
		if err != nil {
			return err
		}
		s, err := cdc.Status(cmd.Context(), cfg, role)
		if err != nil {
			return out.fails(err)
		}
		for _, line := range statusLines(&cfg, &s) {
			out.line(line)
		}
		return out.verdict(s.Wrong, *file)
	}
	return cmd
}

// statusLine is a line of status; Value and Limit are what JSON has besides, where a program wants
// a figure.
type statusLine struct {
	Item  string `json:"item"`
	Text  string `json:"text"`
	Value *int64 `json:"bytes,omitempty"`
	Limit *int64 `json:"limit_bytes,omitempty"` // source.max_retained_wal
}

func (p *printer) line(l statusLine) {
	if p.json {
		p.object(l)
		return
	}
	_ = p.text(fmt.Sprintf("%-12s %s\n", l.Item, l.Text))
}

func statusLines(cfg *cdc.Config, s *cdc.SourceStatus) []statusLine {
	slot := &s.Slot
	lines := []statusLine{{Item: "slot", Text: cfg.Slot + ": " + slotState(slot)}}
	if slot.Exists {
		held := slot.Holder
		if held == "" {
			held = "nobody"
		}
		lines = append(lines,
			statusLine{Item: "holder", Text: held},
			statusLine{Item: "retained", Text: retained(slot), Value: &slot.Retained, Limit: &slot.Budget},
			statusLine{Item: "lag", Text: fmt.Sprintf("%s behind the end of the log, confirmed %s", size(slot.Lag), slot.Confirmed), Value: &slot.Lag},
		)
	}
	return append(lines,
		statusLine{Item: "publication", Text: cfg.Publication + ": " + or(s.Publication, "does not exist")},
		statusLine{Item: "identity", Text: or(s.Identity, "no table")})
}

func slotState(slot *cdc.SlotStatus) string {
	switch {
	case !slot.Exists:
		return "does not exist"
	case slot.Lost && slot.Invalidation != "":
		return "lost: invalidated by the server (" + slot.Invalidation + ")"
	case slot.Lost:
		return "lost: invalidated by the server"
	}
	state := "idle"
	if slot.Holder != "" {
		state = "active"
	}
	state += ", log " + slot.WALStatus
	if slot.Failover {
		state += ", standbys synchronise it"
	}
	return state
}

// retained shows the held-back log beside what bounds it: the daemon while it runs, the server always.
func retained(slot *cdc.SlotStatus) string {
	text := size(slot.Retained)
	if slot.Budget > 0 {
		text += fmt.Sprintf(" of %s (%d %%, source.max_retained_wal)", size(slot.Budget), 100*slot.Retained/slot.Budget)
	}
	if slot.Keep < 0 {
		return text + "; no max_slot_wal_keep_size"
	}
	return text + "; max_slot_wal_keep_size " + size(slot.Keep)
}

func size(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }

func or(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

// verdict is the last line. It goes where the rest went, and a fault is told once. The commands that it
// names read the same settings' file.
func (p *printer) verdict(wrong []cdc.Wrong, file string) error {
	if p.json {
		end := struct {
			OK    bool     `json:"ok"`
			Wrong []string `json:"wrong,omitempty"`
			Fix   string   `json:"fix,omitempty"` // of the first
		}{OK: len(wrong) == 0}
		for i, w := range wrong {
			end.Wrong = append(end.Wrong, w.Text)
			if i == 0 {
				end.Fix = command.SameSettings(w.Fix, file)
			}
		}
		p.object(end)
	}
	if len(wrong) == 0 {
		if !p.json {
			_ = p.text("ok\n")
		}
		return p.err
	}
	text := wrong[0].Text
	if wrong[0].Fix != "" {
		text += "; fix: " + command.SameSettings(wrong[0].Fix, file)
	}
	if more := len(wrong) - 1; more > 0 {
		text += fmt.Sprintf(" (and %d more: %s)", more, command.SameSettings("slotsetup plan", file))
	}
	if !p.json {
		_ = p.text("wrong        " + text + "\n")
	}
	return errors.Join(p.err, fmt.Errorf("status: not ok, %d found", len(wrong)))
}
