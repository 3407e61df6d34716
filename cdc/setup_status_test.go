package cdc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"example.com/tiffin/internal/devstack"
	"example.com/tiffin/internal/devstack/devstacktest"
)

// statusOf is what status shows of a prepared source.
func statusOf(t *testing.T, cfg Config, role string) SourceStatus {
	t.Helper()
	s, err := Status(t.Context(), cfg, role)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Status names the worst first, with its fix: what is wrong, and nothing else.
func TestStatusNamesWhatIsWrong(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		sql        string
		change     func(*Config)
		wrong, fix string // "" for nothing
	}{
		"nothing":            {},
		"over the budget":    {sql: `INSERT INTO subscribers_restaurants (restaurant_id, client_id) SELECT 'r', 'c' FROM generate_series(1,1000)`, change: func(c *Config) { c.MaxRetainedWAL = 1000 }, wrong: "more than source.max_retained_wal", fix: "start the daemon"},
		"no slot":            {sql: `SELECT pg_drop_replication_slot('$SLOT')`, wrong: "slot $SLOT does not exist", fix: "slotsetup apply: SELECT pg_create"},
		"no publication":     {sql: `DROP PUBLICATION tiffin`, wrong: "slot $SLOT is older than", fix: "slotsetup apply: SELECT pg_drop"},
		"fewer operations":   {sql: `ALTER PUBLICATION tiffin SET (publish = 'insert, delete')`, wrong: "slot $SLOT is older than", fix: "slotsetup apply"},
		"identity":           {sql: `ALTER TABLE subscribers_restaurants REPLICA IDENTITY NOTHING`, wrong: "the replica identity of public.subscribers_restaurants does not tell", fix: "REPLICA IDENTITY DEFAULT"},
		"no right to read":   {sql: `REVOKE SELECT ON subscribers_restaurants FROM $ROLE; REVOKE SELECT (id, client_id, restaurant_id, ctid) ON subscribers_restaurants FROM $ROLE`, wrong: "role $ROLE may not read ctid, id, client_id, restaurant_id", fix: "GRANT SELECT"},
		"no places":          {sql: `REVOKE SELECT (ctid) ON subscribers_restaurants FROM $ROLE`},
		"no right to stream": {sql: `ALTER ROLE $ROLE NOREPLICATION`, wrong: "role $ROLE may not start replication", fix: "ALTER ROLE"},
		"another's slot":     {change: func(c *Config) { c.Slot += "_other" }, sql: `SELECT pg_create_logical_replication_slot('$SLOT_other', 'test_decoding')`, wrong: "use replication slot $SLOT_other", fix: "source.slot"},
		"a whole table":      {sql: `DROP PUBLICATION tiffin; SELECT pg_drop_replication_slot('$SLOT'); CREATE PUBLICATION tiffin FOR ALL TABLES; SELECT pg_create_logical_replication_slot('$SLOT', 'pgoutput')`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := servers.Database(t)
			contract(t, db, "DEFAULT")
			role := "r_" + db.Slot[2:]
			cfg := config(t, db)
			if tally, report := applied(t, cfg, role, declining); !tally.Complete() {
				t.Fatal(report)
			}
			t.Cleanup(func() { dropRole(t, db, role) })
			names := strings.NewReplacer("$SLOT", db.Slot, "$ROLE", role)
			for sql := range strings.SplitSeq(names.Replace(c.sql), "; ") {
				if sql != "" {
					db.Exec(t, sql)
				}
			}
			if c.change != nil {
				c.change(&cfg)
			}
			s := statusOf(t, cfg, role)
			if c.wrong == "" {
				if len(s.Wrong) > 0 {
					t.Errorf("%+v", s.Wrong)
				}
				return
			}
			if len(s.Wrong) == 0 || !strings.Contains(s.Wrong[0].Text, names.Replace(c.wrong)) || !strings.Contains(s.Wrong[0].Fix, c.fix) {
				t.Errorf("%+v, want first %q, %q", s.Wrong, names.Replace(c.wrong), c.fix)
			}
		})
	}
}

// The holder is named: pid, application, role, address; what the role that asks may not see is not
// made up.
func TestStatusNamesTheHolder(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	contract(t, db, "DEFAULT")
	g := start(t, db)
	g.agree(t)
	cfg := config(t, db)
	s := statusOf(t, cfg, db.Server.Username())
	for _, want := range []string{"pid ", `application "tiffin/` + db.Slot + `"`, `user "postgres"`, "from 127.0.0.1"} {
		if !strings.Contains(s.Slot.Holder, want) {
			t.Errorf("holder %q lacks %s", s.Slot.Holder, want)
		}
	}
	as := owner(t, db)
	cfg.DSN = db.Server.DSNFor(as, "", db.Name)
	if s := statusOf(t, cfg, db.Server.Username()); !strings.Contains(s.Slot.Holder, "an address that this role may not see") || len(s.Wrong) > 0 {
		t.Errorf("as the owner: holder %q, %+v", s.Slot.Holder, s.Wrong)
	}
}

