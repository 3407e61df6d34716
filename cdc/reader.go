package cdc

import (
	"context"
	"errors"

	"example.com/tiffin/cache"
)

// Index is what the reader writes to: *cache.Index. All of it is called from the one
// goroutine of Run, but for a Load's loaders, which run on several. Apply must not wait on
// I/O: the same goroutine answers the server's keepalives.
type Index interface {
	BeginLoad(keyed bool) *cache.Load
	NewTxn() *cache.Txn
	Apply(t *cache.Txn, c cache.Commit) error
	Settle(s cache.Snapshot) cache.LSN
}

// Reader follows the source database.
type Reader struct{ cfg Config }

// Source asks the source database questions.
type Source struct{ cfg Config }

var errUnbuilt = errors.New("not built yet")

// NewSource validates cfg; it neither connects nor starts anything.
func NewSource(cfg Config) (*Source, error) { return nil, errUnbuilt }

// ReadRestaurant implements cache.Source.
func (s *Source) ReadRestaurant(ctx context.Context, restaurant string, add func(client []byte) error) (cache.Snapshot, error) {
	return cache.Snapshot{}, errUnbuilt
}

// Close ends the connections.
func (s *Source) Close() {}

// New validates cfg; it neither connects nor starts anything.
func New(cfg Config, src *Source, idx Index) (*Reader, error) { return nil, errUnbuilt }

// Run sets up, loads, follows, reconnects and rebuilds until ctx ends (nil) or for an error
// that does not mend by waiting (errors.Is ErrPermanent).
func (r *Reader) Run(ctx context.Context) error { return errUnbuilt }

// Wait is the fence.
func (r *Reader) Wait(ctx context.Context) (cache.Mark, error) { return cache.Mark{}, errUnbuilt }

// Reasons says why the index is not in sync; empty when it is.
func (r *Reader) Reasons() []string { return nil }
