package stream

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"
)

// memory is a store that keeps to the rules of the real one (an epoch that is over writes
// nothing; a batch is there as a whole or not at all), for tests of what surrounds it. That
// the real one keeps to them is shown on a real Postgres.
type memory struct {
	mu       sync.Mutex
	progress map[int32]entry
	triggers map[int32][]record
	table    []row
	batches  int // that were begun
	// process is who uses it; owner who has claimed a partition and not given it up.
	process string
	owner   map[int32]string
	// before is called at every effect with its name; its error is the effect's, which then
	// did not happen. after is the same for an effect that did happen.
	before, after func(effect string) error
	// levelled, if any, is told what is said to be equal in both sinks.
	levelled func(partition int32, next int64)
	// stored, if any, is told of every message that a batch brings.
	stored func(*trigger)
}

func newMemory() *memory {
	return &memory{progress: map[int32]entry{}, triggers: map[int32][]record{}, owner: map[int32]string{}}
}

func (m *memory) open(context.Context, *Config) (store, error) { return m, nil }

func (m *memory) effect(name string, do func() error) error {
	if m.before != nil {
		if err := m.before(name); err != nil {
			return err
		}
	}
	m.mu.Lock()
	err := do()
	m.mu.Unlock()
	if err == nil && m.after != nil {
		err = m.after(name)
	}
	return err
}

func (m *memory) claim(_ context.Context, partition int32, topicID [16]byte) (e entry, known bool, err error) {
	return m.claimAs(m.process, partition, topicID)
}

func (m *memory) claimAs(process string, partition int32, topicID [16]byte) (e entry, known bool, err error) {
	err = m.effect("claim", func() error {
		if e, known = m.progress[partition]; known {
			e.epoch++
			if e.topicID == ([16]byte{}) {
				e.topicID = topicID
			}
			m.progress[partition] = e
			m.owner[partition] = process
		}
		return nil
	})
	return e, known, err
}

func (m *memory) begin(_ context.Context, starts map[int32]int64, topicID [16]byte) error {
	return m.effect("begin", func() error {
		for partition, next := range starts {
			if _, known := m.progress[partition]; !known {
				m.progress[partition] = entry{next: next, level: next, topicID: topicID}
			}
		}
		return nil
	})
}

func (m *memory) setAside(_ context.Context, partition int32, epoch, first, next int64, topicID [16]byte) (n int64, err error) {
	err = m.effect("setAside", func() error {
		e := m.progress[partition]
		if e.epoch != epoch {
			return &FencedError{Partition: partition}
		}
		m.progress[partition] = entry{epoch: epoch, next: next, level: next, topicID: topicID}
		n = int64(m.forget(partition, first))
		return nil
	})
	return n, err
}

// forget drops the manifest of a partition from an offset on; mu is held.
func (m *memory) forget(partition int32, first int64) (n int) {
	had := len(m.triggers[partition])
	m.triggers[partition] = slices.DeleteFunc(m.triggers[partition], func(r record) bool { return r.offset >= first })
	return had - len(m.triggers[partition])
}

func (m *memory) otherGroups(context.Context) ([]string, error) { return nil, nil }

func (m *memory) moveTo(_ context.Context, partition int32, epoch, next int64) error {
	return m.effect("moveTo", func() error {
		e := m.progress[partition]
		if e.epoch != epoch {
			return &FencedError{Partition: partition}
		}
		e.next, e.level = next, next
		m.progress[partition] = e
		return nil
	})
}

func (m *memory) giveUp(_ context.Context, c *claim, level int64) error {
	return m.effect("giveUp", func() error {
		e := m.progress[c.partition]
		if e.epoch == c.epoch {
			delete(m.owner, c.partition)
		}
		if e.epoch == c.epoch && e.next == level {
			if m.levelled != nil {
				m.levelled(c.partition, level)
			}
			e.level = level
			m.progress[c.partition] = e
		}
		return nil
	})
}

func (m *memory) endSessions(context.Context, string) (int, error) {
	return 0, m.effect("endSessions", func() error { return nil })
}

func (m *memory) owners(_ context.Context, partitions []int32) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var names []string
	for _, p := range partitions {
		if name := m.owner[p]; name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names, nil
}

func (m *memory) positions(context.Context) (map[int32]int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := map[int32]int64{}
	for p, e := range m.progress {
		at[p] = e.next
	}
	return at, nil
}

