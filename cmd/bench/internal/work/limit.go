package work

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"example.com/tiffin/cmd/bench/internal/testbed"
)

// The shape of the limit: with 10,000 rows a transaction and two workers the servers gave most on
// the machines where it was tried; below 50 recipients a campaign one COPY of the batch gave more
// than a statement a campaign.
const (
	limitBatch   = 10_000
	limitWorkers = 2
	copyBelow    = 50
)

// Limit is the plainest program that moves the same rows and records: campaigns are merged into
// batches; each batch is one Postgres transaction (an INSERT ... SELECT of constants and unnest a
// campaign, all sent at once, or one COPY where fan-outs are small) and one Kafka transaction of the
// same deliveries. No input, no join, no ledger, no offsets; what can be encoded before the clock
// runs is. It moves the first campaigns of the workload to a lane of its own and returns the
// duration for all of them.
func Limit(ctx context.Context, w *Workload, lane *testbed.Lane, campaigns int) (time.Duration, error) {
	plan, err := planLimit(w, campaigns)
	if err != nil {
		return 0, err
	}
	var workers []*limitWorker
	for n := range limitWorkers {
		worker, err := newLimitWorker(ctx, plan, lane, n)
		if err != nil {
			return 0, err
		}
		defer worker.close()
		workers = append(workers, worker)
	}
	// What was encoded beforehand is no garbage to be looked for again and again.
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	batches := make(chan span)
	begun := time.Now()
	group, ctx := errgroup.WithContext(ctx)
	for _, worker := range workers {
		group.Go(func() error { return worker.run(ctx, batches) })
	}
	group.Go(func() error {
		defer close(batches)
		for _, b := range plan.batches {
			select {
			case batches <- b:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	err = group.Wait()
	return time.Since(begun), err
}

// span is campaigns from up to to, and of a campaign that is larger than a batch the recipients
// first up to last.
type span struct{ from, to, first, last int }

// limitPlan is everything that is the same for all deliveries of a campaign, encoded.
type limitPlan struct {
	work    *Workload
	trigger int64
	heads   [][]byte // of the records' values, before the client id
	tails   [][]byte
	rows    [][]byte // of the table's rows as COPY wants them, before the client id; nil with unnest
	batches []span
}

func planLimit(w *Workload, campaigns int) (*limitPlan, error) {
	p := &limitPlan{work: w, trigger: time.Now().Unix()}
	for n := range campaigns {
		head, tail, err := w.envelope(n, p.trigger)
		if err != nil {
			return nil, err
		}
		p.heads, p.tails = append(p.heads, head), append(p.tails, tail)
	}
	if w.Deliveries(0, campaigns) < campaigns*copyBelow {
		for n := range campaigns {
			p.rows = append(p.rows, w.copyRow(n))
		}
	}
	for from := 0; from < campaigns; {
		if fanout := w.Fanout(from); fanout > limitBatch {
			for first := 0; first < fanout; first += limitBatch {
				p.batches = append(p.batches, span{from, from + 1, first, min(first+limitBatch, fanout)})
			}
			from++
			continue
		}
		to, rows := from, 0
		for to < campaigns && (to == from || rows+w.Fanout(to) <= limitBatch) {
			rows += w.Fanout(to)
			to++
		}
		p.batches = append(p.batches, span{from, to, 0, limitBatch})
		from = to
	}
	return p, nil
}

// clients are the recipients of campaign n that belong to a batch.
func (p *limitPlan) clients(n int, b span) []string {
	list := p.work.Recipients(n)
	return list[min(b.first, len(list)):min(b.last, len(list))]
}

type limitWorker struct {
	plan   *limitPlan
	conn   *pgx.Conn
	client *kgo.Client
}

func newLimitWorker(ctx context.Context, plan *limitPlan, lane *testbed.Lane, n int) (*limitWorker, error) {
	conn, err := pgx.Connect(ctx, lane.FeedbackDSN)
	if err != nil {
		return nil, fmt.Errorf("connect for the limit: %w", err)
	}
	client, err := kgo.NewClient(
		kgo.SeedBrokers(lane.Brokers...), kgo.DefaultProduceTopic(lane.Output),
		kgo.TransactionalID(lane.Group+"-limit-"+strconv.Itoa(n)),
		kgo.ProducerBatchCompression(kgo.Lz4Compression()), kgo.RequiredAcks(kgo.AllISRAcks()), kgo.MaxBufferedRecords(2*limitBatch),
	)
	if err != nil {
		return nil, errors.Join(err, conn.Close(context.WithoutCancel(ctx)))
	}
	if _, _, err := client.ProducerID(ctx); err != nil { // asked for now, not when the clock runs
		client.Close()
		return nil, errors.Join(fmt.Errorf("the limit's producer: %w", err), conn.Close(context.WithoutCancel(ctx)))
	}
	return &limitWorker{plan: plan, conn: conn, client: client}, nil
}

func (l *limitWorker) close() {
	l.client.Close()
	_ = l.conn.Close(context.Background())
}

func (l *limitWorker) run(ctx context.Context, batches <-chan span) error {
	for b := range batches {
		if err := l.deliver(ctx, b); err != nil {
			return fmt.Errorf("the limit: %w", err)
		}
	}
	return nil
}

// deliver produces while Postgres works, as tiffin may, and ends the Kafka transaction after it.
func (l *limitWorker) deliver(ctx context.Context, b span) error {
	if err := l.client.BeginTransaction(); err != nil {
		return err
	}
	var faults kgo.FirstErrPromise
	inserted := make(chan error, 1)
	go func() { inserted <- l.insert(ctx, b) }()
	for n := b.from; n < b.to; n++ {
		clients, head, tail := l.plan.clients(n, b), l.plan.heads[n], l.plan.tails[n]
		const uuid = 36                                                    // bytes of every client id
		buffer := make([]byte, 0, len(clients)*(len(head)+len(tail)+uuid)) // one for the campaign: values alias it
		for _, client := range clients {
			from := len(buffer)
			buffer = append(append(append(buffer, head...), client...), tail...)
			l.client.Produce(ctx, &kgo.Record{Key: []byte(client), Value: buffer[from:]}, faults.Promise())
		}
	}
	if err := errors.Join(<-inserted, l.client.Flush(ctx), faults.Err()); err != nil {
		return err
	}
	return l.client.EndTransaction(ctx, kgo.TryCommit)
}

const limitColumns = `restaurant_id, adv_campaign_id, adv_campaign_content, adv_campaign_owner, adv_campaign_owner_contact,
	adv_campaign_datetime_start, adv_campaign_datetime_end, datetime_created, client_id, trigger_datetime_created, feedback`

func (l *limitWorker) insert(ctx context.Context, b span) error {
	if l.plan.rows != nil {
		source := &copyReader{plan: l.plan, span: b, next: b.from}
		_, err := l.conn.PgConn().CopyFrom(ctx, source, "COPY subscribers_feedback ("+limitColumns+") FROM STDIN (FORMAT binary)")
		return err
	}
	const sql = "INSERT INTO subscribers_feedback (" + limitColumns + ") SELECT $1, $2, $3, $4, $5, $6, $7, $8, unnest($9::text[]), $10, ''"
	var batch pgx.Batch
	for n := b.from; n < b.to; n++ {
		c := l.plan.work.Campaign(n)
		batch.Queue(sql, c.Restaurant, c.ID, c.Content, c.Owner, c.OwnerContact, c.Start, c.End, c.Created, l.plan.clients(n, b), l.plan.trigger)
	}
	return pgx.BeginFunc(ctx, l.conn, func(tx pgx.Tx) error { return tx.SendBatch(ctx, &batch).Close() })
}

// copyRow is a row of campaign n in COPY's binary format, up to the client id (Postgres' manual,
// COPY, "Binary Format").
func (w *Workload) copyRow(n int) []byte {
	c := w.Campaign(n)
	row := binary.BigEndian.AppendUint16(nil, 11)
	for _, text := range []string{c.Restaurant, c.ID, c.Content, c.Owner, c.OwnerContact} {
		row = appendText(row, text)
	}
	for _, number := range []int64{c.Start, c.End, c.Created} {
		row = appendNumber(row, number)
	}
	return row
}

func appendText(row []byte, text string) []byte {
	return append(binary.BigEndian.AppendUint32(row, uint32(len(text))), text...)
}

func appendNumber(row []byte, number int64) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(row, 8), uint64(number))
}

// copyReader gives the rows of a batch.
type copyReader struct {
	plan   *limitPlan
	span   span
	next   int // campaign
	begun  bool
	ended  bool
	buffer []byte
}

// Read implements io.Reader.
func (r *copyReader) Read(into []byte) (int, error) {
	if !r.begun {
		r.begun = true
		r.buffer = append([]byte("PGCOPY\n\377\r\n\x00"), 0, 0, 0, 0, 0, 0, 0, 0)
	}
	for len(r.buffer) < len(into) && r.next < r.span.to {
		for _, client := range r.plan.clients(r.next, r.span) {
			r.buffer = appendText(append(r.buffer, r.plan.rows[r.next]...), client)
			r.buffer = appendText(appendNumber(r.buffer, r.plan.trigger), "")
		}
		r.next++
	}
	if r.next == r.span.to && !r.ended {
		r.ended = true
		r.buffer = binary.BigEndian.AppendUint16(r.buffer, 0xffff)
	}
	if len(r.buffer) == 0 {
		return 0, io.EOF
	}
	n := copy(into, r.buffer)
	r.buffer = r.buffer[:copy(r.buffer, r.buffer[n:])]
	return n, nil
}
