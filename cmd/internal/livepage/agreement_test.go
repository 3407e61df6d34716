package livepage

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/tiffin/stream"
)

// twoSinks are wherever a test puts them.
type twoSinks struct {
	at    atomic.Pointer[[]stream.Standing]
	asked atomic.Int64
}

func (s *twoSinks) Compare(context.Context) ([]stream.Standing, error) {
	s.asked.Add(1)
	if at := s.at.Load(); at != nil {
		return *at, nil
	}
	return nil, errors.New("no sign of life")
}

func (s *twoSinks) put(at ...stream.Standing) { s.at.Store(&at) }

// What one sink lacks is told with the moment from which on it did. What is in flight and arrives
// while more follows is not held against them.
func TestAgreementTellsSinceWhenItIsSo(t *testing.T) {
	t.Parallel()
	begin := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	c := &comparison{}
	for second, look := range []struct {
		what  string
		at    []stream.Standing
		level bool
		since int // seconds
		owed  int64
		apart int
	}{
		{"both level", []stream.Standing{{Partition: 0, Ledger: 5, Group: 5}, {Partition: 1, Ledger: 9, Group: 9}}, true, 0, 0, 0},
		{"still", []stream.Standing{{Partition: 0, Ledger: 6, Group: 6}, {Partition: 1, Ledger: 9, Group: 9}}, true, 0, 0, 0},
		{"one apart", []stream.Standing{{Partition: 0, Ledger: 8, Group: 6, Owed: 20}, {Partition: 1, Ledger: 9, Group: 9}}, false, 2, 20, 1},
		{"it stays, the other comes", []stream.Standing{{Partition: 0, Ledger: 9, Group: 7, Owed: 20}, {Partition: 1, Ledger: 19, Group: 9, Owed: 1}}, false, 2, 21, 2},
		{"it arrives, but more follows", []stream.Standing{{Partition: 0, Ledger: 12, Group: 9, Owed: 3}, {Partition: 1, Ledger: 19, Group: 10, Owed: 1}}, false, 3, 4, 2},
		{"level again", []stream.Standing{{Partition: 0, Ledger: 12, Group: 12}, {Partition: 1, Ledger: 19, Group: 19}}, true, 5, 0, 0},
		{"the database lacks some", []stream.Standing{{Partition: 0, Ledger: 10, Group: 12}, {Partition: 1, Ledger: 19, Group: 19}}, false, 6, 0, 1},
	} {
		a := c.judge(begin.Add(time.Duration(second)*time.Second), look.at)
		since := int((a.Since - begin.UnixMilli()) / 1000)
		if a.Level != look.level || since != look.since || a.Owed != look.owed || len(a.Apart) != look.apart || a.Differ != look.apart {
			t.Errorf("%s: %+v, since %d s", look.what, a, since)
		}
	}
}

// Both are asked once a second while somebody looks, and otherwise as rarely as the plot needs it; an
// answer that fails leaves the one before.
func TestSinksAreAskedAsRarelyAsTheFigures(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &twoSinks{}
		s.put(stream.Standing{Ledger: 3, Group: 1, Owed: 2})
		cfg := config(newMeters())
		cfg.Sinks = s
		p := newPage(t, cfg)
		defer run(t, p)()
		time.Sleep(2 * time.Minute) //nolint:forbidigo // fake time
		synctest.Wait()
		if n := s.asked.Load(); n < 11 || n > 13 {
			t.Errorf("asked %d times in 2 minutes without a viewer", n)
		}
		v, err := p.board.join()
		if err != nil {
			t.Fatal(err)
		}
		defer p.board.leave(v)
		<-v.events // the history
		before := s.asked.Load()
		var f Figures
		for range 10 {
			decode(t, <-v.events, "figures", &f)
		}
		if n := s.asked.Load() - before; n < 8 || n > 10 {
			t.Errorf("asked %d times for 10 events", n)
		}
		if f.Agreement == nil || f.Agreement.Level || f.Agreement.Owed != 2 || f.Agreement.Error != "" {
			t.Fatalf("told %+v", f.Agreement)
		}
		since := f.Agreement.Since
		s.at.Store(nil)
		for range 3 {
			decode(t, <-v.events, "figures", &f)
		}
		if f.Agreement.Error != "no sign of life" || f.Agreement.Owed != 2 || f.Agreement.Since != since {
			t.Errorf("without an answer: %+v", f.Agreement)
		}
	})
}