// A slot that the server invalidated is said to be lost, and apply makes it again with consent.
func TestStatusOfALostSlot(t *testing.T) {
	t.Parallel()
	server := own(t, devstack.PostgresOptions{Settings: map[string]string{"max_slot_wal_keep_size": "16MB", "min_wal_size": "32MB", "max_wal_size": "32MB"}})
	db := devstacktest.NewDatabase(t, server, "app")
	contract(t, db, "DEFAULT")
	cfg := config(t, db)
	if tally, report := applied(t, cfg, server.Username(), declining); !tally.Complete() {
		t.Fatal(report)
	}
	for range 6 {
		db.Exec(t, `SELECT pg_logical_emit_message(false, 'x', 'x')`, `SELECT pg_switch_wal()`)
	}
	db.Exec(t, `CHECKPOINT`)
	s := statusOf(t, cfg, server.Username())
	if !s.Slot.Lost || s.Slot.WALStatus != "lost" || s.Slot.Keep != 16<<20 || len(s.Wrong) == 0 || !strings.Contains(s.Wrong[0].Text, "was invalidated") {
		t.Errorf("%+v", s)
	}
	if tally, report := applied(t, cfg, server.Username(), declining); tally.Left != 1 || tally.Blocked != 1 {
		t.Errorf("without consent: %+v\n%s", tally, report)
	}
	if tally, report := applied(t, cfg, server.Username(), agreeing); !tally.Complete() {
		t.Errorf("with consent: %s", report)
	}
	if s := statusOf(t, cfg, server.Username()); len(s.Wrong) > 0 || s.Slot.Lost {
		t.Errorf("after: %+v", s)
	}
}

// What a running daemon stands in the way of is not begun: an older slot must go first, and is in use.
func TestApplyBesideARunningDaemon(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	contract(t, db, "DEFAULT")
	db.Exec(t, `CREATE PUBLICATION other`)
	g := start(t, db)
	g.agree(t)
	cfg := config(t, db)
	cfg.Publication = "other" // that of the settings, but not of the daemon
	tally, report := applied(t, cfg, db.Server.Username(), agreeing)
	if tally.Done != 0 || tally.Blocked != 3 || !strings.Contains(report, "stop the daemon first") {
		t.Errorf("%+v\n%s", tally, report)
	}
	for line := range strings.Lines(printed(t, cfg, db.Server.Username())) {
		if !strings.HasPrefix(line, "--") && strings.TrimSpace(line) != "" {
			t.Errorf("the script would run %s", line)
		}
	}
	g.unrebuilt(t)
	g.agree(t)
}

// Whether the server's answer to the cancelled statement comes before its connection is closed is
// chance: neither is the server's refusal.
func TestSlotGivenUpIsNotRefused(t *testing.T) {
	t.Parallel()
	held := &Error{Op: "create replication slot", Err: errors.New("it held back too much"), Fix: "end the transaction"}
	err := unguarded(held, &Error{Op: "prepare", Err: &pgconn.PgError{Code: "57014", Message: "canceling statement due to user request"}})
	if _, refused := errors.AsType[*pgconn.PgError](err); refused || !errors.Is(err, held) || !strings.Contains(err.Error(), "canceling statement") {
		t.Errorf("a slot that was given up: %v, refused %t", err, refused)
	}
	refusal := &pgconn.PgError{Code: "53400", Message: "all replication slots are in use"}
	if err := unguarded(nil, refusal); !errors.Is(err, refusal) {
		t.Errorf("a slot that the server refused: %v", err)
	}
	if err := unguarded(held, nil); err != nil {
		t.Errorf("a slot that was made after all: %v", err)
	}
}

// A slot in the making holds back the log as well: apply gives it up at source.max_retained_wal, and
// says what to do.
func TestApplyGivesUpASlotInTheMaking(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	contract(t, db, "DEFAULT")
	writer, err := db.Connect(t).Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = writer.Rollback(context.WithoutCancel(t.Context())) }()
	if _, err := writer.Exec(t.Context(), `CREATE TABLE something (i int)`); err != nil {
		t.Fatal(err)
	}
	cfg := config(t, db)
	cfg.MaxRetainedWAL, cfg.StatusInterval = 1, 10*time.Millisecond
	_, err = Apply(t.Context(), cfg, db.Server.Username(), agreeing, func(p Progress) {
		if p.Outcome == Waiting {
			db.Exec(t, `INSERT INTO subscribers_restaurants (restaurant_id, client_id) VALUES ('r1', 'c')`)
		}
	})
	if err == nil || !strings.Contains(err.Error(), "end the transaction that has run for longest") {
		t.Errorf("apply: %v", err)
	}
}

// A slot that another program reads from is a fault: the daemon cannot.
func TestStatusOfASlotThatAnotherHolds(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	contract(t, db, "DEFAULT")
	cfg := config(t, db)
	if tally, report := applied(t, cfg, db.Server.Username(), declining); !tally.Complete() {
		t.Fatal(report)
	}
	other := cfg
	other.Slot = "other" // by which it would be named
	conn, err := other.connectReplication(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	if err := startReplication(t.Context(), &cfg, conn); err != nil {
		t.Fatal(err)
	}
	s := statusOf(t, cfg, db.Server.Username())
	if len(s.Wrong) != 1 || !strings.Contains(s.Wrong[0].Text, "held by somebody else: pid") || s.Wrong[0].Fix != fmt.Sprintf("SELECT pg_terminate_backend(%d); -- or name another slot in source.slot", conn.PID()) {
		t.Errorf("%+v", s.Wrong)
	}
}
