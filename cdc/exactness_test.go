package cdc

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"example.com/tiffin/cache"
	"example.com/tiffin/internal/devstack/devstacktest"
)

// TestExactness has writers change the table at random and ask, between their transactions,
// who is subscribed: a fence, a lookup, and the answer compared with a plain map. The budget
// is far less than the postings need. EXACTNESS=full is 100,000 operations and 50,000
// questions for each replica identity (make exactness).
func TestExactness(t *testing.T) {
	t.Parallel()
	operations, questions := 400, 200
	kills := map[string]time.Duration{"walsenders die": 100 * time.Millisecond}
	if os.Getenv("EXACTNESS") == "full" {
		operations, questions = 100_000, 50_000
		kills = map[string]time.Duration{"walsenders die": time.Second, "calm": 0}
	}
	for _, identity := range []string{"DEFAULT", "INDEX", "FULL"} {
		for name, kill := range kills {
			t.Run(identity+"/"+name, func(t *testing.T) {
				t.Parallel()
				run := &exactness{operations: operations, questions: questions, unique: identity == "INDEX", kill: kill}
				db := servers.Database(t)
				contract(t, db, identity)
				db.Exec(t, `CREATE INDEX ON subscribers_restaurants (restaurant_id)`)
				run.against(t, db)
			})
		}
	}
}

const (
	exactWriters     = 4
	exactRestaurants = 60  // of each writer
	exactClients     = 300 // who may subscribe to each
)

// exactness is one run and its account.
type exactness struct {
	operations, questions int
	unique                bool          // a pair may be there once only
	kill                  time.Duration // walsenders die this often; 0: never

	all                                  sync.RWMutex // held to truncate
	done, transactions, asked, wrong     atomic.Int64
	rolledBack, truncates, killed, found atomic.Int64
}

func (e *exactness) against(t *testing.T, db *devstacktest.Database) {
	cfg := config(t, db)
	cfg.Log = nil
	registry := prometheus.NewRegistry()
	g := buildWith(t, db, cfg, cache.Config{Budget: 64 << 10, Metrics: cache.NewMetrics(registry)})
	writers := make([]*exactWriter, exactWriters)
	for i := range writers {
		writers[i] = &exactWriter{exactness: e, g: g, number: i, rnd: rand.New(rand.NewPCG(7, uint64(i))), conn: db.Connect(t), book: newBook()}
		writers[i].seed(t)
	}
	started := time.Now()
	g.run(t)
	g.fence(t)
	ctx, cancel := context.WithCancel(t.Context())
	var killer, work sync.WaitGroup
	if e.kill > 0 {
		killer.Go(func() { e.killWalsenders(ctx, t, g) })
	}
	for _, w := range writers {
		work.Go(func() { w.work(t, writers) })
	}
	work.Wait()
	cancel()
	killer.Wait()
	for _, w := range writers {
		for r := 0; r < exactRestaurants; r += 4 {
			w.ask(t, r)
		}
	}
	g.unrebuilt(t)
	lookups := lookupCounts(t, registry)
	if lookups["filled"] == 0 || e.kill > 0 && e.killed.Load() == 0 {
		t.Errorf("proves little: lookups %v, %d walsenders killed", lookups, e.killed.Load())
	}
	t.Logf("%d operations in %d transactions (%d rolled back, %d truncates), %d questions of %d clients: %d wrong; lookups %v; %d walsenders killed; %s",
		e.done.Load(), e.transactions.Load(), e.rolledBack.Load(), e.truncates.Load(), e.asked.Load(), e.found.Load(), e.wrong.Load(),
		lookups, e.killed.Load(), time.Since(started).Round(time.Millisecond))
}

func (e *exactness) killWalsenders(ctx context.Context, t *testing.T, g *rig) {
	for pause(ctx, e.kill) {
		if len(g.r.Reasons()) > 0 {
			continue // on a busy machine it does not follow again yet
		}
		tag, err := g.sql.Exec(t.Context(), `SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1 AND active_pid IS NOT NULL`, g.db.Slot)
		if err != nil {
			t.Error(err)
			return
		}
		e.killed.Add(tag.RowsAffected())
	}
}

// exactWriter changes restaurants of its own, so that it knows what they must be while the
// others change theirs.
type exactWriter struct {
	*exactness
	g      *rig
	number int
	rnd    *rand.Rand
	conn   *pgx.Conn
	last   int64
	book   *book
}

func (w *exactWriter) name(restaurant int) string { return fmt.Sprintf("w%d-%d", w.number, restaurant) }

func (w *exactWriter) freshID() int64 {
	w.last++
	return w.last*exactWriters + int64(w.number)
}

// newID is one that no row has; another may have had it.
func (w *exactWriter) newID() int64 {
	again := (1+w.rnd.Int64N(w.last))*exactWriters + int64(w.number)
	if _, held := w.book.rows[again]; !held {
		return again
	}
	return w.freshID()
}

// seed fills the table with what the reader loads.
func (w *exactWriter) seed(t *testing.T) {
	var rows [][]any
	for r := range exactRestaurants {
		for c := range exactClients / 2 {
			id, p := w.freshID(), pair{r, c * 2}
			w.book.add(id, p)
			rows = append(rows, []any{id, w.name(p.restaurant), clientName(p.client)})
		}
	}
	columns := []string{"id", columnRestaurant, columnClient}
	if _, err := w.conn.CopyFrom(t.Context(), pgx.Identifier{"subscribers_restaurants"}, columns, pgx.CopyFromRows(rows)); err != nil {
		t.Error(err)
	}
}

