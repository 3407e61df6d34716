package livepage

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"
)

// The page lives by the second. The plot has a point for every pointSpan of window; without a
// viewer the metrics are read for those only.
const (
	tick      = time.Second
	rateSpan  = 5 * time.Second
	pointSpan = 10 * time.Second
	window    = 15 * time.Minute
)

// Each viewer is a goroutine, a connection and about 2 KiB a second. A browser's tab that is not
// looked at gives its place back.
const (
	maxViewers  = 32
	viewerQueue = 4 // events; who is further behind is dropped
)

// errFull says that maxViewers look already.
var errFull = errors.New("as many viewers as this page serves are there already")

// board computes the figures, once for all viewers. Safe for concurrent use; advance is called by
// one goroutine.
type board struct {
	cfg        Config
	comparison *comparison   // nil: nobody to ask
	wake       chan struct{} // somebody has begun to look

	// Of the goroutine that advances.
	samples []sample // not older than rateSpan, and one before
	marks   []mark   // every pointSpan, for window
	pointAt time.Time

	mu      sync.Mutex
	points  []Point // oldest first
	viewers map[*viewer]bool
}

// viewer receives events until the channel is closed: it was too slow.
type viewer struct{ events chan []byte }

func newBoard(cfg Config) *board {
	b := &board{cfg: cfg, wake: make(chan struct{}, 1), marks: []mark{{}}, viewers: map[*viewer]bool{}}
	if cfg.Sinks != nil {
		b.comparison = &comparison{sinks: cfg.Sinks, watched: b.watched}
	}
	return b
}

// Run reads the figures until ctx is done.
func (p *Page) Run(ctx context.Context) {
	if p.board.comparison != nil {
		compared := make(chan struct{})
		go func() { defer close(compared); p.board.comparison.run(ctx) }()
		defer func() { <-compared }()
	}
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		p.board.advance(time.Now())
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-p.board.wake:
		}
	}
}

// advance reads the metrics, when there is need, and tells every viewer.
func (b *board) advance(now time.Time) {
	due := now.Sub(b.pointAt) >= pointSpan-tick/2
	if !due && (!b.watched() || now.Sub(b.samples[len(b.samples)-1].at) < tick/4) {
		return
	}
	families, err := b.cfg.Gatherer.Gather()
	if err != nil { // what could be gathered comes beside it
		b.cfg.Log.Debug("metrics in part only", "err", err)
	}
	at := newSample(now, families)
	b.keep(at)
	f := figuresOf(&at, &b.samples[0], &b.marks[0])
	if due {
		f.Point = b.mark(&at)
	}
	f.Agreement = b.comparison.now()
	f.Reasons, f.Progress = b.cfg.Readiness.Reasons(), b.cfg.Readiness.Progress()
	b.tell(&f)
}

// keep adds a sample and forgets those that no rate needs.
func (b *board) keep(s sample) {
	b.samples = append(b.samples, s)
	for len(b.samples) > 2 && s.at.Sub(b.samples[1].at) >= rateSpan {
		b.samples = b.samples[1:]
	}
}

// mark ends a point of the plot and begins the next one.
func (b *board) mark(at *sample) *Point {
	now := markOf(at)
	first := b.pointAt.IsZero()
	last := b.marks[len(b.marks)-1]
	b.pointAt = at.at
	b.marks = append(b.marks, now)
	if len(b.marks) > int(window/pointSpan) {
		b.marks = b.marks[1:]
	}
	if first {
		return nil // the beginning is no span
	}
	return &Point{At: at.at.UnixMilli(), Quantiles: quantilesOf(now.delivery.since(last.delivery))}
}

func (b *board) watched() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.viewers) > 0
}

// tell sends the figures to every viewer, and drops who has not taken the ones before.
func (b *board) tell(f *Figures) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if f.Point != nil {
		b.points = append(b.points, *f.Point)
		b.points = b.points[max(0, len(b.points)-int(window/pointSpan)):]
	}
	if len(b.viewers) == 0 {
		return
	}
	event := eventOf("figures", f)
	for v := range b.viewers {
		select {
		case v.events <- event:
		default:
			delete(b.viewers, v)
			close(v.events)
		}
	}
}

// join adds a viewer, whose first event is the plot's history.
func (b *board) join() (*viewer, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.viewers) >= maxViewers {
		return nil, errFull
	}
	v := &viewer{events: make(chan []byte, viewerQueue)}
	v.events <- eventOf("history", append([]Point{}, b.points...))
	b.viewers[v] = true
	select {
	case b.wake <- struct{}{}:
	default:
	}
	return v, nil
}

func (b *board) leave(v *viewer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.viewers, v)
}

// eventOf is a server-sent event. JSON has no line break, so it is one line of data.
func eventOf(name string, data any) []byte {
	text, _ := json.Marshal(data) // of numbers and strings: cannot fail
	event := append([]byte("event: "+name+"\ndata: "), text...)
	return append(event, "\n\n"...)
}
