package demo

import (
	"context"
	"errors"
	"io"
	"regexp"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	dto "github.com/prometheus/client_model/go"
)

// A row that somebody took away is not overlooked: the demo ends with an error.
func TestDemoEndsBadlyWhenSinksDiffer(t *testing.T) {
	asked, ctrlC := context.WithTimeout(t.Context(), time.Minute)
	defer ctrlC()
	printed, out := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := Run(asked, options(out))
		_ = out.Close()
		done <- err
	}()
	said := &lines{from: printed}
	dsn := regexp.MustCompile(`postgres://[^']+`).FindString(said.until(t, "Ctrl-C ends the demo"))
	go func() { _, _ = io.Copy(&said.rest, printed); close(said.over) }()
	removeOneRow(t, dsn)
	ctrlC()
	if err := <-done; !errors.Is(err, ErrDisagree) {
		t.Errorf("ended with %v, want ErrDisagree", err)
	}
	<-said.over
}

func removeOneRow(t *testing.T, dsn string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for range 500 {
		removed, err := conn.Exec(t.Context(), "DELETE FROM subscribers_feedback WHERE id = (SELECT min(id) FROM subscribers_feedback)")
		if err != nil {
			t.Fatal(err)
		}
		if removed.RowsAffected() == 1 {
			return
		}
		<-ticker.C
	}
	t.Fatal("no row came to be removed")
}

// Each way to break a promise is counted, and other clients of a campaign are no evidence.
func TestPromisesAreCounted(t *testing.T) {
	t.Parallel()
	p := newPromises()
	p.make("kept", promise{client: "new", served: true})
	p.make("missed", promise{client: "new", served: true})
	p.make("left", promise{client: "old"})
	p.make("stale", promise{client: "old"})
	p.make("unpublished", promise{client: "old"})
	p.withdraw("unpublished")
	p.delivered("kept", "other")
	p.delivered("kept", "new")
	p.delivered("missed", "other")
	p.delivered("left", "other")
	p.delivered("stale", "old")
	if about, ok := p.leaver(); !ok || about != (promise{client: "new"}) {
		t.Errorf("%+v, %t may leave, want the one who was served", about, ok)
	}
	if about, ok := p.leaver(); ok {
		t.Errorf("%+v may leave before it was served", about)
	}
	if got, want := p.tally(), (tally{subscribed: 2, served: 1, missed: 1, removed: 2, stale: 1}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestQuantileInterpolates(t *testing.T) {
	t.Parallel()
	bucket := func(upper float64, count uint64) *dto.Bucket {
		return &dto.Bucket{UpperBound: &upper, CumulativeCount: &count}
	}
	total := uint64(100)
	h := &dto.Histogram{SampleCount: &total, Bucket: []*dto.Bucket{bucket(0.001, 0), bucket(0.002, 50), bucket(0.004, 98)}}
	for q, want := range map[float64]time.Duration{0.25: 1500 * time.Microsecond, 0.74: 3 * time.Millisecond, 0.99: 4 * time.Millisecond} {
		if got := quantile(h, q); got.Round(time.Microsecond) != want {
			t.Errorf("q%v: %v, want %v", q, got, want)
		}
	}
	if got := quantile(&dto.Histogram{}, 0.5); got != 0 {
		t.Errorf("of nothing: %v", got)
	}
}
