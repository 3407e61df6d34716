package stream

// gathering is what was planned and is not on its way yet: a batch to which the messages of several polls
// may belong. It is of the goroutine that plans.
type gathering struct {
	batch *batch
	// last are the messages that were planned last, by partition, whether they deliver anything or not.
	last map[int32]message
}

func newGathering() *gathering { return &gathering{batch: newBatch(), last: map[int32]message{}} }

// gather puts a trigger into the batch, and sends that when it is full.
func (s *session) gather(g *gathering, t *trigger, m message) error {
	if !s.fits(g.batch, t) {
		if err := s.sendBatch(g); err != nil {
			t.release()
			return err
		}
	}
	alone := s.care.taken(s.cfg.Now()) && t.deliveries() > 0
	if alone {
		t.record = m.Record
	}
	g.batch.add(t)
	if alone || g.batch.deliveries >= s.batchTarget() || len(g.batch.triggers) >= batchTriggers {
		return s.sendBatch(g)
	}
	return nil
}

// fits reports whether a trigger may join a batch.
func (s *session) fits(b *batch, t *trigger) bool {
	return b.deliveries == 0 || b.deliveries+t.deliveries() <= s.batchTarget()
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
