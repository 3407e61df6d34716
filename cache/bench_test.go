package cache

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
)

func benchmarkIndex(b *testing.B, rows, clients, restaurants int, keyed bool) *Index {
	b.Helper()
	x, err := New(Config{Budget: 1 << 30}, &table{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(x.Close)
	benchmarkLoad(b, x, rows, clients, restaurants, keyed)
	return x
}

// benchmarkLoad loads Zipf-distributed subscriptions from two goroutines.
func benchmarkLoad(b *testing.B, x *Index, rows, clients, restaurants int, keyed bool) {
	b.Helper()
	l := x.BeginLoad(keyed)
	var done sync.WaitGroup
	for part := range 2 {
		done.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(part), 0))
			zipf := rand.NewZipf(rng, 1.1, 50, uint64(restaurants-1))
			var r, c []byte
			batch := l.Batch()
			for i := range rows / 2 {
				r = fmt.Appendf(r[:0], "00000000-0000-4000-8000-%012x", zipf.Uint64())
				c = fmt.Appendf(c[:0], "11111111-0000-4000-8000-%012x", rng.IntN(clients))
				if err := batch.Add(int64(part*rows/2+i), r, c); err != nil {
					b.Error(err)
				}
			}
			if err := batch.Flush(); err != nil {
				b.Error(err)
			}
		})
	}
	done.Wait()
	if err := l.Finish(Snapshot{Xmin: 10, Xmax: 10}); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkLoad also reports the heap after a collection, in bytes a subscription.
func BenchmarkLoad(b *testing.B) {
	const rows = 1_000_000
	for b.Loop() {
		x := benchmarkIndex(b, rows, rows/10, rows/100, true)
		b.ReportMetric(heap(x)/rows, "B/subscription")
		b.ReportMetric(float64(x.Stats().Bytes)/rows, "counted-B/subscription")
	}
	b.ReportMetric(rows*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}

// heap is the process's heap after a full collection, with x alive.
func heap(x *Index) float64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	runtime.KeepAlive(x)
	return float64(m.HeapAlloc)
}

func BenchmarkLookup(b *testing.B) {
	x := benchmarkIndex(b, 200_000, 20_000, 2000, false)
	names := make([]string, 100)
	for i := range names {
		names[i] = fmt.Sprintf("00000000-0000-4000-8000-%012x", i)
	}
	for n := 0; b.Loop(); n++ { // b.N is 0 until the loop has ended
		r, err := x.Lookup(b.Context(), names[n%len(names)])
		if err != nil {
			b.Fatal(err)
		}
		r.Release()
	}
}

// BenchmarkApply counts changes, in transactions of the size that its name says, staging
// included. No two changes of 1,000 are of the same restaurant.
func BenchmarkApply(b *testing.B) {
	var names, clients [][]byte
	for i := range 20_000 {
		clients = append(clients, fmt.Appendf(nil, "11111111-0000-4000-8000-%012x", i*7919%20_000))
	}
	for i := range 2000 {
		names = append(names, fmt.Appendf(nil, "00000000-0000-4000-8000-%012x", i))
	}
	for _, size := range []int{1, 1000, 100_000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			x := benchmarkIndex(b, 200_000, 20_000, 2000, true)
			txn, xid := x.NewTxn(), uint64(100)
			id := int64(1 << 30)
			b.ResetTimer()
			for done := 0; done < b.N; done += size {
				for i := range size {
					id++
					if err := txn.Insert(id, names[(done+i)%2000], clients[(done+i)%20_000]); err != nil {
						b.Fatal(err)
					}
				}
				xid++
				if err := x.Apply(txn, Commit{Xid: xid, End: LSN(xid)}); err != nil {
					b.Fatal(err)
				}
				if xid%100 == 0 {
					x.Settle(Snapshot{Xmin: xid + 1, Xmax: xid + 1})
				}
			}
		})
	}
}

// BenchmarkRange counts recipients: their texts are read, of one restaurant after the other.
func BenchmarkRange(b *testing.B) {
	const restaurants = 2000
	x := benchmarkIndex(b, 400_000, 1_000_000, restaurants, false)
	var all []*Recipients
	for i := range restaurants {
		r, err := x.Lookup(b.Context(), fmt.Sprintf("00000000-0000-4000-8000-%012x", i))
		if err != nil {
			b.Fatal(err)
		}
		if all = append(all, r); r.Len() > 4096 {
			b.Logf("%d recipients", r.Len())
		}
	}
	var bytes, clients int
	for n := 0; b.Loop(); n++ {
		r := all[n%restaurants]
		for client := range r.Range(0, r.Len()) {
			bytes += len(client)
			clients++
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(clients), "ns/recipient")
	if bytes == 0 {
		b.Fatal("nothing read")
	}
}
