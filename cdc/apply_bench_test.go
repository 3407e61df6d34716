package cdc

import (
	"context"
	"fmt"
	"strconv"
	"testing"

	"example.com/tiffin/cache"
)

// unread is a source that nothing is read through from.
type unread struct{}

func (unread) ReadRestaurant(context.Context, string, func([]byte) error) (cache.Snapshot, error) {
	return cache.Snapshot{}, fmt.Errorf("nothing is to be read through")
}

const (
	benchRows        = 1_000_000
	benchRestaurants = 10_000
	benchClients     = 99_991 // a prime: no pair comes twice soon
)

func benchRestaurant(i int) string {
	return fmt.Sprintf("%08x-0000-4000-8000-%012x", i*7919%benchRestaurants, i*7919%benchRestaurants)
}

func benchClient(i int) string {
	return fmt.Sprintf("%08x-0000-4000-9000-%012x", i*104729%benchClients, i*104729%benchClients)
}

// BenchmarkMessagesToIndex counts changes: decoding, assembling and applying, as bench apply
// does with captured messages, in transactions of the size that its name says.
func BenchmarkMessagesToIndex(b *testing.B) {
	forms := map[string]func(i int) []byte{
		"insert": func(i int) []byte {
			return changeMsg('I', byte('N'), new(wal).row(strconv.Itoa(benchRows+1+i), benchClient(3*i+1), benchRestaurant(i)))
		},
		"update": func(i int) []byte {
			i %= benchRows
			return changeMsg('U', byte('N'), new(wal).row(strconv.Itoa(i+1), benchClient(5*i+2), benchRestaurant(i)))
		},
		"delete": func(i int) []byte {
			return changeMsg('D', byte('K'), new(wal).row(strconv.Itoa(i+1), "\x00n", "\x00n"))
		},
	}
	for name, form := range forms {
		for _, size := range []int{1, 100, 1000, 100_000} {
			b.Run(fmt.Sprintf("%s/%d", name, size), func(b *testing.B) { benchmarkMessages(b, min(b.N, benchRows), size, form) })
		}
	}
}

func benchmarkMessages(b *testing.B, changes, size int, form func(i int) []byte) {
	b.Helper()
	x, err := cache.New(cache.Config{Budget: 1 << 30}, unread{})
	if err != nil {
		b.Fatal(err)
	}
	defer x.Close()
	l := x.BeginLoad(true)
	batch := l.Batch()
	for i := range benchRows {
		if err := batch.Add(int64(i+1), []byte(benchRestaurant(i)), []byte(benchClient(i))); err != nil {
			b.Fatal(err)
		}
	}
	if err := batch.Flush(); err != nil {
		b.Fatal(err)
	}
	if err := l.Finish(cache.Snapshot{Xmin: 500, Xmax: 500}); err != nil {
		b.Fatal(err)
	}
	messages := [][]byte{relationOf(tableOID, "public", "t", 'd', "id", "id", "client_id", "restaurant_id")}
	end, xid := uint64(2000), uint32(500)
	for i := range changes {
		if i%size == 0 {
			messages = append(messages, beginOf(end, xid))
		}
		messages = append(messages, form(i))
		if i%size == size-1 || i == changes-1 {
			end, xid = end+100, xid+1
			messages = append(messages, commitOf(end))
		}
	}
	a, _ := assemblerFor(b, 'd', "id")
	txn := x.NewTxn()
	a.txn = txn
	r := &Replay{idx: x, txn: txn, asm: a}
	b.ResetTimer()
	for _, msg := range messages {
		if err := r.Message(msg); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	if changes < b.N {
		b.Fatalf("%d changes are all there are", changes)
	}
}
