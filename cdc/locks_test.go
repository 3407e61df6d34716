package cdc

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/tiffin/internal/devstack/devstacktest"
)

// Nothing that the reader does once the publication is there, from the load to read-throughs and audits, holds more of the table than a
// reader's lock, and when it is done it holds none, and no snapshot.
func TestReaderHoldsNoMoreThanAReadersLock(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	contract(t, db, "DEFAULT")
	db.Exec(t, `CREATE PUBLICATION tiffin FOR TABLE subscribers_restaurants`) // whose making takes a stronger one
	db.Exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) SELECT 'r'||i%40, 'c'||i FROM generate_series(1,4000) i`)
	cfg := config(t, db)
	cfg.rangePages = 4
	g := build(t, db, cfg, 1) // which reads everything through
	stop := watchLocks(t, db)
	g.run(t)
	for range 5 {
		g.exec(t, `UPDATE subscribers_restaurants SET client_id = client_id || 'x' WHERE restaurant_id = 'r1'`)
		g.agree(t)
		if found, _ := g.audit(t); len(found) != 0 {
			t.Errorf("differences: %v", found)
		}
	}
	if looks := stop(); looks < 20 {
		t.Errorf("%d looks: too few to tell", looks)
	}
	const held = `SELECT count(*)::text FROM pg_stat_activity a WHERE application_name = $1 AND backend_type = 'client backend'
		AND (backend_xmin IS NOT NULL OR state LIKE 'idle in transaction%' OR EXISTS (SELECT FROM pg_locks l WHERE l.pid = a.pid AND relation = 'subscribers_restaurants'::regclass))`
	eventually(t, "nothing is held", func() bool { return g.one(t, held, cfg.application()) == "0" })
}

// watchLocks looks at the reader's locks again and again, until stopped; stop tells how often.
func watchLocks(t *testing.T, db *devstacktest.Database) (stop func() int) {
	t.Helper()
	conn := db.Connect(t)
	ctx, cancel := context.WithCancel(t.Context())
	looks := make(chan int, 1)
	go func() {
		n := 0
		defer func() { looks <- n }()
		for ; pause(ctx, time.Millisecond); n++ {
			var modes string
			err := conn.QueryRow(context.WithoutCancel(ctx), `SELECT coalesce(string_agg(DISTINCT mode, ' '), '') FROM pg_locks JOIN pg_stat_activity USING (pid)
				WHERE application_name LIKE 'tiffin/%' AND datname = current_database() AND relation = 'subscribers_restaurants'::regclass AND mode <> 'AccessShareLock'`).Scan(&modes)
			if err != nil || modes != "" {
				t.Errorf("locks of the table: %v, %v", modes, err)
				return
			}
		}
	}()
	return func() int { cancel(); return <-looks }
}

// Who holds the table against a restaurant's reading is named, with what ends that, also where it is a transaction that
// nobody's session has any more.
func TestHolderOfTheTablesLockIsNamed(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	contract(t, db, "DEFAULT")
	db.Exec(t, `CREATE PUBLICATION tiffin FOR TABLE subscribers_restaurants`)
	var log lines
	cfg := config(t, db)
	cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
	g := build(t, db, cfg, 1)
	g.src.lockPatience = 20 * time.Millisecond
	g.run(t).agree(t)
	gid := servers.Unique(t, "orphan")
	for name, c := range map[string]struct{ lock, holder, fix string }{
		"a session":              {"BEGIN; LOCK TABLE subscribers_restaurants IN ACCESS EXCLUSIVE MODE", "pid ", "SELECT pg_terminate_backend("},
		"a prepared transaction": {"BEGIN; LOCK TABLE subscribers_restaurants IN ACCESS EXCLUSIVE MODE; PREPARE TRANSACTION '" + gid + "'", "prepared transaction '" + gid + "'", "ROLLBACK PREPARED '" + gid + "';"},
	} {
		conn := db.Connect(t)
		if _, err := conn.PgConn().Exec(t.Context(), c.lock).ReadAll(); err != nil {
			t.Fatal(err)
		}
		read := make(chan error, 1)
		go func() {
			_, err := g.src.ReadRestaurant(t.Context(), "r1", func([]byte) error { return nil })
			read <- err
		}()
		eventually(t, name, func() bool {
			told := log.last("the table is locked")
			return strings.Contains(told, c.holder) && strings.Contains(told, c.fix)
		})
		_, fix, _ := strings.Cut(log.last("the table is locked"), `fix="`)
		g.exec(t, strings.TrimSuffix(strings.TrimSpace(fix), `"`))
		if err := <-read; err != nil {
			t.Errorf("%s: once it was ended as told: %v", name, err)
		}
	}
}

// lines is what a log was told.
type lines struct {
	mu  sync.Mutex
	all []string
}

func (l *lines) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, string(line))
	return len(line), nil
}

// last is the last line that contains a text.
func (l *lines) last(text string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range slices.Backward(l.all) {
		if strings.Contains(line, text) {
			return line
		}
	}
	return ""
}

// A load reads a table that is larger than the server's cache, and leaves what others have there alone.
func TestLoadLeavesTheServersCacheAlone(t *testing.T) {
	t.Parallel()
	db := quiet(t, map[string]string{"shared_buffers": "4MB", "autovacuum": "off"})
	contract(t, db, "DEFAULT")
	conn := db.Connect(t)
	if _, err := conn.Exec(t.Context(), `CREATE EXTENSION pg_buffercache`); err != nil {
		t.Skipf("this server can't tell what is in its cache: %v", err)
	}
	db.Exec(t,
		`CREATE TABLE hot AS SELECT repeat('x', 1000) AS x FROM generate_series(1, 700)`, `VACUUM hot`,
		`INSERT INTO subscribers_restaurants (restaurant_id, client_id) SELECT 'r' || i % 40, 'c' || i FROM generate_series(1, 200000) i`,
		`VACUUM subscribers_restaurants`, `CHECKPOINT`)
	cached := func() (pages, all int) {
		err := conn.QueryRow(t.Context(), `SELECT count(*), pg_relation_size('hot') / 8192 FROM pg_buffercache WHERE relfilenode = pg_relation_filenode('hot')`).Scan(&pages, &all)
		if err != nil {
			t.Fatal(err)
		}
		return pages, all
	}
	for range 3 {
		db.Exec(t, `SELECT count(*) FROM hot`)
	}
	if pages, all := cached(); pages != all {
		t.Fatalf("%d of %d hot pages are in the cache before the load", pages, all)
	}
	g := start(t, db, func(c *Config) { c.rangePages = 64 })
	eventually(t, "the load", func() bool { return len(g.r.Reasons()) == 0 })
	if pages, all := cached(); pages < all*9/10 {
		t.Errorf("%d of %d hot pages are in the cache behind the load", pages, all)
	}
	g.agree(t)
}
