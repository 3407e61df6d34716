package cache

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
)

func FuzzDictionaryReturnsEveryText(f *testing.F) {
	for _, s := range []string{
		"", "a", "sixteen bytes!!!", "seventeen bytes!!", "123e4567-e89b-12d3-a456-426614174000",
		"123E4567-e89b-12d3-a456-426614174000", "123e4567-e89b-12d3-a456-42661417400g",
		"123e4567+e89b-12d3-a456-426614174000", "{123e4567-e89b-12d3-a456-426614174000}", "привет, мир и все его рестораны",
		strings.Repeat("x", 5000), "\x12\x3e\x45\x67\xe8\x9b\x12\xd3\xa4\x56\x42\x66\x14\x17\x40\x00", "\x00", "\x00\x00",
	} {
		f.Add(s)
	}
	d := newDictionary(newPins())
	f.Fuzz(func(t *testing.T, s string) {
		n, err := d.intern([]byte(s), 1)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(d.appendText(nil, n)); got != s {
			t.Fatalf("interned %q, got back %q", s, got)
		}
		if again, ok := d.find([]byte(s)); !ok || again != n {
			t.Fatalf("%q is %d, found as %d, %t", s, n, again, ok)
		}
	})
}

// TestDictionaryAgainstMap interns, refers and reclaims at random.
func TestDictionaryAgainstMap(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(7, 0))
	p := newPins()
	d := newDictionary(p)
	numbers, rows := map[string]uint32{}, map[string]int{}
	name := func() string {
		n := rng.IntN(3000)
		switch n % 3 {
		case 0:
			return fmt.Sprintf("%08x-0000-4000-8000-%012x", n, n)
		case 1:
			return fmt.Sprint(n)
		}
		return fmt.Sprintf("a text of more than sixteen bytes, %d", n)
	}
	var many texts
	for range 60_000 {
		s := name()
		switch rng.IntN(100) {
		case 1: // many at once, some new, some twice
			many.reset()
			var names []string
			for range rng.IntN(200) {
				names = append(names, name())
				many.add([]byte(names[len(names)-1]))
			}
			if err := d.internAll(&many, 1); err != nil {
				t.Fatal(err)
			}
			for i, s := range names {
				if old, ok := numbers[s]; ok && old != many.numbers[i] {
					t.Fatalf("%q was %d and is %d", s, old, many.numbers[i])
				}
				numbers[s] = many.numbers[i]
				rows[s]++
			}
			continue
		case 0:
			chosen := p.advance()
			d.release(d.choose(p.oldest()), chosen)
			for s := range numbers {
				if rows[s] == 0 {
					delete(numbers, s)
				}
			}
		default:
			by := 1
			if rows[s] > 0 && rng.IntN(2) == 0 {
				by = -1
				if !d.refer(numbers[s], -1) {
					t.Fatalf("%q cannot lose one of %d rows", s, rows[s])
				}
			} else {
				n, err := d.intern([]byte(s), 1)
				if err != nil {
					t.Fatal(err)
				}
				if old, ok := numbers[s]; ok && old != n {
					t.Fatalf("%q was %d and is %d", s, old, n)
				}
				numbers[s] = n
			}
			rows[s] += by
		}
	}
	seen := map[uint32]string{}
	for s, n := range numbers {
		if got, ok := d.find([]byte(s)); !ok || got != n || string(d.appendText(nil, n)) != s {
			t.Errorf("%q should be %d: found %d, %t", s, n, got, ok)
		}
		if other, ok := seen[n]; ok {
			t.Errorf("%q and %q are both %d", s, other, n)
		}
		seen[n] = s
		if rows[s] == 0 && d.refer(n, -1) {
			t.Errorf("%q lost a row that it does not have", s)
		}
	}
	if d.len() != int64(len(numbers)) {
		t.Errorf("%d texts, want %d", d.len(), len(numbers))
	}
}

func TestDictionaryGivesOneNumberToParallelCallers(t *testing.T) {
	t.Parallel()
	d := newDictionary(newPins())
	var got [4][2000]uint32
	var done sync.WaitGroup
	for g := range got {
		done.Go(func() {
			if g%2 == 0 {
				for i := range got[g] {
					got[g][i], _ = d.intern(fmt.Append(nil, "client ", i), 1)
				}
				return
			}
			var many texts
			for i := range got[g] {
				many.add(fmt.Append(nil, "client ", i))
			}
			if err := d.internAll(&many, 1); err != nil {
				t.Error(err)
			}
			copy(got[g][:], many.numbers)
		})
	}
	done.Wait()
	for g := range got {
		if got[g] != got[0] {
			t.Fatal("two goroutines got different numbers for a text")
		}
	}
	if d.len() != 2000 {
		t.Errorf("%d texts, want 2000", d.len())
	}
}

// Texts of any length wait to be looked up, but not many bytes of them.
func TestLongTextsDoNotPileUp(t *testing.T) {
	t.Parallel()
	x := newIndex(t, 1<<20, &table{})
	load(t, x, false)
	txn := x.NewTxn()
	for i := range 40 {
		long := append(bytes.Repeat([]byte("x"), longMax/4), byte(i))
		if err := txn.Insert(0, []byte("r"), long); err != nil {
			t.Fatal(err)
		}
		if len(txn.clients.long) > 2*longMax {
			t.Fatalf("%d bytes wait", len(txn.clients.long))
		}
	}
	if err := txn.Insert(0, []byte("r"), bytes.Repeat([]byte("y"), 3*longMax)); err != nil {
		t.Fatal(err)
	}
	if err := x.Apply(txn, Commit{Xid: 20, End: 100}); err != nil {
		t.Fatal(err)
	}
	if kept := cap(txn.clients.long); kept > 2*longMax {
		t.Errorf("room for %d bytes is kept", kept)
	}
	if s := x.Stats(); s.Subscriptions != 41 || s.Clients != 41 {
		t.Errorf("%+v: want 41 subscriptions of 41 clients", s)
	}
}
