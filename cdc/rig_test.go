package cdc

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"example.com/tiffin/cache"
	"example.com/tiffin/internal/devstack"
	"example.com/tiffin/internal/devstack/devstacktest"
)

// patient bounds what a test waits for; only a failing test waits that long.
var patient = devstacktest.Patience()

// rig is a reader that follows a database of its own into a real index.
type rig struct {
	db   *devstacktest.Database
	sql  *pgxpool.Pool
	idx  *cache.Index
	src  *Source
	r    *Reader
	ran  chan struct{} // closed when Run has returned
	err  error         // what Run returned
	quit func()        // stops Run and waits
}

// contract makes the table of the contract with a replica identity.
func contract(t testing.TB, db *devstacktest.Database, identity string) {
	t.Helper()
	db.Exec(t, `CREATE TABLE subscribers_restaurants (id serial PRIMARY KEY, client_id varchar NOT NULL, restaurant_id varchar NOT NULL)`)
	identify(t, db, identity)
}

func identify(t testing.TB, db *devstacktest.Database, identity string) {
	t.Helper()
	switch identity {
	case "DEFAULT", "FULL", "NOTHING":
		db.Exec(t, "ALTER TABLE subscribers_restaurants REPLICA IDENTITY "+identity)
	case "INDEX":
		db.Exec(t, "CREATE UNIQUE INDEX pair ON subscribers_restaurants (restaurant_id, client_id)",
			"ALTER TABLE subscribers_restaurants REPLICA IDENTITY USING INDEX pair")
	}
}

func config(t testing.TB, db *devstacktest.Database) Config {
	return Config{
		DSN: db.DSN, Table: "public.subscribers_restaurants", Publication: "tiffin", Slot: db.Slot,
		StatusInterval: 200 * time.Millisecond,
		Log:            slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
}

// build makes a rig that does not run yet.
func build(t testing.TB, db *devstacktest.Database, cfg Config, budget int64) *rig {
	t.Helper()
	return buildWith(t, db, cfg, cache.Config{Budget: budget})
}

func buildWith(t testing.TB, db *devstacktest.Database, cfg Config, index cache.Config) *rig {
	t.Helper()
	g := &rig{db: db, ran: make(chan struct{})}
	var err error
	if g.src, err = NewSource(cfg); err != nil {
		t.Fatal(err)
	}
	if g.idx, err = cache.New(index, g.src); err != nil {
		t.Fatal(err)
	}
	if g.r, err = New(cfg, g.src, g.idx); err != nil {
		t.Fatal(err)
	}
	if g.sql, err = pgxpool.New(t.Context(), db.DSN); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		g.idx.Close()
		g.src.Close()
		g.sql.Close()
	})
	return g
}

// run runs the reader until the test's end.
func (g *rig) run(t testing.TB) *rig {
	ctx, cancel := context.WithCancel(t.Context())
	var once sync.Once
	go func() {
		defer close(g.ran)
		g.err = g.r.Run(ctx)
	}()
	g.quit = func() {
		once.Do(cancel)
		<-g.ran
	}
	t.Cleanup(g.quit)
	return g
}

func start(t testing.TB, db *devstacktest.Database, change ...func(*Config)) *rig {
	t.Helper()
	cfg := config(t, db)
	for _, c := range change {
		c(&cfg)
	}
	return build(t, db, cfg, 1<<20).run(t)
}

