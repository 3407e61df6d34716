package daemon

import (
	"context"
	"errors"
	"sync/atomic"

	"example.com/tiffin/cdc"
)

// AuditSummary is the last line of an audit as programs read it.
type AuditSummary struct {
	OK bool `json:"ok"`
	// Index says which one was compared: running, or fresh.
	Index       string `json:"index"`
	Slot        string `json:"slot"`
	Position    string `json:"position"`
	Restaurants int64  `json:"restaurants"`
	// Resident are the restaurants whose clients were compared. Of the others, which the
	// running index does not hold in memory, the number of rows.
	Resident    int64 `json:"resident"`
	Rows        int64 `json:"rows"`
	Differences int64 `json:"differences"`
}

// SummaryOf a report; index is running or fresh.
func SummaryOf(r *cdc.AuditReport, index string) AuditSummary {
	return AuditSummary{r.Differences == 0, index, r.Slot, r.Position.String(), r.Restaurants, r.Resident, r.Rows, r.Differences}
}

// The values of AuditSummary.Index.
const (
	IndexRunning = "running"
	IndexFresh   = "fresh"
)

// audits makes audits of the daemon's index; it implements httpd.Auditor.
type audits struct {
	of atomic.Pointer[parts] // nil until there are any
}

// Audit implements httpd.Auditor.
func (a *audits) Audit(ctx context.Context, tell func(line any) error, progress func(line any)) error {
	p := a.of.Load()
	if p == nil {
		return errors.New("starting")
	}
	report, err := p.reader.AuditRunning(ctx, p.index, cdc.AuditTo{
		Found:    func(d cdc.Difference) error { return tell(d) },
		Progress: func(at cdc.AuditProgress) { progress(at) },
	})
	if err != nil {
		return err
	}
	return tell(SummaryOf(&report, IndexRunning))
}
