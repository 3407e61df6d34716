package stream

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"
)

// Verification says what Verify compares. The zero value is not valid.
type Verification struct {
	// Kafka names the cluster, the group whose ledger is judged, and the topics.
	Kafka KafkaConfig
	// FeedbackDSN and FeedbackTable are as in Config.
	FeedbackDSN   string
	FeedbackTable pgx.Identifier
	// Mode decides whether a record that came twice, byte for byte the same, is a difference.
	Mode Mode
	// From and To bound the campaign messages; none means all that the ledger knows of the
	// group. As soon as one names a partition, only the named ones are compared.
	From, To []Bound
	// Patience is how long messages in flight may stand still before they are judged as they
	// are; 0 means 15 s.
	Patience time.Duration
	// Memory bounds the triggers, and the deliveries of those that differ, which are kept in
	// memory at a time; 0 means 500,000 of each (about 100 MB). What is more goes to temporary
	// files, or takes another pass over the topic.
	Memory int
	// Progress, if any, is kept up to date. It may be read at any time.
	Progress *Progress
}

// Progress is how far a verification is. Safe for concurrent use.
type Progress struct {
	rows, rowsAll, records, recordsAll, differences, passes atomic.Int64
}

// Now returns the rows and records that were read, and how many there are to read at most in
// this pass: pass 1 compares, later ones name the differences found. Rows are counted by ids.
func (p *Progress) Now() (rows, rowsAll, records, recordsAll, differences, pass int64) {
	return p.rows.Load(), p.rowsAll.Load(), p.records.Load(), p.recordsAll.Load(), p.differences.Load(), p.passes.Load()
}

func (p *Progress) pass() {
	for _, n := range []*atomic.Int64{&p.rows, &p.rowsAll, &p.records, &p.recordsAll} {
		n.Store(0)
	}
	p.passes.Add(1)
}

// Verdict is what a verification found.
type Verdict struct {
	OK    bool   `json:"ok"`
	Group string `json:"group"`
	Topic string `json:"topic"`
	// Partitions are the offsets of the input topic that were compared.
	Partitions []JudgedSpan `json:"partitions"`
	// Messages that the manifest holds of them, their rows and records, and the dead letters.
	Messages    int64 `json:"messages"`
	Rows        int64 `json:"rows"`
	Records     int64 `json:"records"`
	DeadLetters int64 `json:"dead_letters"`
	// Differences were all told. Duplicates were told too; they count as differences but in
	// at_least_once mode.
	Differences int64 `json:"differences"`
	Duplicates  int64 `json:"duplicates"`
	// Gone are the deliveries whose record is not there and may have been removed with the
	// older part of the topic (retention, compaction): not judged.
	Gone int64 `json:"gone_by_retention"`
	// Other are records of the scanned part of the output topic that belong to no message of
	// this comparison: other offsets, another input topic, before the group began.
	Other int64 `json:"other_records"`
	// Unmarked are those of Other that name no message at all: another program wrote them, before
	// the first record of this comparison in their partition (after a move from another job) or
	// outside of its time. UnmarkedLetters are the same of the dead-letter topic.
	Unmarked        int64 `json:"unmarked_records"`
	UnmarkedLetters int64 `json:"unmarked_dead_letters"`
}

// JudgedSpan is a range of a partition of the input topic: [From, To).
type JudgedSpan struct {
	Partition int32 `json:"partition"`
	From      int64 `json:"from"`
	To        int64 `json:"to"`
	// GroupOffset is set when the group had not reached To, and stood still: from there on the
	// records may be missing because nobody has sent them yet.
	GroupOffset *int64 `json:"group_offset,omitempty"`
}

const (
	verifyPatience = 15 * time.Second
	verifyMemory   = 500_000
	// clockMargin is how far the clocks of the daemons, the brokers and the feedback database
	// may lie apart: a message's records are looked for from so much before it was handled.
	clockMargin = time.Minute
)

// ErrNothingToVerify says that the ledger knows nothing of the group.
var ErrNothingToVerify = errors.New("the ledger knows nothing of this group and topic: check kafka.group and kafka.input")

// verifier is one verification under way.
type verifier struct {
	Verification

	cl    *kgo.Client
	db    *snapshot
	spans map[int32]*judged
	// whole says that no bound was given: a record of any other message is a difference.
	whole bool
	// since is when the first of the messages was handled; until the last, or nil for no end.
	since, until *time.Time

	output, letters *stretch
	tally           *tally
	seeds           [3]maphash.Seed        // of the fingerprint; the third divides names into rounds
	say             func(Difference) error // calls Verification's tell; for one goroutine at a time
	found           *Verdict
}

