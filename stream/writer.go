package stream

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

const (
	// rowsPerInsert bounds the client ids of one statement: enough to forget the round trip,
	// little enough for a campaign of millions to stream.
	rowsPerInsert = 10_000
	// copyBelow is the average fan-out under which one COPY of a whole batch beats a
	// statement per campaign.
	copyBelow = 50
	// copyTexts bounds, in bytes, what the rows of one campaign may repeat of its texts by COPY: a statement
	// has them once.
	copyTexts = 1 << 20
	// firstBytes are what Postgres has to begin with, and portionBytes what it gets at once afterwards; it has no
	// more than that and a half to do.
	firstBytes   = 8 << 10
	portionBytes = 256 << 10
	// statementTimeout and rowTimeout bound one exchange with the feedback database: so much,
	// and so much more a row (a fiftieth of the slowest rate in FACTS).
	statementTimeout = 60 * time.Second
	rowTimeout       = 200 * time.Microsecond
	// idleFrom is when a connection is one that may have been ended meanwhile.
	idleFrom = 100 * time.Millisecond
)

// writer delivers batches into Postgres on a connection of its own. One goroutine at a time.
type writer struct {
	conn  *pgx.Conn
	group string
	topic string
	// table is the feedback table, quoted; sequence feeds its id.
	table, sequence string

	kept      kept // what the table does to a row
	numbering *numbering
	used      time.Time // the end of the last exchange

	clients textArray // reused from statement to statement
	wire    wireBuffer
	encoded []byte // likewise
}

// feedbackColumns are the contract's columns in its order; feedback is written as ”.
const feedbackColumns = `restaurant_id, adv_campaign_id, adv_campaign_content, adv_campaign_owner, ` +
	`adv_campaign_owner_contact, adv_campaign_datetime_start, adv_campaign_datetime_end, datetime_created, ` +
	`client_id, trigger_datetime_created, feedback`

const beginTransaction = `BEGIN ISOLATION LEVEL READ COMMITTED`

// newWriter takes over conn, which it expects to be idle, and prepares its statements.
func newWriter(ctx context.Context, conn *pgx.Conn, c *Config, n *numbering) (*writer, error) {
	w := &writer{conn: conn, group: c.Kafka.Group, topic: c.Kafka.Input, table: c.FeedbackTable.Sanitize(), numbering: n}
	if err := markSession(ctx, conn, c.Kafka.Group, c.Kafka.Process); err != nil {
		return nil, fmt.Errorf("feedback database: %w", err)
	}
	if err := settle(ctx, conn); err != nil {
		return nil, err
	}
	err := conn.QueryRow(ctx, `
		SELECT d.refobjid::regclass::text FROM pg_depend d JOIN pg_class s ON s.oid = d.refobjid AND s.relkind = 'S'
		JOIN pg_attrdef a ON a.oid = d.objid AND d.classid = 'pg_attrdef'::regclass
		JOIN pg_attribute c ON c.attrelid = a.adrelid AND c.attnum = a.adnum
		WHERE a.adrelid = $1::text::regclass AND c.attname = 'id' AND d.refclassid = 'pg_class'::regclass
		UNION ALL SELECT pg_get_serial_sequence($1, 'id') WHERE pg_get_serial_sequence($1, 'id') IS NOT NULL
		LIMIT 1`, w.table).Scan(&w.sequence)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, fmt.Errorf("feedback table %s: its id is fed by no sequence: make it an identity or a serial column", w.table)
	}
	if err != nil {
		return nil, fmt.Errorf("feedback table %s: find the sequence of its id: %w", w.table, err)
	}
	if w.kept, err = askKept(ctx, conn, w.table); err != nil {
		return nil, err
	}
	for name, sql := range w.statements() {
		if _, err := conn.PgConn().Prepare(ctx, name, sql, nil); err != nil {
			return nil, fmt.Errorf("feedback table %s: prepare %s: %w", w.table, name, err)
		}
	}
	return w, nil
}

