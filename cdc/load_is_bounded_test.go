package cdc

import (
	"sync"
	"testing"
	"time"

	"example.com/tiffin/cache"
)

// lingering is an index of which the first load takes until go on is closed.
type lingering struct {
	*cache.Index
	begun, goOn chan struct{}
	once        sync.Once
}

func (l *lingering) BeginLoad(keyed bool) *cache.Load {
	l.once.Do(func() {
		close(l.begun)
		<-l.goOn
	})
	return l.Index.BeginLoad(keyed)
}

// A load may take long, and nobody reads from the slot meanwhile: it holds back no more log than the budget.
func TestSlotIsBoundedWhileTheTableIsLoaded(t *testing.T) {
	t.Parallel()
	const budget = 24 << 20
	db := quiet(t, map[string]string{"autovacuum": "off"})
	contract(t, db, "DEFAULT")
	db.Exec(t, `CREATE TABLE busy (x text)`, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1', 'c')`)
	cfg := config(t, db)
	cfg.MaxRetainedWAL, cfg.StatusInterval = budget, 10*time.Millisecond
	g := build(t, db, cfg, 1<<20)
	index := &lingering{Index: g.idx, begun: make(chan struct{}), goOn: make(chan struct{})}
	g.r.idx = index
	g.run(t)
	released := sync.OnceFunc(func() { close(index.goOn) })
	t.Cleanup(released) // before the rig waits for its end
	<-index.begun
	for now := g.retained(t); now >= 0; {
		if now = g.busy(t, 1); now > budget+2*busyStep {
			t.Fatalf("held back %d bytes, budget %d", now, int64(budget))
		}
		eventually(t, "the guard looked", func() bool {
			return g.retained(t) < 0 || value(t, g.r.cfg.Metrics.retained) >= float64(now)
		})
	}
	released()
	g.agree(t)
	g.unrebuilt(t)
}
