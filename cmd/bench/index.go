package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"

	"github.com/dustin/go-humanize"

	"example.com/tiffin/cache"
	"example.com/tiffin/internal/devstack"
)

// indexGoal is in bytes of heap a subscription, all in.
const indexGoal = 16.0

// index measures what the index takes, with every subscription in memory, and that its answers
// stay exact when a tenth of the postings is all that fits.
func index(ctx context.Context, o options) error {
	plan := devstack.Subscriptions{Seed: 7, Rows: 10_000_000, Restaurants: 100_000, Clients: 1_000_000, Zipf: 0.7}
	lookups := 20_000
	if o.quick {
		plan.Rows, plan.Restaurants, plan.Clients, lookups = 500_000, 5_000, 50_000, 5_000
	}
	say := stopwatch(o)
	table, err := plan.Layout()
	if err != nil {
		return err
	}
	rows := &sourceRows{table: table, restaurants: plan.Restaurants, numbers: map[string]int{}, more: map[int][]string{}}
	for n := range plan.Restaurants {
		rows.numbers[table.Restaurant(n)] = n
	}
	before := heapLive()
	x, err := loadIndex(rows, 1<<30)
	if err != nil {
		return err
	}
	perRow := float64(heapLive()-before) / float64(plan.Rows)
	full := x.Stats()
	x.Close()
	say(fmt.Sprintf("loaded: %.2f bytes a subscription", perRow))
	if x, err = loadIndex(rows, full.PostingBytes/10); err != nil {
		return err
	}
	defer x.Close()
	if err := rows.check(ctx, x, lookups); err != nil {
		return err
	}
	say(fmt.Sprintf("%d answers from a tenth of the memory are exact", lookups))
	return reportIndex(o, plan, full, perRow, lookups, rows.reads)
}

func reportIndex(o options, plan devstack.Subscriptions, full cache.Stats, perRow float64, lookups, reads int) error {
	verdict := "reached"
	switch {
	case o.quick:
		verdict = "not judged with --quick"
	case perRow > indexGoal:
		verdict = "MISSED"
	}
	count := func(n int) string { return humanize.Comma(int64(n)) }
	_, err := fmt.Fprintf(o.out, `index: %s subscriptions of %s clients and %s restaurants, ids kept (replica identity DEFAULT)
  heap         %.2f bytes a subscription after a full collection (the index counts %.2f, postings %.2f of it)
  exact        %s of %s answers between changes, with a budget of a tenth of the postings; %s were read through
  goal         %.0f bytes a subscription: %s
`, count(plan.Rows), count(plan.Clients), count(plan.Restaurants),
		perRow, float64(full.Bytes)/float64(plan.Rows), float64(full.PostingBytes)/float64(plan.Rows),
		count(lookups), count(lookups), count(reads), indexGoal, verdict)
	if err == nil && verdict == "MISSED" {
		return errMissed
	}
	return err
}

// heapLive is the process's heap after two full collections: what the first finalizes, the
// second frees.
func heapLive() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// sourceRows are the rows of a table that is computed, and those added since; they are what
// the index reads through. One goroutine uses it, once it is loaded.
type sourceRows struct {
	table       *devstack.SourceTable
	restaurants int
	numbers     map[string]int
	more        map[int][]string
	xid         uint64
	reads       int
}

// firstXid is the first that the load did not see.
const firstXid = 1000

// ReadRestaurant implements cache.Source.
func (s *sourceRows) ReadRestaurant(_ context.Context, restaurant string, add func([]byte) error) (cache.Snapshot, error) {
	s.reads++
	for _, c := range s.clients(s.numbers[restaurant]) {
		if err := add([]byte(c)); err != nil {
			return cache.Snapshot{}, err
		}
	}
	return cache.Snapshot{Xmin: s.xid + 1, Xmax: s.xid + 1}, nil
}

func (s *sourceRows) clients(n int) []string {
	list := slices.Clone(s.more[n])
	for i := range s.table.Fanout(n) {
		list = append(list, s.table.Client(s.table.Subscriber(n, i)))
	}
	return list
}

// loadIndex fills an index from two goroutines, as a load does.
func loadIndex(s *sourceRows, budget int64) (*cache.Index, error) {
	x, err := cache.New(cache.Config{Budget: budget}, s)
	if err != nil {
		return nil, err
	}
	s.xid = firstXid
	first := make([]int64, s.restaurants+1) // ids of a restaurant's rows begin here
	for n := range s.restaurants {
		first[n+1] = first[n] + int64(s.table.Fanout(n))
	}
	l := x.BeginLoad(true)
	var done sync.WaitGroup
	faults := make([]error, 2)
	for part := range faults {
		done.Go(func() {
			batch := l.Batch()
			for n := part; n < s.restaurants && faults[part] == nil; n += len(faults) {
				name := []byte(s.table.Restaurant(n))
				for i := range s.table.Fanout(n) {
					client := []byte(s.table.Client(s.table.Subscriber(n, i)))
					faults[part] = errors.Join(faults[part], batch.Add(first[n]+int64(i)+1, name, client))
				}
			}
			faults[part] = errors.Join(faults[part], batch.Flush())
		})
	}
	done.Wait()
	for _, err := range faults {
		if err != nil {
			return nil, err
		}
	}
	return x, l.Finish(cache.Snapshot{Xmin: firstXid, Xmax: firstXid})
}

// check compares answers with the table between changes of it.
func (s *sourceRows) check(ctx context.Context, x *cache.Index, lookups int) error {
	rng := rand.New(rand.NewPCG(1, 2))
	// The first hundred restaurants have tens of thousands of clients each: a few of them do.
	pick := func() int { return min(s.restaurants-1, 100+int(rng.ExpFloat64()*float64(s.restaurants)/50)) }
	txn := x.NewTxn()
	for i := range lookups {
		n := pick()
		if i%500 == 0 {
			n = i / 500 % 100
		}
		if i%4 == 0 {
			changed := pick()
			client := s.table.Client(rng.IntN(1 << 20)) // perhaps a second row of the pair
			s.more[changed] = append(s.more[changed], client)
			s.xid++
			if err := txn.Insert(1<<40+int64(i), []byte(s.table.Restaurant(changed)), []byte(client)); err != nil {
				return err
			}
			if err := x.Apply(txn, cache.Commit{Xid: s.xid, End: cache.LSN(s.xid)}); err != nil {
				return err
			}
			x.Settle(cache.Snapshot{Xmin: s.xid + 1, Xmax: s.xid + 1})
		}
		if err := s.compare(ctx, x, n); err != nil {
			return err
		}
	}
	return nil
}

func (s *sourceRows) compare(ctx context.Context, x *cache.Index, n int) error {
	r, err := x.Lookup(ctx, s.table.Restaurant(n))
	if err != nil {
		return err
	}
	defer r.Release()
	want := map[string]bool{}
	for _, c := range s.clients(n) {
		want[c] = true
	}
	same := r.Len() == len(want)
	for c := range r.Range(0, r.Len()) {
		same = same && want[string(c)]
	}
	if !same {
		return fmt.Errorf("%w: restaurant %d has %d clients, or others than the %d expected", errWrong, n, r.Len(), len(want))
	}
	return nil
}
