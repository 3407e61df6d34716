package soak

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sort"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
)

const (
	// readyLimit bounds the first start, and how long the last fault may be felt.
	readyLimit = 2 * time.Minute
	// drainLimit is how long after the last fault everything may take: the group's session time-out,
	// retries at their longest pause, and the brokers' time-out of an abandoned transaction (60 s).
	drainLimit = 2 * time.Minute
	// questionLimit bounds one question to brokers that may have lost their coordinator.
	questionLimit = 10 * time.Second
)

// ready waits until every daemon says so.
func (r *run) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	for {
		var waiting []string
		for _, d := range r.world.daemons {
			if reasons := d.reasons(ctx); reasons != nil {
				waiting = append(waiting, d.name+": "+strings.Join(reasons, "; "))
			}
		}
		if len(waiting) == 0 {
			return nil
		}
		if !wait(ctx, 100*time.Millisecond) {
			return fmt.Errorf("not ready within %v:\n%s: %w", readyLimit, strings.Join(waiting, "\n"), ctx.Err())
		}
	}
}

// drain starts what does not run and waits until all that was published so far is in both sinks.
func (r *run) drain(ctx context.Context) error {
	if err := r.world.heal(ctx); err != nil {
		return fmt.Errorf("heal: %w", err)
	}
	begun := time.Now()
	bound, cancel := context.WithTimeout(ctx, drainLimit)
	defer cancel()
	var behind string
	var ends map[int32]int64
	for {
		var err error
		if ends == nil {
			ends, err = r.ends(bound, inputTopic)
		}
		if err == nil {
			behind, err = r.behind(bound, ends)
		}
		if err == nil && behind == "" {
			r.drains = append(r.drains, time.Since(begun))
			r.say("all that was published is delivered after %v", time.Since(begun).Round(time.Millisecond))
			return nil
		}
		if wait(bound, 200*time.Millisecond) {
			continue
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("not everything was delivered within %v of the last fault: %s%s", drainLimit, behind, r.waiting(ctx, err))
	}
}

// waiting says what each daemon waits for.
func (r *run) waiting(ctx context.Context, err error) string {
	var b strings.Builder
	if err != nil {
		fmt.Fprintf(&b, "\nthe brokers do not answer: %v", err)
	}
	for _, d := range r.world.daemons {
		reasons := d.reasons(ctx)
		if reasons == nil {
			reasons = []string{"says that it is ready"}
		}
		fmt.Fprintf(&b, "\n%s: %s", d.name, strings.Join(reasons, "; "))
	}
	return b.String()
}

// ends are the high watermarks of a topic.
func (r *run) ends(ctx context.Context, topic string) (map[int32]int64, error) {
	ends := map[int32]int64{}
	ctx, cancel := context.WithTimeout(ctx, questionLimit)
	defer cancel()
	listed, err := kadm.NewClient(r.publisher.client).ListEndOffsets(ctx, topic)
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("ask for the ends of topic %s: %w", topic, err)
	}
	listed.Each(func(o kadm.ListedOffset) { ends[o.Partition] = o.Offset })
	return ends, nil
}

// behind names the partitions whose group offset is not yet at the end.
func (r *run) behind(ctx context.Context, ends map[int32]int64) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, questionLimit)
	defer cancel()
	admin := kadm.NewClient(r.publisher.client)
	offsets, err := admin.FetchOffsets(ctx, group)
	if err != nil {
		return "", fmt.Errorf("ask for the offsets of group %s: %w", group, err)
	}
	var late []string
	for p, end := range ends {
		at := int64(-1)
		if o, ok := offsets.Lookup(inputTopic, p); ok {
			at = o.At
		}
		if at < end {
			late = append(late, fmt.Sprintf("partition %d of the input is handled to %d of %d", p, at, end))
		}
	}
	sort.Strings(late)
	return strings.Join(late, ", "), nil
}

// users are those of the feedback table: they update what they have seen.
func (r *run) users(ctx context.Context) {
	random := r.random(6)
	for wait(ctx, time.Second) {
		if err := r.markSeen(ctx, random); err != nil && ctx.Err() == nil {
			continue // the server is down, or the table not there yet
		}
	}
}

func (r *run) markSeen(ctx context.Context, random *rand.Rand) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, r.world.feedback.DSN(feedbackDatabase))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	_, err = conn.Exec(ctx, `UPDATE subscribers_feedback SET feedback = $1
		WHERE id > (SELECT max(id) FROM subscribers_feedback) - 50 AND id % 5 = $2`, seen, random.IntN(5))
	return err
}

// progress says once a minute how far it is.
func (r *run) progress(ctx context.Context) {
	for wait(ctx, time.Minute) {
		kills := r.kills.Load()
		r.say("PROGRESS %d kills (%.0f an hour), %d other faults, %d changes committed, %d campaigns published",
			kills, float64(kills)/time.Since(r.begun).Hours(), r.others.Load(), r.history.count(), r.publisher.count())
	}
}