func (g *rig) exec(t testing.TB, sql string, args ...any) {
	t.Helper()
	if _, err := g.sql.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func (g *rig) fence(t testing.TB) cache.Mark {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	mark, err := g.r.Wait(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return mark
}

func (g *rig) clients(t testing.TB, restaurant string) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	got, err := g.idx.Lookup(ctx, restaurant)
	if err != nil {
		t.Fatalf("lookup %q: %v", restaurant, err)
	}
	defer got.Release()
	var all []string
	for c := range got.Range(0, got.Len()) {
		all = append(all, string(c))
	}
	slices.Sort(all)
	return all
}

// agree compares the index with the table, after a fence, while nobody writes.
func (g *rig) agree(t testing.TB) {
	t.Helper()
	g.fence(t)
	rows, err := g.sql.Query(t.Context(), `SELECT DISTINCT restaurant_id::text COLLATE "C", client_id::text COLLATE "C" FROM subscribers_restaurants WHERE restaurant_id IS NOT NULL AND client_id IS NOT NULL ORDER BY 1, 2`)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]string{}
	var restaurant, client string
	if _, err := pgx.ForEachRow(rows, []any{&restaurant, &client}, func() error {
		want[restaurant] = append(want[restaurant], client)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for _, r := range g.everSeen(t, want) {
		slices.Sort(want[r])
		if got := g.clients(t, r); !slices.Equal(got, want[r]) {
			t.Errorf("restaurant %q: the index has %d clients, the table %d; surplus %v, missing %v", r, len(got), len(want[r]), brief(without(got, want[r])), brief(without(want[r], got)))
		}
	}
}

// everSeen are the table's restaurants and some that may have been emptied.
func (g *rig) everSeen(t testing.TB, want map[string][]string) []string {
	t.Helper()
	seen := map[string]bool{}
	for r := range want {
		seen[r] = true
	}
	for i := range 50 {
		seen[fmt.Sprintf("r%d", i)] = true
	}
	var all []string
	for r := range seen {
		all = append(all, r)
	}
	slices.Sort(all)
	return all
}

// without gives what is in these and not in those.
func without(these, those []string) []string {
	return slices.DeleteFunc(slices.Clone(these), func(s string) bool { return slices.Contains(those, s) })
}

func brief(s []string) string {
	if len(s) > 8 {
		return fmt.Sprintf("%v… (%d)", s[:8], len(s))
	}
	return fmt.Sprint(s)
}

// eventually polls what no event tells.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	for !is() {
		if !pause(ctx, 5*time.Millisecond) {
			t.Fatalf("not within %s: %s", patient, what)
		}
	}
}

// saysWhy waits until a reason holds the text.
func (g *rig) saysWhy(t testing.TB, text string) string {
	t.Helper()
	var reasons string
	eventually(t, "reasons hold "+text, func() bool {
		reasons = strings.Join(g.r.Reasons(), "; ")
		return strings.Contains(reasons, text)
	})
	return reasons
}

func (g *rig) inSync(t testing.TB) {
	t.Helper()
	eventually(t, "in sync", func() bool { return len(g.r.Reasons()) == 0 })
}

// ends waits for Run to end by itself.
func (g *rig) ends(t testing.TB) error {
	t.Helper()
	select {
	case <-g.ran:
		return g.err
	case <-time.After(patient):
		t.Fatalf("Run goes on; reasons: %v", g.r.Reasons())
		return nil
	}
}

func (g *rig) one(t testing.TB, sql string, args ...any) string {
	t.Helper()
	var text *string
	if err := g.sql.QueryRow(t.Context(), sql, args...).Scan(&text); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	if text == nil {
		return ""
	}
	return *text
}

func value(t testing.TB, m prometheus.Metric) float64 {
	t.Helper()
	var out dto.Metric
	if err := m.Write(&out); err != nil {
		t.Fatal(err)
	}
	return out.GetCounter().GetValue() + out.GetGauge().GetValue()
}

func label(t testing.TB, m prometheus.Metric) []*dto.LabelPair {
	t.Helper()
	var out dto.Metric
	if err := m.Write(&out); err != nil {
		t.Fatal(err)
	}
	return out.GetLabel()
}

// alone runs a reader on a server of the test's own.
func alone(t testing.TB, server *devstack.Postgres, change ...func(*Config)) *rig {
	t.Helper()
	db := devstacktest.NewDatabase(t, server, "alone")
	contract(t, db, "DEFAULT")
	return start(t, db, change...)
}

// unrebuilt makes sure that no rebuild hid a fault.
func (g *rig) unrebuilt(t testing.TB) {
	t.Helper()
	all := make(chan prometheus.Metric, 100)
	g.r.cfg.Metrics.rebuilds.Collect(all)
	close(all)
	for m := range all {
		if n := value(t, m); n != 0 {
			t.Errorf("%v rebuilds were needed: %v", n, label(t, m))
		}
	}
}
