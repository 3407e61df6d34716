package cache

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	// ErrInconsistent says that the stream and the index contradict each other: rebuild.
	ErrInconsistent = errors.New("index and stream contradict each other: the index must be rebuilt")
	// ErrUnknownID is an ErrInconsistent (errors.Is holds for both).
	ErrUnknownID = errors.New("no row has this id")
	// ErrClosed says that Close was called.
	ErrClosed = errors.New("index closed")
	// ErrNotLoaded says that no load has finished.
	ErrNotLoaded = errors.New("index not loaded")

	errUnbuilt = errors.New("not built yet")
)

type (
	// Source reads one restaurant on the primary.
	Source interface {
		ReadRestaurant(ctx context.Context, restaurant string, add func(client []byte) error) (Snapshot, error)
	}
	// Config of an index.
	Config struct {
		Budget  int64
		Metrics *Metrics
		Logger  *slog.Logger
	}
	// Index is the index.
	Index struct{}
	// Recipients is an answer.
	Recipients struct{}
	// Load is a load.
	Load struct{}
	// Loader is one goroutine's share of a load.
	Loader struct{}
	// Txn is a transaction.
	Txn struct{}
	// Commit says which.
	Commit struct {
		Xid  uint64
		End  LSN
		Time time.Time
	}
	// Stats are numbers.
	Stats struct {
		Subscriptions, Restaurants, Clients, Residents, Unsettled int
		PostingBytes, Bytes                                       int64
		Loaded                                                    bool
	}
	// Metrics are metrics.
	Metrics struct{}
)

// MaxLSN is what Settle returns when nothing is unsettled.
const MaxLSN = LSN(1<<64 - 1)

func NewMetrics(prometheus.Registerer) *Metrics  { return &Metrics{} }
func New(cfg Config, src Source) (*Index, error) { return nil, errUnbuilt }
func (x *Index) Close()                          {}
func (x *Index) Lookup(ctx context.Context, restaurant string) (*Recipients, error) {
	return nil, errUnbuilt
}
func (r *Recipients) Len() int                                    { return 0 }
func (r *Recipients) Range(from, to int) iter.Seq[[]byte]         { return func(func([]byte) bool) {} }
func (r *Recipients) Release()                                    {}
func (x *Index) BeginLoad(keyed bool) *Load                       { return nil }
func (l *Load) Loader() *Loader                                   { return nil }
func (l *Load) Add(id int64, restaurant, client []byte) error     { return errUnbuilt }
func (l *Loader) Add(id int64, restaurant, client []byte) error   { return errUnbuilt }
func (l *Loader) Flush() error                                    { return errUnbuilt }
func (l *Load) Finish(s Snapshot) error                           { return errUnbuilt }
func (l *Load) Abort()                                            {}
func (x *Index) NewTxn() *Txn                                     { return nil }
func (t *Txn) Insert(id int64, restaurant, client []byte) error   { return errUnbuilt }
func (t *Txn) Delete(id int64, restaurant, client []byte) error   { return errUnbuilt }
func (t *Txn) DeleteID(id int64) error                            { return errUnbuilt }
func (t *Txn) UpdateID(id int64, restaurant, client []byte) error { return errUnbuilt }

// MoveID is UpdateID with a changed primary key.
func (t *Txn) MoveID(oldID, newID int64, restaurant, client []byte) error { return errUnbuilt }
func (t *Txn) Truncate() error                                            { return nil }
func (t *Txn) Discard()                                                   {}
func (t *Txn) Len() int                                                   { return 0 }
func (x *Index) Apply(t *Txn, c Commit) error                             { return errUnbuilt }
func (x *Index) Settle(s Snapshot) LSN                                    { return 0 }
func (x *Index) Stats() Stats                                             { return Stats{} }
