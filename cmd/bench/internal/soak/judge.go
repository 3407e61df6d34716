package soak

import (
	"context"
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
)

// Report is what a soak found.
type Report struct {
	Seed         uint64
	Kills        int
	OtherFaults  int
	Took         time.Duration
	Lives        []int // of each daemon
	Changes      int   // transactions of the source that were committed
	Messages     int   // of the input topic
	Delivered    int   // of them to somebody
	Deliveries   int   // rows, and as many records
	DeadLetters  int
	OneState     int           // messages for which only one state of the table was admissible
	SlowestRound time.Duration // from a round's last fault until everything was delivered

	Lost, Twice, Stale, Different, OutOfOrder int
	Told                                      []string // the first differences
}

// OK reports whether there was no difference.
func (r *Report) OK() bool {
	return r != nil && r.Lost+r.Twice+r.Stale+r.Different+r.OutOfOrder == 0
}

func (r *run) report(v *verdict) *Report {
	report := &Report{
		Seed: r.cfg.Seed, Kills: int(r.kills.Load()), OtherFaults: int(r.others.Load()), Took: time.Since(r.begun),
		Changes: r.history.count(), Messages: v.messages, Delivered: v.delivered, Deliveries: v.deliveries, DeadLetters: v.letters, OneState: v.sharp,
		Lost: v.lost, Twice: v.twiceN, Stale: v.staleN, Different: v.differing, OutOfOrder: v.disorder, Told: v.told,
	}
	for _, d := range r.world.daemons {
		report.Lives = append(report.Lives, d.lives)
	}
	for _, d := range r.drains {
		report.SlowestRound = max(report.SlowestRound, d)
	}
	return report
}

// judge reads everything and decides.
func (r *run) judge(ctx context.Context) (*Report, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	brokers := r.world.kafka.PlainBrokers()
	if err := r.noneOpen(ctx); err != nil {
		return nil, err
	}
	conn, err := pgx.Connect(ctx, r.world.feedback.DSN(feedbackDatabase))
	if err != nil {
		return nil, fmt.Errorf("connect to the feedback database: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	e := &evidence{messages: map[place]*message{}, verdict: &verdict{}}
	if err := e.read(ctx, conn, brokers, r.publisher.all()); err != nil {
		return nil, err
	}
	e.judge(r.history)
	return r.report(e.verdict), nil
}

func (e *evidence) read(ctx context.Context, conn *pgx.Conn, brokers []string, sent []*publication) error {
	if err := e.readInput(ctx, brokers, sent); err != nil {
		return err
	}
	if err := e.readManifest(ctx, conn); err != nil {
		return err
	}
	sort.Slice(e.ids, func(i, j int) bool { return e.ids[i].first < e.ids[j].first })
	if err := e.readRows(ctx, conn); err != nil {
		return err
	}
	if err := e.readRecords(ctx, brokers); err != nil {
		return err
	}
	return e.readLetters(ctx, brokers)
}

// noneOpen waits until no transaction keeps readers from the ends of the output topics.
func (r *run) noneOpen(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, drainLimit)
	defer cancel()
	admin := kadm.NewClient(r.publisher.client)
	for {
		var open []string
		for _, topic := range []string{outputTopic, deadLetterTopic} {
			ends, err := r.ends(ctx, topic)
			if err != nil {
				return err
			}
			stable, err := admin.ListCommittedOffsets(ctx, topic)
			if err != nil {
				return fmt.Errorf("ask for the stable ends of topic %s: %w", topic, err)
			}
			stable.Each(func(o kadm.ListedOffset) {
				if o.Offset < ends[o.Partition] {
					open = append(open, fmt.Sprintf("%s/%d at %d of %d", topic, o.Partition, o.Offset, ends[o.Partition]))
				}
			})
		}
		if len(open) == 0 {
			return nil
		}
		if !wait(ctx, time.Second) {
			return fmt.Errorf("transactions stayed open for %v after the daemons stopped in order: %s", drainLimit, strings.Join(open, ", "))
		}
	}
}