func (w *writer) statements() map[string]string {
	return map[string]string{
		"begin":  beginTransaction,
		"commit": `COMMIT`,
		// What a row may be refused for at the commit is known before its record is produced.
		"check": `SET CONSTRAINTS ALL IMMEDIATE`,
		"advance": `UPDATE tiffin.progress AS p SET next_offset = n.next, updated_at = now()
			FROM unnest($3::int4[], $4::int8[], $5::int8[], $6::int8[]) AS n(partition, epoch, expected, next)
			WHERE p.consumer_group = $1::text AND p.topic = $2::text AND p.partition = n.partition
			AND p.epoch = n.epoch AND p.next_offset = n.expected`,
		"before":  `SELECT current_setting('` + beforeSetting + `')::int8`,
		"nextval": `SELECT nextval($1::text::regclass)`,
		"currval": `SELECT currval($1::text::regclass)`,
		"insert": `INSERT INTO ` + w.table + ` (` + feedbackColumns + `)
			SELECT $1::text, $2::text, $3::text, $4::text, $5::text, $6::int8, $7::int8, $8::int8, c, $10::int8, ''
			FROM unnest($9::text[]) AS c`,
		// Rows of this transaction, however many sessions draw on the sequence meanwhile.
		"readback": `SELECT id::int8 FROM ` + w.table + ` WHERE id > $1::int8 AND id <= $2::int8
			AND xmin = pg_current_xact_id()::xid ORDER BY id`,
		"manifest": insertManifest,
	}
}

// deliver commits a batch: the rows, the ledger's new positions, the manifest. When it
// returns an error the outcome may be unknown (a lost connection during COMMIT): the ledger
// knows, so the session ends and the next one asks it. On success the triggers know their ids.
func (w *writer) deliver(ctx context.Context, b *batch, g gates) error {
	if err := w.kept.fits(b); err != nil {
		return fmt.Errorf("feedback table: %w", err)
	}
	defer func() { w.used = time.Now() }()
	pieces, advanced, err := w.insertRows(ctx, b, g.ledger)
	if err == nil {
		err = w.assignIDs(ctx, b, pieces)
	}
	if err != nil {
		return fmt.Errorf("feedback table: %w", w.explain(err, pieces))
	}
	if err := w.compare(ctx, b); err != nil {
		return fmt.Errorf("feedback table: %w", err)
	}
	closeOnce(b.taken)
	if !advanced {
		if err := await(ctx, g.ledger); err != nil {
			return err
		}
		if err := w.advance(ctx, b); err != nil {
			return err
		}
	}
	if err := await(ctx, g.commit); err != nil {
		return err
	}
	if err := w.finish(ctx, b); err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	return nil
}

// insertRows begins the transaction, inserts every row, and moves the ledger if nothing has to be waited for,
// which it says. The ledger comes last, so that its row is locked shortly: a process that takes the
// partition over does not wait for the rows of one that is slow, or stopped.
func (w *writer) insertRows(ctx context.Context, b *batch, ledger <-chan struct{}) (pieces []*piece, advanced bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeoutOf(b.deliveries))
	defer cancel()
	if err := w.forget(ctx); err != nil {
		return nil, false, err
	}
	all := &piece{rows: int64(b.deliveries)}
	copied := w.prefersCopy(b)
	if copied {
		if err := w.copyPiece(ctx, b, all); err != nil {
			return []*piece{all}, false, err
		}
	}
	p := w.startPipe(ctx)
	defer func() { err = errors.Join(err, p.close()) }()
	if !copied {
		p.command("begin", -1)
	}
	switch {
	case b.deliveries == 0:
	case b.rows != nil:
		pieces, err = w.insertPieces(ctx, p, b)
	case copied:
		w.endCopied(p, all)
		pieces = append(pieces, all)
	default:
		give, refused := w.insertPiece(ctx, p, b, all)
		defer give()
		pieces, err = append(pieces, all), refused
	}
	if err != nil {
		return pieces, false, err
	}
	if w.kept.deferred && b.deliveries > 0 {
		p.command("check", -1)
	}
	if advanced = closedAlready(ledger); advanced {
		p.advance(w, b)
	}
	if err := p.finish(); err != nil {
		return pieces, advanced, err
	}
	closeOnce(b.numbered)
	return pieces, advanced, nil
}

// forget ends the transaction of a batch that was refused, if it is open. Of a connection that was idle it asks for
// a word: what the server may have said when it ended it is lost behind the second write (collect), and a COPY is many.
func (w *writer) forget(ctx context.Context) error {
	sql := "ROLLBACK"
	if w.conn.PgConn().TxStatus() == 'I' {
		if time.Since(w.used) < idleFrom {
			return nil
		}
		sql = ""
	}
	_, err := w.conn.PgConn().Exec(ctx, sql).ReadAll()
	return err
}

