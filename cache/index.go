package cache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Source reads one restaurant's rows where nothing can be stale: on the primary.
type Source interface {
	// ReadRestaurant calls add once for every row of the restaurant (a client that has two
	// rows comes twice; client may be reused after add returns) and returns the snapshot
	// that the rows were read in: pg_current_snapshot() of the same statement, at READ
	// COMMITTED, where Postgres locks the table before it takes the statement's snapshot, so
	// that no TRUNCATE (which old snapshots see) comes between. An error of add ends the
	// reading and is returned. It is called from many goroutines at once, at most once at a
	// time per restaurant.
	ReadRestaurant(ctx context.Context, restaurant string, add func(client []byte) error) (Snapshot, error)
}

// Config says how an Index is built.
type Config struct {
	// Budget is how many bytes of postings are kept in memory. The directory, the
	// dictionaries and the id map are exact and not part of it. At least 1.
	Budget int64
	// SpillDir is where a transaction of more than half a million changes is kept until it is
	// applied, about 16 bytes a change; empty for the system's directory for temporary files.
	SpillDir string
	// Metrics receive counts; nil for none. Metrics serve one Index.
	Metrics *Metrics
	// Logger receives what an operator may want to know; nil for none.
	Logger *slog.Logger
}

// Validate names every fault of the configuration at once.
func (c Config) Validate() error {
	if c.Budget < 1 {
		return fmt.Errorf("budget %d: want at least 1 byte", c.Budget)
	}
	return nil
}

// Index answers who subscribes to a restaurant. Lookup, Stats and Settle are safe for
// concurrent use; the rest belongs to one writer goroutine.
type Index struct {
	log       *slog.Logger
	metrics   *Metrics
	source    Source
	shelf     *shelf
	unsettled unsettled
	sweepAt   int // dead clients that make a sweep worth while; a test lowers it

	// cur is what the writer loads and changes; serving is what lookups see: cur once it is
	// loaded, nil before and after a contradiction.
	cur     atomic.Pointer[state]
	serving atomic.Pointer[state]
	fault   atomic.Pointer[fault] // a contradiction that a lookup met
	audit   atomic.Pointer[Audit] // the one under way, which listens to what is applied

	mu     sync.Mutex
	wake   chan struct{} // closed and replaced when serving is set
	loads  uint64        // number of BeginLoad calls; the high bits of generations
	closed chan struct{}
	once   sync.Once

	// The writer's own.
	applied   LSN     // end of the last transaction applied or skipped
	changes   changes // of the transaction in hand
	ahead     lookahead
	uncounted []uint64 // the last of changes, whose clients' rows are not counted yet
	room      []uint32 // to merge changes into a posting
	staged    int      // chunks of a transaction kept in memory; a test lowers it
	dir       string   // for what is spilled
}

// New returns an index that holds nothing and makes lookups wait until a load has finished.
// ristretto starts its goroutine here: Close ends it.
func New(cfg Config, src Source) (*Index, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("index config: %w", err)
	}
	if src == nil {
		return nil, errors.New("index config: no source to read restaurants from")
	}
	sh, err := newShelf(cfg.Budget)
	if err != nil {
		return nil, fmt.Errorf("index of %d bytes: %w", cfg.Budget, err)
	}
	x := &Index{
		log: cfg.Logger, metrics: cfg.Metrics, source: src, shelf: sh,
		sweepAt: minSweep, staged: chunksMax, dir: cfg.SpillDir,
		changes: changes{most: runMax, file: spill{dir: cfg.SpillDir}},
		wake:    make(chan struct{}), closed: make(chan struct{}),
	}
	if x.log == nil {
		x.log = slog.New(slog.DiscardHandler)
	}
	x.metrics.watch(x)
	return x, nil
}

// Close releases what the index holds. Lookups that wait for a load return ErrClosed;
// Recipients handed out stay readable. It may be called more than once.
func (x *Index) Close() {
	x.once.Do(func() {
		close(x.closed)
		x.serving.Store(nil)
		x.shelf.close()
	})
}

// Stats is the index in numbers, gathered without stopping anybody: they may be a
// transaction apart from each other.
type Stats struct {
	// Subscriptions is the number of rows, duplicates included.
	Subscriptions int64
	// Restaurants is the number of restaurants that have a row.
	Restaurants int64
	// Clients is the number of clients in the dictionary, those not yet reclaimed included.
	Clients int64
	// PostingBytes is what the postings in memory take, at most Budget or nearly so.
	PostingBytes int64
	// Bytes is everything: directory, dictionaries, id map and postings.
	Bytes int64
	// Unsettled is the number of applied transactions not known to be visible to snapshots.
	Unsettled int
	// Loaded says that lookups are answered.
	Loaded bool
}

// Stats returns the index in numbers. It is cheap enough for every scrape.
func (x *Index) Stats() Stats {
	out := Stats{PostingBytes: x.shelf.used(), Unsettled: x.unsettled.len(), Loaded: x.serving.Load() != nil}
	out.Bytes = out.PostingBytes
	if st := x.cur.Load(); st != nil {
		out.Subscriptions = st.rows.Load()
		out.Restaurants = st.peopled.Load()
		out.Clients = st.clients.len()
		out.Bytes += st.bytes()
	}
	return out
}

// await returns the content once it is loaded.
func (x *Index) await(ctx context.Context) (*state, error) {
	for {
		x.mu.Lock()
		wake := x.wake
		x.mu.Unlock()
		if st := x.serving.Load(); st != nil {
			return st, nil
		}
		select {
		case <-wake:
		case <-x.closed:
			return nil, ErrClosed
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for the index to be loaded: %w", ctx.Err())
		}
	}
}

// serve shows the loaded content to lookups.
func (x *Index) serve(st *state) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.serving.Store(st)
	close(x.wake)
	x.wake = make(chan struct{})
}

// fault is a contradiction between a reading and the stream.
type fault struct {
	st  *state
	err error
}

// fail stops answering: what the index holds contradicts the stream.
func (x *Index) fail(c Commit, err error) error {
	x.serving.Store(nil)
	return fmt.Errorf("apply transaction %d ending at %s: %w", c.Xid, c.End, err)
}

// state is one load's content and what was applied to it since. A rebuild starts a new one,
// so that nothing of the old can be mistaken for the new.
type state struct {
	keyed       bool
	since       Snapshot // the load's
	restaurants *dictionary
	clients     *dictionary
	dir         *directory
	ids         *idMap // nil unless keyed
	pins        *pins
	dead        condemned // the writer's own
	rows        atomic.Int64
	peopled     atomic.Int64 // restaurants with rows
}

func newState(keyed bool, load uint64) *state {
	p := newPins()
	st := &state{
		keyed:       keyed,
		restaurants: newDictionary(p),
		clients:     newDictionary(p),
		// A generation of one load never equals one of another: a Set of an old content's
		// fill may still come.
		dir:  newDirectory(load << generationBits),
		pins: p,
	}
	if keyed {
		st.ids = newIDMap()
	}
	return st
}

// generationBits leaves 2^40 changes of one restaurant to a load, and 2^24 loads.
const generationBits = 40

func (st *state) bytes() int64 {
	sum := st.restaurants.bytes() + st.clients.bytes() + st.dir.bytes()
	if st.ids != nil {
		sum += st.ids.bytes()
	}
	return sum
}

// Commit is what the stream says about a transaction besides its changes.
type Commit struct {
	// Xid is the top-level transaction id, extended to 64 bits.
	Xid uint64
	// End is the position behind the commit record.
	End LSN
	// Time is the commit's time on the source.
	Time time.Time
}