// judged is a partition's span and what holds it up.
type judged struct {
	from, to int64
	// held is the group's offset when it had not reached to; -1 if it had.
	held int64
	// goneBelow is the offset up to which a missing record (letter) may have been removed.
	goneBelow, lettersGone int64
}

// Verify compares the committed records of the output topic with the rows of the feedback
// table, and both with the manifest, and calls tell for every difference, from one goroutine at
// a time; tell's error ends it. Both sinks are streamed once; what differs is read again to be
// named. The feedback database is read in one snapshot, the topics up to their ends at the
// start, so that a daemon may run beside it. It writes nothing but temporary files.
func Verify(ctx context.Context, v Verification, tell func(Difference) error) (Verdict, error) {
	v.Kafka.setDefaults()
	if v.Patience == 0 {
		v.Patience = verifyPatience
	}
	if v.Memory == 0 {
		v.Memory = verifyMemory
	}
	if v.Progress == nil {
		v.Progress = new(Progress)
	}
	run := &verifier{Verification: v, tally: newTally(v.Memory), whole: len(v.From)+len(v.To) == 0}
	for i := range run.seeds {
		run.seeds[i] = maphash.MakeSeed()
	}
	run.found = &Verdict{Group: v.Kafka.Group, Topic: v.Kafka.Input}
	run.say = func(d Difference) error { return run.tell(d, tell) }
	defer run.close(ctx)
	err := run.open(ctx)
	if err == nil {
		err = run.compare(ctx)
	}
	if err == nil {
		err = run.nameDifferences(ctx)
	}
	if err != nil {
		return Verdict{}, err
	}
	run.found.OK = run.found.Differences == 0
	return *run.found, nil
}

// tell counts a difference and passes it on.
func (v *verifier) tell(d Difference, tell func(Difference) error) error {
	if d.Kind == DuplicateRecord || d.Kind == DuplicateLetter {
		v.found.Duplicates += max(d.Times-1, 1)
		d.Harmless = v.Mode == AtLeastOnce
	}
	if !d.Harmless {
		v.found.Differences++
		v.Progress.differences.Add(1)
	}
	return tell(d)
}

// open connects, fixes what is compared, and waits for what is in flight.
func (v *verifier) open(ctx context.Context) (err error) {
	watch := &dialWatch{}
	if v.cl, err = v.Kafka.newClient(kgo.WithHooks(watch)); err != nil {
		return fmt.Errorf("kafka: %w", err)
	}
	if err := v.cl.Ping(ctx); err != nil {
		return withRemedy(sinkFault(sinkKafka, fmt.Errorf("kafka: %w", watch.explain(err))))
	}
	// Asked before the snapshot: whatever the group had committed by then, the ledger has.
	offsets, err := v.groupOffsets(ctx)
	if err != nil {
		return withRemedy(sinkFault(sinkKafka, fmt.Errorf("kafka: %w", err)))
	}
	if v.db, err = openSnapshot(ctx, &v.Verification); err != nil {
		return withRemedy(sinkFault(sinkPostgres, fmt.Errorf("feedback database: %w", err)))
	}
	if err := v.choose(ctx, offsets); err != nil {
		return err
	}
	if err := v.awaitFlight(ctx); err != nil {
		return withRemedy(sinkFault(sinkKafka, fmt.Errorf("kafka: %w", err)))
	}
	for _, t := range []struct {
		name string
		into **stretch
	}{{v.Kafka.Output, &v.output}, {v.Kafka.DeadLetter, &v.letters}} {
		if *t.into, err = v.stretchOf(ctx, t.name, v.since); err != nil {
			return withRemedy(sinkFault(sinkKafka, fmt.Errorf("kafka: %w", err)))
		}
	}
	return nil
}

// compare reads both sinks once, side by side, into the tally.
func (v *verifier) compare(ctx context.Context) error {
	v.Progress.pass()
	group, ctx := errgroup.WithContext(ctx)
	extra := make(chan Difference) // what is told while both sides read
	group.Go(func() error { return v.tallyRows(ctx, extra) })
	group.Go(func() error { return v.tallyRecords(ctx, extra) })
	done := make(chan struct{})
	told := make(chan error, 1)
	go func() {
		var failed error
		for {
			select {
			case d := <-extra:
				if failed == nil {
					failed = v.say(d)
				}
			case <-done:
				told <- failed
				return
			}
		}
	}()
	err := group.Wait()
	close(done)
	err = errors.Join(err, <-told)
	v.output.settleGone(v.spans, func(j *judged) *int64 { return &j.goneBelow })
	v.letters.settleGone(v.spans, func(j *judged) *int64 { return &j.lettersGone })
	return err
}

func (v *verifier) close(ctx context.Context) {
	if v.cl != nil {
		v.cl.Close()
	}
	if v.db != nil {
		v.db.close(ctx)
	}
	v.tally.close()
}
