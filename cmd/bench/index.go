package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"

	"github.com/dustin/go-humanize"

	"example.com/tiffin/cache"
	"example.com/tiffin/cmd/bench/internal/harness"
	"example.com/tiffin/internal/devstack"
)

// The figures of index that are judged; all in.
const (
	heapEach  = "heap a subscription"
	indexGoal = 16.0 // bytes
	exactly   = "answers compared, all exact"
)

// index measures what the index takes, with every subscription in memory, and that its answers
// stay exact when a tenth of the postings is all that fits.
func index() harness.Scenario {
	return harness.Scenario{
		Name:    "index",
		Summary: "bytes of heap a subscription, and exact answers from a tenth of the memory",
		Goals:   []harness.Goal{harness.AtMost("", heapEach, indexGoal).In(harness.Bytes)},
		Run:     runIndex,
	}
}

func runIndex(ctx context.Context, e *harness.Env) (*harness.Result, error) {
	plan := devstack.Subscriptions{Seed: 7, Rows: 10_000_000, Restaurants: 100_000, Clients: 1_000_000, Zipf: 0.7}
	lookups := 20_000
	if e.Quick {
		plan.Rows, plan.Restaurants, plan.Clients, lookups = 500_000, 5_000, 50_000, 5_000
	}
	table, err := plan.Layout()
	if err != nil {
		return nil, err
	}
	rows := &sourceRows{table: table, restaurants: plan.Restaurants, numbers: map[string]int{}, more: map[int][]string{}}
	for n := range plan.Restaurants {
		rows.numbers[table.Restaurant(n)] = n
	}
	before := heapLive()
	x, err := loadIndex(rows, 1<<30)
	if err != nil {
		return nil, err
	}
	each := func(bytes int64) float64 { return float64(bytes) / float64(plan.Rows) }
	heap := each(heapLive() - before)
	full := x.Stats()
	x.Close()
	e.Say("loaded: %.2f bytes a subscription", heap)
	r := &harness.Result{}
	r.Add(harness.Figure{Name: heapEach, Unit: harness.Bytes, Value: heap},
		harness.Figure{Name: "counted by the index", Unit: harness.Bytes, Value: each(full.Bytes)},
		harness.Figure{Name: "postings of that", Unit: harness.Bytes, Value: each(full.PostingBytes)})
	if x, err = loadIndex(rows, full.PostingBytes/10); err != nil {
		return r, err
	}
	defer x.Close()
	if err := rows.check(ctx, x, lookups); err != nil {
		return r, err
	}
	e.Say("%d answers from a tenth of the memory are exact", lookups)
	r.Add(harness.Figure{Name: exactly, Unit: harness.Count, Value: float64(lookups)},
		harness.Figure{Name: "answers read through", Unit: harness.Count, Value: float64(rows.reads)})
	count := func(n int) string { return humanize.Comma(int64(n)) }
	r.Note("%s subscriptions of %s clients and %s restaurants, ids kept (replica identity DEFAULT); heap after a full collection; answers between changes, with a budget of a tenth of the postings.",
		count(plan.Rows), count(plan.Clients), count(plan.Restaurants))
	return r, nil
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
		if err := compareClients(ctx, x, s.table.Restaurant(n), s.clients(n)); err != nil {
			return err
		}
	}
	return nil
}