// advance moves the ledger.
func (w *writer) advance(ctx context.Context, b *batch) (err error) {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	p := w.startPipe(ctx)
	defer func() { err = errors.Join(err, p.close()) }()
	p.advance(w, b)
	return p.finish()
}

func timeoutOf(rows int) time.Duration { return statementTimeout + time.Duration(rows)*rowTimeout }

func (w *writer) prefersCopy(b *batch) bool {
	delivered := 0
	for _, t := range b.triggers {
		if t.deliveries()*t.campaign.texts() > copyTexts && t.deliveries() > 1 {
			return false
		}
		if t.recipients != nil {
			delivered++
		}
	}
	return b.deliveries > 0 && delivered > 1 && b.deliveries < delivered*copyBelow
}

func (w *writer) insertClients(p *pipe, b *batch) error {
	bytes, portion := 0, firstBytes
	for _, t := range b.triggers {
		for from := 0; from < t.deliveries(); from += rowsPerInsert {
			w.insert(p, t, from, min(from+rowsPerInsert, t.deliveries()))
			// What is under way is bounded in bytes; the server works meanwhile.
			before := bytes
			bytes += len(w.clients.buf)
			if before < portion/2 && bytes >= portion/2 && bytes < portion {
				p.halve()
			}
			if bytes >= portion {
				if err := p.push(); err != nil {
					return err
				}
				bytes, portion = 0, portionBytes
			}
		}
	}
	return nil
}

// insert sends the rows of some recipients of a campaign.
func (w *writer) insert(p *pipe, t *trigger, from, to int) {
	w.clients.reset()
	for client := range t.recipients.Range(from, to) {
		w.clients.add(client)
	}
	c := &t.campaign
	p.command("insert", int64(to-from), []byte(c.RestaurantID), []byte(c.ID), []byte(c.Content), []byte(c.Owner),
		[]byte(c.OwnerContact), int8Value(c.Start), int8Value(c.End), int8Value(c.Created), w.clients.value(), int8Value(t.now))
}

// assignIDs tells every trigger its rows' ids. Rows take ids in the order in which they are
// sent; when nobody else drew on the sequence during a piece they are one run, otherwise they
// are read back.
func (w *writer) assignIDs(ctx context.Context, b *batch, pieces []*piece) error {
	var all idRanges
	for _, p := range pieces {
		if p.last-p.before == p.rows && !w.kept.changes {
			all.add(p.before+1, p.last)
			continue
		}
		ids, err := w.readBack(ctx, p.before, p.last)
		if err != nil {
			return err
		}
		if ids.count() != p.rows {
			return swallowed(p.rows, ids.count())
		}
		for _, run := range ids {
			all.add(run.first, run.last)
		}
	}
	d := dealer{left: all, dealt: make(idRanges, 0, len(all)+len(b.triggers))}
	for _, t := range b.triggers {
		t.ids = d.take(int64(t.deliveries()))
	}
	return nil
}

func (w *writer) readBack(ctx context.Context, before, last int64) (idRanges, error) {
	ctx, cancel := context.WithTimeout(ctx, timeoutOf(int(last-before)))
	defer cancel()
	rr := w.conn.PgConn().ExecPrepared(ctx, "readback", [][]byte{int8Value(before), int8Value(last)}, binaryFormat, binaryFormat)
	var ids idRanges
	for rr.NextRow() {
		id := int64(binary.BigEndian.Uint64(rr.Values()[0]))
		ids.add(id, id)
	}
	if _, err := rr.Close(); err != nil {
		return nil, fmt.Errorf("read the new ids back: %w", err)
	}
	return ids, nil
}

// explain tells a row that was refused for its id from others.
func (w *writer) explain(err error, pieces []*piece) error {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.Code == "23505" {
		return &twiceError{err: err, table: w.table, sequence: w.sequence}
	}
	return w.kept.endOfIDs(err, pieces)
}

func swallowed(want, got int64) error {
	return fmt.Errorf("inserted %d rows but the table took %d: a trigger or rule on it changes what is inserted; remove it", want, got)
}

func (w *writer) close(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = w.conn.Close(ctx) // an open transaction is rolled back by the server
}

// binaryFormat asks for, and says, binary parameters and results throughout.
var binaryFormat = []int16{pgtype.BinaryFormatCode}

func int8Value(n int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }
