package stream

import (
	"cmp"
	"context"
	"errors"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// piece is what was inserted in one go.
type piece struct {
	rows         int64
	before, last int64 // of the sequence
}

// beginPiece asks where the sequence is, before the rows are sent. That is answered while they are being inserted,
// so that something is read before the next write.
func (w *writer) beginPiece(p *pipe, of *piece) {
	p.number("nextval", &of.before, []byte(w.sequence))
	p.halve()
}

// endPiece asks where it is behind them.
func (w *writer) endPiece(p *pipe, of *piece) { p.number("currval", &of.last, []byte(w.sequence)) }

// beforeSetting is where a transaction notes what value the sequence had before its rows.
const beforeSetting = "tiffin.ids_before"

// copyPiece begins the transaction, has the sequence's value noted and sends all rows of a batch, at once: the value
// is asked for behind the rows (endCopied), so that from the rows of the batch before to these nothing is waited for.
// The next batch's may follow them: what is asked then is of this session alone.
func (w *writer) copyPiece(ctx context.Context, b *batch, all *piece) error {
	give, err := w.turn(ctx)
	if err != nil {
		return err
	}
	defer give()
	sequence := `E'` + strings.NewReplacer(`'`, `''`, `\`, `\\`).Replace(w.sequence) + `'` // whatever standard_conforming_strings is
	sql := beginTransaction + `; SELECT set_config('` + beforeSetting + `', nextval(` + sequence + `)::text, true); ` +
		`COPY ` + w.table + ` (` + feedbackColumns + `) FROM STDIN (FORMAT binary)`
	tag, err := w.conn.PgConn().CopyFrom(ctx, newCopySource(b), sql)
	if err != nil {
		w.findEnd(ctx, err, all)
		return err
	}
	if tag.RowsAffected() != all.rows {
		return swallowed(all.rows, tag.RowsAffected())
	}
	if !w.kept.deferred { // else its constraints come first: they may lock what those of the next batch lock
		closeOnce(b.numbered)
	}
	return nil
}

// findEnd asks where the sequence is, as endOfIDs wants to know, behind rows of which one has a number out of range.
func (w *writer) findEnd(ctx context.Context, refused error, all *piece) {
	pg, ok := errors.AsType[*pgconn.PgError](refused)
	if !ok || pg.Code != outOfRange || !w.kept.narrow || w.forget(ctx) != nil {
		return
	}
	p := w.startPipe(ctx)
	p.number("currval", &all.before, []byte(w.sequence))
	_ = p.finish() // the refusal is told in either case
	_ = p.close()
}

// endCopied asks where the sequence was before the rows that copyPiece sent, and where it is behind them.
func (w *writer) endCopied(p *pipe, all *piece) {
	p.number("before", &all.before)
	w.endPiece(p, all)
}

// insertPiece sends all rows of a batch, of which the next one may be sent once give is called.
func (w *writer) insertPiece(ctx context.Context, p *pipe, b *batch, all *piece) (give func(), err error) {
	if give, err = w.turn(ctx); err != nil {
		return give, err
	}
	w.beginPiece(p, all)
	if err = w.insertClients(p, b); err == nil {
		w.endPiece(p, all)
	}
	return give, err
}

// turn is take for a batch; give ends it.
func (w *writer) turn(ctx context.Context) (give func(), err error) {
	ours, err := w.take(ctx, 0)
	if !ours {
		return func() {}, err
	}
	return w.numbering.give, err
}

// take waits for a turn to insert rows. Where they are read back anyway nobody needs one.
func (w *writer) take(ctx context.Context, left int) (ours bool, err error) {
	if w.kept.changes {
		return false, nil
	}
	return w.numbering.take(ctx, left)
}

// insertPieces inserts a campaign that is alone in its transaction. A piece is encoded while the server
// works at the one before. Once a turn did not come in time none is waited for any more.
func (w *writer) insertPieces(ctx context.Context, p *pipe, b *batch) (pieces []*piece, err error) {
	t := b.triggers[0]
	ours, patient := false, true
	settle := func() error {
		err := p.collect(p.unsent)
		if ours {
			w.numbering.give()
			ours = false
		}
		return err
	}
	defer func() { err = cmp.Or(err, settle()) }()
	for from := 0; from < t.deliveries(); from += rowsPerInsert {
		to := min(from+rowsPerInsert, t.deliveries())
		next := &piece{rows: int64(to - from)}
		w.beginPiece(p, next)
		w.insert(p, t, from, to)
		w.endPiece(p, next)
		b.rows.Add(next.rows)
		left := t.deliveries() - from
		if goesOn := ours && w.numbering.goOn(left); patient && !goesOn {
			if err := settle(); err != nil {
				return pieces, err
			}
			if ours, err = w.take(ctx, left); err != nil {
				return pieces, err
			}
			patient = ours
		}
		pieces = append(pieces, next)
		if err := p.push(); err != nil {
			return pieces, err
		}
	}
	return pieces, nil
}
