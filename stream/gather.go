package stream

import "time"

const (
	// gatherBytes bounds the messages of a batch, in bytes: what they say stays in memory until it is
	// in both sinks. 10,000 campaigns as most are fit into it.
	gatherBytes = 8 << 20
	// gatherFor is for how long a message that was planned waits for others although a writer is
	// free, where messages are polled more quickly than they are planned.
	gatherFor = 100 * time.Millisecond
)

// gathering is what was planned and is not on its way yet: a batch to which the messages of several polls
// may belong. It is of the goroutine that plans.
type gathering struct {
	batch *batch
	// bytes are those of the batch's messages, since is when the first one joined.
	bytes int
	since time.Time
	// last are the messages that were planned last, by partition, whether they deliver anything or not.
	last map[int32]message
}

func newGathering() *gathering { return &gathering{batch: newBatch(), last: map[int32]message{}} }

func (g *gathering) empty() bool { return len(g.batch.triggers) == 0 }

// overdue says that a writer is free, and what was planned has waited for others for long enough.
func (s *session) overdue(g *gathering) bool {
	return len(s.writers) > 0 && !g.empty() && time.Since(g.since) >= gatherFor
}

// gather puts a trigger into the batch, and sends that when it is full.
func (s *session) gather(g *gathering, t *trigger, m message) error {
	alone := s.care.taken(s.cfg.Now()) && t.deliveries() > 0
	if n := g.batch.deliveries; n > 0 && (alone || n+t.deliveries() > s.batchTarget()) {
		if err := s.sendBatch(g); err != nil {
			t.trace.failed(err)
			t.release()
			return err
		}
	}
	if alone {
		t.record, g.batch.alone = m.Record, true
	}
	if g.empty() {
		g.bytes, g.since = 0, time.Now()
	}
	g.batch.add(t)
	g.bytes += plainSize(m.Record)
	if alone || g.batch.deliveries >= s.batchTarget() || len(g.batch.triggers) >= batchTriggers || g.bytes >= gatherBytes {
		return s.sendBatch(g)
	}
	return nil
}

func (s *session) sendBatch(g *gathering) (err error) {
	g.batch, err = s.send(g.batch)
	return err
}

// sendGathered sends all that was planned.
func (s *session) sendGathered(g *gathering) error {
	if err := s.sendBatch(g); err != nil {
		return err
	}
	g.saw(s.claims)
	return nil
}

// saw notes how far the partitions are planned, once all of it is on its way.
func (g *gathering) saw(c *claims) {
	for _, m := range g.last {
		c.saw(m)
	}
	clear(g.last)
}
