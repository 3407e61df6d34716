package stream

import (
	"cmp"
	"context"
)

// piece is what was inserted in one go.
type piece struct {
	rows         int64
	before, last int64 // of the sequence
}

// insertPieces inserts a campaign that is alone in its transaction. A piece is encoded while the server
// works at the one before.
func (w *writer) insertPieces(ctx context.Context, p *pipe, b *batch) (pieces []*piece, err error) {
	t := b.triggers[0]
	busy := false
	settle := func() error {
		if !busy {
			return nil
		}
		err := p.collect(p.unsent)
		w.numbering.give()
		busy = false
		return err
	}
	defer func() { err = cmp.Or(err, settle()) }()
	for from := 0; from < t.deliveries(); from += rowsPerInsert {
		to := min(from+rowsPerInsert, t.deliveries())
		next := &piece{rows: int64(to - from)}
		p.number("nextval", &next.before, []byte(w.sequence))
		w.insert(p, t, from, to)
		p.number("currval", &next.last, []byte(w.sequence))
		b.rows.Add(next.rows)
		if left := t.deliveries() - from; !busy || !w.numbering.goOn(left) {
			if err := settle(); err != nil {
				return pieces, err
			}
			if err := w.numbering.take(ctx, left); err != nil {
				return pieces, err
			}
			busy = true
		}
		pieces = append(pieces, next)
		if err := p.push(); err != nil {
			return pieces, err
		}
	}
	return pieces, nil
}
