package stream

import (
	"bytes"
	"context"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kgo"
)

// batchOfSums is how many messages a side gathers before it takes the tally's lock.
const batchOfSums = 2048

// tallySide adds one side's deliveries to the tally. For one goroutine.
type tallySide struct {
	tally *tally
	batch map[tallyKey]sums
	key   tallyKey
	now   sums // of key: deliveries of one message come one after the other
}

func newTallySide(t *tally) *tallySide { return &tallySide{tally: t, batch: map[tallyKey]sums{}} }

// of returns the sums of a message, to add to until the next call.
func (s *tallySide) of(key tallyKey) (*sums, error) {
	if key == s.key {
		return &s.now, nil
	}
	s.put()
	s.key = key
	if len(s.batch) < batchOfSums {
		return &s.now, nil
	}
	return &s.now, s.tally.add(s.batch)
}

func (s *tallySide) put() {
	if s.now != (sums{}) {
		had := s.batch[s.key]
		had.add(&s.now)
		s.batch[s.key] = had
		s.now = sums{}
	}
}

func (s *tallySide) end() error {
	s.put()
	return s.tally.add(s.batch)
}

// tallyRecords adds the records of the output topic, then the dead letters.
func (v *verifier) tallyRecords(ctx context.Context, extra chan<- Difference) error {
	side, print := newTallySide(v.tally), newFingerprint(v.seeds[0], v.seeds[1])
	names := triggerNames{prefix: []byte(v.Kafka.Input + "/")}
	err := v.read(ctx, v.output, func(r *kgo.Record) error {
		key, what := v.standing(v.output, &names, r)
		switch what {
		case intruder:
			return send(ctx, extra, foreign(ExtraRecord, v.output.topic, r))
		case unmarked:
			v.found.Unmarked++
			v.found.Other++
			return nil
		case aside:
			v.found.Other++
			return nil
		}
		v.found.Records++
		sum, err := side.of(key)
		a, b := print.of(r.Key, r.Value)
		sum.records++
		sum.a -= a
		sum.b -= b
		return err
	})
	if err != nil {
		return err
	}
	err = v.read(ctx, v.letters, func(r *kgo.Record) error {
		key, what := v.standing(v.letters, &names, r)
		switch what {
		case intruder:
			return send(ctx, extra, foreign(ExtraLetter, v.letters.topic, r))
		case unmarked:
			v.found.UnmarkedLetters++
			return nil
		case aside:
			return nil
		}
		v.found.DeadLetters++
		key.letter = true
		sum, err := side.of(key)
		a, b := print.of(nil, lastHeader(r, "reason"))
		sum.records++
		sum.a -= a
		sum.b -= b
		return err
	})
	if err != nil {
		return err
	}
	return side.end()
}

// How a record stands to the comparison.
const (
	compared = iota
	aside    // of another message
	unmarked // of no message, from outside of the comparison's time
	intruder // of no message, among ours
)

// standing says how a record stands to the comparison, and, where it is compared, with which message.
func (v *verifier) standing(s *stretch, names *triggerNames, r *kgo.Record) (tallyKey, int) {
	partition, offset, ours := names.of(r)
	switch {
	case names.last == nil && v.isIntruder(s, r):
		return tallyKey{}, intruder
	case names.last == nil:
		return tallyKey{}, unmarked
	case !ours:
		return tallyKey{}, aside
	}
	s.saw(r, partition, offset)
	if !v.inScope(partition, offset) {
		return tallyKey{}, aside
	}
	s.parts[r.Partition].begun = true
	return tallyKey{partition: partition, offset: offset}, compared
}

// inScope reports whether a message is one of those compared, or in a comparison of everything
// one of a partition that the ledger does not know.
func (v *verifier) inScope(partition int32, offset int64) bool {
	span, known := v.spans[partition]
	if !known {
		return v.whole
	}
	return span.from <= offset && offset < span.to
}

// isIntruder reports whether a record that names no message was written among those of this
// comparison. The topic may hold records of whatever wrote it before, a moment ago after a move: what
// lies before our first record of a partition is not ours to judge, unless the time proves more.
func (v *verifier) isIntruder(s *stretch, r *kgo.Record) bool {
	if v.since == nil || r.Timestamp.Before(v.since.Add(-clockMargin)) || v.until != nil && r.Timestamp.After(v.until.Add(clockMargin)) {
		return false
	}
	return s.parts[r.Partition].begun || r.Timestamp.After(v.since.Add(clockMargin))
}

func foreign(kind DifferenceKind, topic string, r *kgo.Record) Difference {
	client := string(r.Key)
	return Difference{
		Kind: kind, Client: &client, Record: triggerID(topic, r.Partition, r.Offset),
		Text: "record " + triggerID(topic, r.Partition, r.Offset) + " has no header trigger that names a campaign message: tiffin did not write it",
	}
}

func send(ctx context.Context, to chan<- Difference, d Difference) error {
	select {
	case to <- d:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// triggerNames reads the header trigger; neighbours mostly have the same.
type triggerNames struct {
	prefix    []byte // TOPIC/ of the input
	last      []byte // the header that was read last; nil for none, or no name of a message
	partition int32
	offset    int64
	ours      bool
}

// of returns the message that a record names; ours is false when it is of another topic.
func (n *triggerNames) of(r *kgo.Record) (partition int32, offset int64, ours bool) {
	header := lastHeader(r, "trigger")
	if header != nil && bytes.Equal(header, n.last) {
		return n.partition, n.offset, n.ours
	}
	n.last, n.ours = nil, false
	_, p, o, err := ParseTrigger(string(header))
	if err != nil {
		return 0, 0, false
	}
	n.last, n.partition, n.offset = header, p, o
	n.ours = bytes.HasPrefix(header, n.prefix) && string(header) == triggerID(string(n.prefix[:len(n.prefix)-1]), p, o)
	return p, o, n.ours
}

// lastHeader is the value of the last header of a name: dead letters keep what came before ours.
func lastHeader(r *kgo.Record, name string) []byte {
	for _, h := range slices.Backward(r.Headers) {
		if h.Key == name {
			return h.Value
		}
	}
	return nil
}

func (k tallyKey) trigger(topic string) string { return triggerID(topic, k.partition, k.offset) }

func counted(n int64, what string) string {
	if n != 1 {
		what += "s"
	}
	return strconv.FormatInt(n, 10) + " " + what
}
