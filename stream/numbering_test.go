package stream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// Of those who wait for a turn a batch and a large campaign alternate, the campaign with the fewest rows left
// goes first, and none waits for ever.
func TestTurnsOfNumbering(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var n numbering
		var got []string
		wait := func(who string, left int) {
			go func() {
				if ours, err := n.take(t.Context(), left); !ours || err != nil {
					t.Error(ours, err)
				}
				got = append(got, fmt.Sprint(who, left))
			}()
			synctest.Wait()
		}
		next := func() { n.give(); synctest.Wait() }
		wait("held", 0)
		wait("large", 500)
		wait("larger", 900)
		wait("small", 100)
		wait("batch", 0)
		for range 4 {
			next()
		}
		if want := []string{"held0", "small100", "batch0", "large500", "larger900"}; !slices.Equal(got, want) {
			t.Errorf("turns %v, want %v", got, want)
		}
		// A small campaign is always there: the large one has its turn all the same.
		got = nil
		wait("large", 1000)
		for range 3 * fairTurns {
			wait("small", 100)
			next()
		}
		if i := slices.Index(got, "large1000"); i < 0 || i > fairTurns {
			t.Errorf("the large campaign had its turn at %d: %v", i, got)
		}
		next()
	})
}

// Who has the turn keeps it while nobody is to go before, and with others waiting not for ever.
func TestTurnsThatGoOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var n numbering
		take := func(ctx context.Context, left int) error {
			_, err := n.take(ctx, left)
			return err
		}
		if err := take(t.Context(), 500); err != nil {
			t.Fatal(err)
		}
		for range 2 * fairTurns {
			if !n.goOn(500) {
				t.Fatal("nobody waits, and the turn ends")
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		waits := make(chan error)
		go func() { waits <- take(ctx, 900) }()
		synctest.Wait()
		turns := 0
		for n.goOn(500) {
			if turns++; turns > fairTurns {
				t.Fatal("the larger campaign waits for ever")
			}
		}
		cancel()
		if err := <-waits; !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
		// Who gave up has no turn, and holds nothing up.
		n.give()
		if err := take(t.Context(), 500); err != nil {
			t.Fatal(err)
		}
		go func() { waits <- take(t.Context(), 100) }()
		synctest.Wait()
		if n.goOn(500) {
			t.Error("the smaller campaign waits, and the turn goes on")
		}
		n.give()
		if err := <-waits; err != nil {
			t.Error(err)
		}
	})
}

// A turn that does not come is not waited for: who has it may be waiting for the one who waits.
func TestTurnThatDoesNotCome(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var n numbering
		begun := time.Now()
		for _, want := range []bool{true, false, false} {
			if ours, err := n.take(t.Context(), 0); ours != want || err != nil {
				t.Errorf("a turn: %v, %v, want %v", ours, err, want)
			}
		}
		if waited := time.Since(begun); waited != 2*turnPatience {
			t.Errorf("waited for %v", waited)
		}
		n.give()
		if ours, err := n.take(t.Context(), 0); !ours || err != nil {
			t.Errorf("once it was given back: %v, %v", ours, err)
		}
	})
}