func (w *exactWriter) work(t *testing.T, all []*exactWriter) {
	operations, questions := w.operations/exactWriters, w.questions/exactWriters
	truncateAt := -1
	if w.number == 0 {
		truncateAt = w.rnd.IntN(operations)
	}
	for did, asked := 0, 0; (did < operations || asked < questions) && !t.Failed(); {
		if did < operations {
			n := w.transaction(t)
			did += n
			w.done.Add(int64(n))
		}
		if truncateAt >= 0 && did >= truncateAt {
			truncateAt = -1
			w.truncate(t, all)
		}
		for asked*operations < did*questions && asked < questions {
			w.ask(t, w.rnd.IntN(exactRestaurants))
			asked++
		}
	}
}

// transaction sends one with some operations, and keeps the account if it commits.
func (w *exactWriter) transaction(t *testing.T) (operations int) {
	w.all.RLock()
	defer w.all.RUnlock()
	batch := &pgx.Batch{}
	batch.Queue("BEGIN")
	w.book.journal = w.book.journal[:0]
	for operations = range 1 + w.rnd.IntN(5) {
		if w.rnd.IntN(10) > 0 {
			w.change(batch)
			continue
		}
		batch.Queue("SAVEPOINT s")
		before := len(w.book.journal)
		w.change(batch)
		w.book.undo(before)
		batch.Queue("ROLLBACK TO SAVEPOINT s")
	}
	commit := w.rnd.IntN(10) > 0
	batch.Queue(map[bool]string{true: "COMMIT", false: "ROLLBACK"}[commit])
	if err := w.conn.SendBatch(t.Context(), batch).Close(); err != nil {
		t.Error(err)
		return operations + 1
	}
	w.transactions.Add(1)
	if !commit {
		w.book.undo(0)
		w.rolledBack.Add(1)
	}
	return operations + 1
}

// change queues one operation and keeps the book.
func (w *exactWriter) change(batch *pgx.Batch) {
	id, old := w.book.any()
	p := pair{w.rnd.IntN(exactRestaurants), w.rnd.IntN(exactClients)}
	switch kind := w.rnd.IntN(12); {
	case kind < 5 || id == 0:
		w.insert(batch, p)
	case kind < 9:
		batch.Queue(`DELETE FROM subscribers_restaurants WHERE id = $1`, id)
		w.book.remove(id)
	case kind == 9:
		p.restaurant = old.restaurant
		w.update(batch, id, id, p)
	case kind == 10:
		w.update(batch, id, id, p)
	default:
		w.update(batch, id, w.newID(), p)
	}
}

func (w *exactWriter) insert(batch *pgx.Batch, p pair) {
	if w.taken(p) {
		return
	}
	id := w.newID()
	batch.Queue(`INSERT INTO subscribers_restaurants (id, restaurant_id, client_id) VALUES ($1, $2, $3)`, id, w.name(p.restaurant), clientName(p.client))
	w.book.add(id, p)
}

func (w *exactWriter) update(batch *pgx.Batch, id, newID int64, p pair) {
	if w.taken(p) {
		return
	}
	batch.Queue(`UPDATE subscribers_restaurants SET id = $2, restaurant_id = $3, client_id = $4 WHERE id = $1`, id, newID, w.name(p.restaurant), clientName(p.client))
	w.book.remove(id)
	w.book.add(newID, p)
}

// taken: under a unique index the pair may not be there twice.
func (w *exactWriter) taken(p pair) bool { return w.unique && w.book.held[p] > 0 }

// truncate empties the table while nobody writes, and fills it again.
func (w *exactWriter) truncate(t *testing.T, all []*exactWriter) {
	w.all.Lock()
	defer w.all.Unlock()
	if _, err := w.conn.Exec(t.Context(), `TRUNCATE subscribers_restaurants`); err != nil {
		t.Error(err)
		return
	}
	w.truncates.Add(1)
	for _, other := range all {
		other.book = newBook()
		other.seed(t)
	}
}

// ask is a campaign as far as the source goes: a fence, a lookup, and nothing but the truth.
// It may run beside the other writers' transactions, but not beside a truncate.
func (w *exactWriter) ask(t *testing.T, restaurant int) {
	w.all.RLock()
	defer w.all.RUnlock()
	w.g.fence(t)
	var want []string
	for c := range exactClients {
		if w.book.held[pair{restaurant, c}] > 0 {
			want = append(want, clientName(c))
		}
	}
	slices.Sort(want)
	got := w.g.clients(t, w.name(restaurant))
	w.asked.Add(1)
	w.found.Add(int64(len(got)))
	if !slices.Equal(got, want) {
		w.wrong.Add(1)
		t.Errorf("restaurant %s: index %s, want %s", w.name(restaurant), brief(got), brief(want))
	}
}

// lookupCounts says how the lookups were answered.
func lookupCounts(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]float64{}
	for _, f := range families {
		if f.GetName() != "tiffin_index_lookups_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			counts[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
		}
	}
	return counts
}

func clientName(client int) string { return fmt.Sprintf("client-%d", client) }
