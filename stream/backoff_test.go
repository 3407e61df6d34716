package stream

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"example.com/tiffin/cache"
)

// Between sessions that deliver nothing the pause doubles, from 200 ms to 5 s, and half of it may be
// added by chance; behind one that delivered something it begins anew. A request to stop ends it.
func TestPausesGrowUntilSomethingIsDelivered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const ms = time.Millisecond
		want := []time.Duration{
			200 * ms, 400 * ms, 800 * ms, 1600 * ms, 3200 * ms, 5000 * ms, 5000 * ms,
			200 * ms, 400 * ms, // the eighth session delivered something
		}
		w := newCrashWorld(t, crashKind{})
		defer w.close()
		w.subscribe(t, 0)
		cfg := w.config()
		e, err := New(cfg, w.index, nobody{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		var began []time.Time
		e.openStore = func(context.Context, *Config) (store, error) {
			began = append(began, time.Now())
			if len(began) == 8 {
				e.state.chunkOut()
			}
			return nil, errors.New("no feedback database")
		}
		time.AfterFunc(40*time.Second, stop)
		if err := e.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if ended := time.Now(); ended.Sub(began[0]) > 40*time.Second {
			t.Errorf("stopped after %s", ended.Sub(began[0]))
		}
		if len(began) <= len(want) {
			t.Fatalf("%d sessions in 40 s, want more than %d", len(began), len(want))
		}
		varied := false
		for i, pause := range want {
			got := began[i+1].Sub(began[i])
			if got < pause || got > pause+pause/2 {
				t.Errorf("pause %d is %s: want %s, and up to half of it more", i, got, pause)
			}
			varied = varied || got != pause
		}
		if !varied {
			t.Error("nothing is left to chance: processes that failed together try again together")
		}
	})
}

// A session that could not even be opened leaves nothing undone: the request to stop that comes
// while it is being closed is no fault.
func TestStopWhileNothingIsOpenIsNoFault(t *testing.T) {
	t.Parallel()
	e, err := New(Config{
		Kafka:       KafkaConfig{Brokers: []string{"127.0.0.1:1"}, Group: "g", Process: "one", Input: "in", Output: "out", DeadLetter: "dead"},
		FeedbackDSN: "host=memory", FeedbackTable: []string{"t"}, Log: slog.New(slog.DiscardHandler),
	}, fixedIndex{}, nobody{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	e.openStore = func(context.Context, *Config) (store, error) {
		stop()
		return nil, errors.New("connection refused")
	}
	if err := e.Run(ctx); err != nil {
		t.Error(err)
	}
}

type fixedIndex struct{}

func (fixedIndex) Lookup(context.Context, string) (*cache.Recipients, error) {
	return nil, errors.New("nobody asks")
}

func (fixedIndex) LookupReading(context.Context, string, int) (*cache.Recipients, error) {
	return nil, errors.New("nobody asks")
}