// next is where the ledger stands.
func (m *memory) next(*testing.T) map[int32]int64 {
	at, _ := m.positions(context.Background())
	return at
}

func (m *memory) manifest(_ context.Context, partition int32, from, to int64) ([]record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(m.triggers[partition]), func(r record) bool { return r.offset < from || r.offset >= to }), nil
}

func (m *memory) rows(_ context.Context, run idRange, each func(row) error) error {
	m.mu.Lock()
	found := slices.Clone(m.table)
	m.mu.Unlock()
	for _, r := range found {
		if r.id < run.first || r.id > run.last {
			continue
		}
		if err := each(r); err != nil {
			return err
		}
	}
	return nil
}

func (m *memory) connect(context.Context) (deliverer, error) { return m, nil }

// deliver of a lane is an effect of its own.
func (m *memory) deliver(ctx context.Context, b *batch, g gates) error {
	if b.rows != nil {
		return m.effect("deliver large", func() error { return m.commit(b) })
	}
	if err := m.insertRows(ctx, b, g); err != nil {
		return err
	}
	return m.finish(ctx, b)
}

// insertRows ends when the batch may be committed; nothing is there before.
func (m *memory) insertRows(ctx context.Context, b *batch, g gates) error {
	close(b.numbered)
	close(b.taken)
	if err := await(ctx, g.ledger); err != nil {
		return err
	}
	return await(ctx, g.commit)
}

func (m *memory) finish(ctx context.Context, b *batch) error {
	// Every second batch lets everything overtake that does not wait for the store; the others
	// overtake what does not wait for the brokers.
	m.mu.Lock()
	m.batches++
	slow := m.batches%2 == 1
	m.mu.Unlock()
	if slow {
		if err := wait(ctx, time.Second); err != nil { // of a fake clock
			return err
		}
	}
	return m.effect("deliver", func() error { return m.commit(b) })
}

// commit is called with mu held.
func (m *memory) commit(b *batch) error {
	for _, a := range b.advances {
		if e := m.progress[a.claim.partition]; e.epoch != a.claim.epoch || e.next != a.expected {
			return &FencedError{Partition: a.claim.partition}
		}
	}
	for _, a := range b.advances {
		e := m.progress[a.claim.partition]
		e.next = a.next
		m.progress[a.claim.partition] = e
	}
	for _, t := range b.triggers {
		m.insert(t)
	}
	return nil
}

func (m *memory) insert(t *trigger) {
	if m.stored != nil {
		m.stored(t)
	}
	c := &t.campaign
	r := row{shared: [sharedColumns][]byte{
		[]byte(c.RestaurantID), []byte(c.ID), []byte(c.Content), []byte(c.Owner), []byte(c.OwnerContact),
		int8Value(c.Start), int8Value(c.End), int8Value(c.Created), int8Value(t.now),
	}}
	if t.recipients != nil {
		for client := range t.recipients.Range(0, t.deliveries()) {
			r.id = int64(len(m.table)) + 1
			r.client = bytes.Clone(client)
			m.table = append(m.table, r)
			t.ids.add(r.id, r.id)
		}
	}
	rec := record{offset: t.offset, outcome: t.outcome, ids: t.ids, trace: t.context, restaurant: &c.RestaurantID, campaign: &c.ID, now: &t.now}
	if t.fault != nil {
		rec.fault = *t.fault
	}
	m.triggers[t.partition] = append(m.triggers[t.partition], rec)
}

func (m *memory) ping(context.Context) error   { return nil }
func (m *memory) stands(context.Context) error { return nil }
func (m *memory) close(context.Context)        {}

// whole is what commit sees to.
func (m *memory) whole(*testing.T) {}

// lines are the rows as records: trigger, key, value.
func (m *memory) lines(*testing.T) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var lines []string
	for _, partition := range slices.Sorted(maps.Keys(m.triggers)) {
		for _, rec := range m.triggers[partition] {
			for _, run := range rec.ids {
				for id := run.first; id <= run.last; id++ {
					r := &m.table[id-1]
					c, now := r.campaign()
					env := newEnvelope(&c, now)
					lines = append(lines, fmt.Sprintf("%s %s %s", triggerID("in", partition, rec.offset), r.client, env.appendValue(nil, r.client)))
				}
			}
		}
	}
	slices.Sort(lines)
	return lines
}
