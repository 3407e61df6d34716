package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"example.com/tiffin/cmd/internal/settings"
	"example.com/tiffin/internal/checkup"
	"example.com/tiffin/internal/devstack"
	"example.com/tiffin/internal/devstack/devstacktest"
)

// patient is a set of servers on which all is well, until a case breaks one thing.
type patient struct {
	*world
	reader, writer string // roles with only what the README grants
	server         *devstack.Postgres
}

func newPatient(t *testing.T, server *devstack.Postgres) *patient {
	t.Helper()
	p := &patient{world: newWorldOn(t, devstacktest.NewDatabase(t, server, servers.Unique(t, "doc"))), server: server}
	p.reader, p.writer = servers.Unique(t, "reader"), servers.Unique(t, "writer")
	p.db.Exec(t, "CREATE ROLE "+p.reader+" LOGIN REPLICATION", "GRANT SELECT ON subscribers_restaurants TO "+p.reader,
		"CREATE PUBLICATION tiffin FOR TABLE subscribers_restaurants",
		"CREATE ROLE "+p.writer+" LOGIN", "GRANT CREATE ON SCHEMA public TO "+p.writer, "GRANT CREATE ON DATABASE "+p.db.Name+" TO "+p.writer)
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		conn, err := pgx.Connect(ctx, p.db.DSN)
		if err != nil {
			t.Error(err)
			return
		}
		_, err = conn.PgConn().Exec(ctx, fmt.Sprintf("DROP OWNED BY %[1]s, %[2]s CASCADE; DROP ROLE %[1]s, %[2]s", p.reader, p.writer)).ReadAll()
		if err := errors.Join(err, conn.Close(ctx)); err != nil {
			t.Error(err)
		}
	})
	p.set("TIFFIN_SOURCE_DSN", server.DSNFor(p.reader, "", p.db.Name))
	p.set("TIFFIN_FEEDBACK_DSN", server.DSNFor(p.writer, "", p.db.Name))
	return p
}

func (p *patient) set(variable, value string) { p.environ = append(p.environ, variable+"="+value) }

// examine returns the checks that fail, and those that are worth a warning.
func examine(t *testing.T, environ []string) (fails, warns []string, lines map[string]checkup.Line) {
	t.Helper()
	return examineBy(t, environ, nil)
}

// examineBy is the same, by a clock that may look at what was told so far.
func examineBy(t *testing.T, environ []string, clock func(lines map[string]checkup.Line) time.Time) (fails, warns []string, lines map[string]checkup.Line) {
	t.Helper()
	s, err := settings.Load(settings.Input{Environ: last(environ), Needs: ExamineNeeds()})
	if err != nil {
		t.Fatal(err)
	}
	lines = map[string]checkup.Line{}
	sheet := checkup.NewSheet(func(l checkup.Line) {
		lines[l.Check] = l
		if l.Text == "" || (l.Fix == "") != (l.Verdict == checkup.OK || l.Verdict == checkup.Skip) {
			t.Errorf("%+v: no text, or a fix for nothing, or none", l)
		}
		if l.Fix != "" && !isDone(l) {
			t.Errorf("%s: no command, or one that cannot be pasted: %s", l.Check, l.Fix)
		}
		switch l.Verdict {
		case checkup.Fail:
			fails = append(fails, l.Check)
		case checkup.Warn:
			warns = append(warns, l.Check)
		default:
		}
	})
	if clock != nil {
		sheet.Clock = func() time.Time { return clock(lines) }
	}
	if err := Examine(t.Context(), s, slog.New(slog.DiscardHandler), sheet); err != nil {
		t.Fatal(err)
	}
	return fails, warns, lines
}

// last keeps the last value of each variable.
func last(environ []string) []string {
	values, order := map[string]string{}, []string(nil)
	for _, e := range environ {
		name, value, _ := strings.Cut(e, "=")
		if _, seen := values[name]; !seen {
			order = append(order, name)
		}
		values[name] = value
	}
	for i, name := range order {
		order[i] = name + "=" + values[name]
	}
	return order
}

// ailment is one thing that is broken, and the line that must tell it.
type ailment struct {
	fail, warn string
	text, fix  string // what the line must say
	cures      bool   // its fix, run by the owner, mends it
	breaks     func(t *testing.T, p *patient)
}

func sql(statements ...string) func(*testing.T, *patient) {
	return func(t *testing.T, p *patient) {
		t.Helper()
		for _, s := range statements {
			p.db.Exec(t, strings.NewReplacer("$READER", p.reader, "$WRITER", p.writer, "$SLOT", p.db.Slot, "$DATABASE", p.db.Name).Replace(s))
		}
	}
}

func setting(variable, value string) func(*testing.T, *patient) {
	return func(_ *testing.T, p *patient) { p.set(variable, value) }
}

// Each check sees exactly the thing that is broken, and all others that can be judged stay as they were.
func TestDoctorNamesExactlyWhatIsBroken(t *testing.T) {
	t.Parallel()
	for name, a := range map[string]ailment{
		"source: name unknown":   {fail: "source.dns", breaks: setting("TIFFIN_SOURCE_DSN", "postgres://u@nohost.invalid/d")},
		"source: nobody listens": {fail: "source.tcp", fix: "nc -vz 127.0.0.1 1", breaks: setting("TIFFIN_SOURCE_DSN", "postgres://u@127.0.0.1:1/d")},
		"source: TLS demanded": {fail: "source.tls", breaks: func(_ *testing.T, p *patient) {
			p.set("TIFFIN_SOURCE_DSN", p.server.DSNFor(p.reader, "", p.db.Name)+"&sslmode=require")
		}},
		"source: role unknown": {fail: "source.login", fix: `ALTER ROLE "nobody_knows" LOGIN;`, breaks: func(_ *testing.T, p *patient) {
			p.set("TIFFIN_SOURCE_DSN", p.server.DSNFor("nobody_knows", "", p.db.Name))
		}},
		"source: too old": {fail: "source.version", text: "PostgreSQL 13", fix: "PostgreSQL 14 or newer", breaks: pretends("$READER", "130010")},
		"source: no failover yet": {fail: "source.version", breaks: func(t *testing.T, p *patient) {
			t.Helper()
			pretends("$READER", "160001")(t, p)
			p.set("TIFFIN_SOURCE_FAILOVER", "true")
		}},
		"source: no replication":   {fail: "source.replication_right", cures: true, breaks: sql("ALTER ROLE $READER NOREPLICATION")},
		"source: a pooler":         {fail: "source.replication_connection", breaks: throughAPooler},
		"source: no table":         {fail: "source.table", breaks: sql("DROP TABLE subscribers_restaurants")},
		"source: table unreadable": {fail: "source.table_right", cures: true, breaks: sql("REVOKE SELECT ON subscribers_restaurants FROM $READER")},
		"source: rows hidden":      {fail: "source.table_right", cures: true, breaks: sql("ALTER TABLE subscribers_restaurants ENABLE ROW LEVEL SECURITY")},
		"source: column missing":   {fail: "source.columns", breaks: sql("ALTER TABLE subscribers_restaurants RENAME client_id TO client")},
		"source: column unfit":     {fail: "source.columns", breaks: sql("ALTER TABLE subscribers_restaurants ALTER client_id TYPE jsonb USING to_jsonb(client_id)")},
		"source: identity":         {fail: "source.replica_identity", cures: true, breaks: sql("ALTER TABLE subscribers_restaurants REPLICA IDENTITY NOTHING")},
		"source: no key":           {fail: "source.replica_identity", cures: true, breaks: sql("ALTER TABLE subscribers_restaurants DROP CONSTRAINT subscribers_restaurants_pkey")},
		"source: a part's identity": {fail: "source.replica_identity", cures: true, breaks: sql("DROP TABLE subscribers_restaurants",
			"CREATE TABLE subscribers_restaurants (id int, client_id text, restaurant_id text) PARTITION BY LIST (restaurant_id)", "ALTER TABLE subscribers_restaurants REPLICA IDENTITY FULL",
			"CREATE TABLE p1 PARTITION OF subscribers_restaurants (PRIMARY KEY (id)) FOR VALUES IN ('r1')", "CREATE TABLE p2 PARTITION OF subscribers_restaurants DEFAULT",
			"ALTER PUBLICATION tiffin ADD TABLE subscribers_restaurants", "ALTER PUBLICATION tiffin SET (publish_via_partition_root = true)", "GRANT SELECT ON subscribers_restaurants TO $READER")},
		"source: publication":      {fail: "source.publication", cures: true, breaks: sql("DROP PUBLICATION tiffin")},
		"source: half published":   {fail: "source.publication", cures: true, breaks: sql("ALTER PUBLICATION tiffin SET (publish = 'insert')")},
		"source: foreign slot":     {fail: "source.slot", breaks: sql("SELECT pg_create_logical_replication_slot('$SLOT', 'test_decoding')")},
		"source: slot held":        {fail: "source.slot", fix: "SELECT pg_terminate_backend(", breaks: slotHeldBy("another program")},
		"source: rows filtered":    {fail: "source.publication", cures: true, breaks: published("WHERE (restaurant_id <> 'r9')")},
		"source: columns left out": {fail: "source.publication", cures: true, breaks: published("(id, restaurant_id)")},
		"source: log held back": {warn: "source.retained_wal", breaks: func(t *testing.T, p *patient) {
			t.Helper()
			sql("SELECT pg_create_logical_replication_slot('$SLOT', 'pgoutput')", "SELECT pg_logical_emit_message(true, 'filler', repeat('x', 2000000))")(t, p)
			p.set("TIFFIN_SOURCE_MAX_RETAINED_WAL", "3MiB")
		}},
		"source: one host away": {warn: "source.tcp", breaks: func(_ *testing.T, p *patient) {
			p.set("TIFFIN_SOURCE_DSN", strings.Replace(p.server.DSNFor(p.reader, "", p.db.Name), "@", "@127.0.0.1:1,", 1))
		}},
		"source: one host unknown": {warn: "source.dns", breaks: func(_ *testing.T, p *patient) {
			p.set("TIFFIN_SOURCE_DSN", strings.Replace(p.server.DSNFor(p.reader, "", p.db.Name), p.server.Address(), p.server.Address()+",nohost.invalid:1", 1))
		}},
		"source: needed columns alone": {breaks: sql("REVOKE SELECT ON subscribers_restaurants FROM $READER", "GRANT SELECT (id, restaurant_id, client_id) ON subscribers_restaurants TO $READER",
			"DROP PUBLICATION tiffin", "CREATE PUBLICATION tiffin FOR TABLE subscribers_restaurants (id, restaurant_id, client_id)")},
		"source: column unreadable": {fail: "source.table_right", cures: true, breaks: sql("REVOKE SELECT ON subscribers_restaurants FROM $READER", "GRANT SELECT (restaurant_id, client_id) ON subscribers_restaurants TO $READER")},
		"source: list outgrown": {fail: "source.publication", breaks: sql("DROP PUBLICATION tiffin", "CREATE PUBLICATION tiffin FOR TABLE subscribers_restaurants (id, restaurant_id, client_id)",
			"ALTER TABLE subscribers_restaurants REPLICA IDENTITY FULL")},
		"source: slot never made": {fail: "source.slot", cures: true, breaks: setting("TIFFIN_SOURCE_SETUP", "never")},

		"feedback: name unknown":   {fail: "feedback.dns", breaks: setting("TIFFIN_FEEDBACK_DSN", "postgres://u@nohost.invalid/d")},
		"feedback: nobody listens": {fail: "feedback.tcp", breaks: setting("TIFFIN_FEEDBACK_DSN", "postgres://u@127.0.0.1:1/d")},
		"feedback: TLS demanded": {fail: "feedback.tls", breaks: func(_ *testing.T, p *patient) {
			p.set("TIFFIN_FEEDBACK_DSN", p.server.DSNFor(p.writer, "", p.db.Name)+"&sslmode=require")
		}},
		"feedback: a pooler": {fail: "feedback.session", fix: "pool_mode = session", breaks: func(t *testing.T, p *patient) {
			t.Helper()
			address := devstacktest.PoolTransactions(t, p.server.DSNFor(p.writer, "", p.db.Name))
			p.set("TIFFIN_FEEDBACK_DSN", strings.Replace(p.server.DSNFor(p.writer, "", p.db.Name), p.server.Address(), address, 1))
		}},
		"feedback: read-only": {fail: "feedback.primary", cures: true, breaks: sql("ALTER ROLE $WRITER SET default_transaction_read_only = on")},
		"feedback: unlogged":  {fail: "feedback.logged", cures: true, breaks: migrated("ALTER TABLE subscribers_feedback SET UNLOGGED")},
		"feedback: ids of no sequence": {fail: "feedback.columns", fix: "SELECT setval(", breaks: migrated("ALTER TABLE subscribers_feedback ALTER id DROP IDENTITY",
			"ALTER TABLE subscribers_feedback ALTER id SET DEFAULT (random() * 1e9)::bigint")},
		"feedback: table renamed": {fail: "feedback.table", text: "its rows are in a table of another name", fix: "set feedback.table: ", breaks: migrated(
			"INSERT INTO tiffin.trigger (consumer_group, topic, partition, record_offset, outcome, recipients) VALUES ('tiffin', 'campaigns', 0, 0, 'delivered', 1)",
			"ALTER TABLE subscribers_feedback RENAME TO of_yesterday")},
		"feedback: too old":           {fail: "feedback.version", text: "PostgreSQL 13", fix: "PostgreSQL 14 or newer", breaks: pretends("$WRITER", "130010")},
		"feedback: database unknown":  {fail: "feedback.login", fix: " -l", breaks: func(_ *testing.T, p *patient) { p.set("TIFFIN_FEEDBACK_DSN", p.server.DSNFor(p.writer, "", "no_such")) }},
		"feedback: another encoding":  {fail: "feedback.encoding", text: "WIN1251", breaks: encoded("WIN1251")},
		"feedback: not migrated":      {fail: "feedback.schema", breaks: setting("TIFFIN_FEEDBACK_MIGRATE", "false")},
		"feedback: may not migrate":   {fail: "feedback.schema", fix: "tiffin migrate --print --role writer_", breaks: sql("REVOKE CREATE ON DATABASE $DATABASE FROM $WRITER")},
		"feedback: no table":          {fail: "feedback.table", breaks: migrated("DROP TABLE subscribers_feedback", "REVOKE CREATE ON SCHEMA public FROM $WRITER, PUBLIC")},
		"feedback: column missing":    {fail: "feedback.columns", cures: true, breaks: migrated("ALTER TABLE subscribers_feedback DROP adv_campaign_owner")},
		"feedback: id no number":      {fail: "feedback.columns", fix: "tiffin migrate --print", breaks: migrated("ALTER TABLE subscribers_feedback ALTER id DROP IDENTITY", "ALTER TABLE subscribers_feedback ALTER id TYPE text")},
		"feedback: costly constraint": {warn: "feedback.indexes", cures: true, breaks: migrated("ALTER TABLE subscribers_feedback ADD CONSTRAINT \"Once\" UNIQUE (id, client_id)")},
		"feedback: right missing":     {fail: "feedback.rights", cures: true, breaks: migrated("REVOKE INSERT ON subscribers_feedback FROM $WRITER")},
		"feedback: costly index":      {warn: "feedback.indexes", cures: true, breaks: migrated("CREATE INDEX ON subscribers_feedback (client_id)")},
		"feedback: trigger": {warn: "feedback.triggers", cures: true, breaks: migrated("CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
			"CREATE TRIGGER t BEFORE INSERT ON subscribers_feedback FOR EACH ROW EXECUTE FUNCTION f()")},
		"feedback: rows refused": {fail: "feedback.row_security", cures: true, breaks: migrated("ALTER TABLE subscribers_feedback ENABLE ROW LEVEL SECURITY")},

		"index: no room to spill": {fail: "index.spill_dir", fix: "set index.spill_dir: ", breaks: setting("TIFFIN_INDEX_SPILL_DIR", "/nowhere")},
		"http: address taken": {fail: "http.listen", breaks: func(t *testing.T, p *patient) {
			t.Helper()
			other, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = other.Close() })
			p.set("TIFFIN_HTTP_LISTEN", other.Addr().String())
		}},
	} {
		t.Run(name, func(t *testing.T) { t.Parallel(); a.comesOut(t) })
	}
}

// comesOut breaks the thing on servers where all is well, and mends it by the fix.
func (a ailment) comesOut(t *testing.T) {
	t.Helper()
	p := newPatient(t, servers.Postgres(t))
	fails, healthy, _ := examine(t, p.environ)
	if len(fails) > 0 {
		t.Fatalf("all is well, and these fail: %v", fails)
	}
	a.breaks(t, p)
	line := a.judge(t, p.environ, healthy)
	if a.cures {
		sql(statementsOf(line.Fix)...)(t, p)
		ailment{}.judge(t, p.environ, healthy)
	}
}

// throughAPooler leads through what knows nothing of replication, as pgbouncer does.
func throughAPooler(t *testing.T, p *patient) {
	t.Helper()
	pooler, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pooler.Close() })
	go func() {
		for {
			client, err := pooler.Accept()
			if err != nil {
				return
			}
			go pool(client, p.server.Address())
		}
	}()
	direct := p.server.DSNFor(p.reader, "", p.db.Name)
	p.set("TIFFIN_SOURCE_DSN", strings.Replace(direct, p.server.Address(), pooler.Addr().String(), 1))
}

func pool(client net.Conn, to string) {
	defer func() { _ = client.Close() }()
	startup := make([]byte, 4096)
	n, err := client.Read(startup)
	if err != nil || bytes.Contains(startup[:n], []byte("replication\x00")) {
		return
	}
	server, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	go func() { _, _ = io.Copy(client, server); _ = client.Close() }()
	_, _ = server.Write(startup[:n])
	_, _ = io.Copy(server, client)
}

// migrated has the database as a daemon leaves it, and then altered by its owner.
func migrated(statements ...string) func(*testing.T, *patient) {
	return func(t *testing.T, p *patient) {
		t.Helper()
		p.db.Exec(t, migrationScript(t, p.writer), "REVOKE CREATE ON DATABASE "+p.db.Name+" FROM "+p.writer)
		if fails, _, _ := examine(t, p.environ); len(fails) > 0 {
			t.Fatalf("migrated, and these fail: %v", fails)
		}
		sql(statements...)(t, p)
	}
}

// judge holds what the doctor says against what is broken, and returns the line that tells it; healthy
// are the warnings that were there before.
func (a ailment) judge(t *testing.T, environ, healthy []string) checkup.Line {
	t.Helper()
	return a.judgeBy(t, environ, healthy, nil)
}

func (a ailment) judgeBy(t *testing.T, environ, healthy []string, clock func(lines map[string]checkup.Line) time.Time) checkup.Line {
	t.Helper()
	fails, warns, lines := examineBy(t, environ, clock)
	warns = slices.DeleteFunc(warns, func(w string) bool { return slices.Contains(healthy, w) && w != a.warn })
	want := func(what string) []string {
		if what == "" {
			return nil
		}
		return []string{what}
	}
	if !slices.Equal(fails, want(a.fail)) || !slices.Equal(warns, want(a.warn)) {
		t.Errorf("fails %v, warns %v: want %q and %q\n%+v", fails, warns, a.fail, a.warn, lines)
	}
	line := lines[a.fail+a.warn]
	if !strings.Contains(line.Text, a.text) || !strings.Contains(line.Fix, a.fix) {
		t.Errorf("%+v: want %q, %q", line, a.text, a.fix)
	}
	needing := unjudged(a.fail)
	for _, l := range lines {
		if skipped := l.Verdict == checkup.Skip; skipped != slices.Contains(needing, l.Check) {
			t.Errorf("%s, where %q fails: skipped is %t: %s", l.Check, a.fail, skipped, l.Text)
		}
	}
	if told := fmt.Sprint(lines); strings.Contains(told, wrongPassword) || strings.Contains(told, rightPassword) {
		t.Errorf("a password is told: %s", told)
	}
	return line
}

// The passwords of these tests, which are nowhere told.
const (
	rightPassword = "sesame"
	wrongPassword = "hunter2"
)

// What only another server can have wrong.
func TestDoctorNamesWhatIsWrongWithAServer(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		ailment
		settings map[string]string
	}{
		"no logical log":    {ailment{fail: "source.wal_level"}, map[string]string{"wal_level": "replica"}},
		"synchronous":       {ailment{fail: "source.synchronous_standby_names"}, map[string]string{"synchronous_standby_names": "*", "synchronous_commit": "local"}},
		"no walsenders":     {ailment{fail: "source.wal_senders"}, map[string]string{"max_wal_senders": "0"}},
		"no slots":          {ailment{fail: "source.replication_slots"}, map[string]string{"max_replication_slots": "0"}},
		"last slot taken":   {ailment{fail: "source.replication_slots", text: "1 of 1", breaks: sql("SELECT pg_create_logical_replication_slot('of_another', 'test_decoding')")}, map[string]string{"max_replication_slots": "1"}},
		"last sender taken": {ailment{fail: "source.wal_senders", text: "1 of 1", breaks: walsender}, map[string]string{"max_wal_senders": "1"}},
		"last slot is ours": {ailment{breaks: sql("SELECT pg_create_logical_replication_slot('$SLOT', 'pgoutput')")}, map[string]string{"max_replication_slots": "1"}},
		"last sender is ours": {
			ailment{breaks: func(t *testing.T, p *patient) { t.Helper(); slotHeldBy("tiffin/"+p.db.Slot)(t, p) }},
			map[string]string{"max_wal_senders": "1"},
		},
		"room for one more": {ailment{breaks: walsender}, map[string]string{"max_wal_senders": "2"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPatient(t, startPostgres(t, devstack.PostgresOptions{Settings: c.settings}))
			// A good server is any other: the feedback database stays on it, too.
			_, healthy, _ := examine(t, newPatient(t, servers.Postgres(t)).environ)
			if c.breaks != nil {
				c.breaks(t, p)
			}
			c.judge(t, p.environ, healthy)
		})
	}
}

// A certificate of another authority, a name that it does not bear, a password that is not the role's.
func TestDoctorNamesTheCertificate(t *testing.T) {
	t.Parallel()
	options := devstack.PostgresOptions{TLS: true, Auth: devstack.AuthSCRAM}
	server, other := startPostgres(t, options), startPostgres(t, options)
	impostor := devstacktest.OpenRouteFrom(t, "127.0.0.2:0", server.Address()).Address()
	p := newPatient(t, server)
	here, foreign := server.Address(), other.CAFile()
	dsn := func(area, hosts, password, ca string) string {
		role := map[string]string{"source": p.reader, "feedback": p.writer}[area]
		return fmt.Sprintf("TIFFIN_%s_DSN=postgres://%s:%s@%s/%s?sslmode=verify-full&sslrootcert=%s", strings.ToUpper(area), role, password, hosts, p.db.Name, url.QueryEscape(ca))
	}
	for area, role := range map[string]string{"source": p.reader, "feedback": p.writer} {
		p.db.Exec(t, "ALTER ROLE "+role+" PASSWORD '"+rightPassword+"'")
		p.environ = append(p.environ, dsn(area, here, rightPassword, server.CAFile()))
	}
	fails, healthy, lines := examine(t, p.environ)
	if len(fails) > 0 {
		t.Fatalf("all is well, and these fail: %v\n%+v", fails, lines)
	}
	for _, area := range []string{"source", "feedback"} {
		for name, c := range map[string]struct {
			ailment
			dsn string
		}{
			"for a week":        {ailment{warn: area + ".tls", text: "valid until"}, dsn(area, here, rightPassword, server.CAFile())},
			"foreign authority": {ailment{fail: area + ".tls", text: "not trusted"}, dsn(area, here, rightPassword, foreign)},
			"wrong name":        {ailment{fail: area + ".tls", text: "not for 127.0.0.2"}, dsn(area, impostor, rightPassword, server.CAFile())},
			// Of several hosts each is looked at, not only the first, and one that serves will do.
			"second of a wrong name":        {ailment{warn: area + ".tls", text: "not for 127.0.0.2"}, dsn(area, here+","+impostor, rightPassword, server.CAFile())},
			"second of a foreign authority": {ailment{warn: area + ".tls", text: "not trusted"}, dsn(area, here+","+other.Address(), rightPassword, server.CAFile())},
			"wrong password":                {ailment{fail: area + ".login", text: "password authentication failed", fix: " LOGIN PASSWORD '…';"}, dsn(area, here, wrongPassword, server.CAFile())},
		} {
			t.Run(area+": "+name, func(t *testing.T) { t.Parallel(); c.judge(t, append(slices.Clone(p.environ), c.dsn), healthy) })
		}
	}
}

// encoded leads to a feedback database of the writer's own in another encoding.
func encoded(encoding string) func(*testing.T, *patient) {
	return func(t *testing.T, p *patient) {
		name := servers.Unique(t, "e")
		name = name[len(name)-min(len(name), 40):]
		conn := p.db.Connect(t)
		if _, err := conn.Exec(t.Context(), fmt.Sprintf("CREATE DATABASE %q OWNER %s ENCODING '%s' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'", name, p.writer, encoding)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { // before the role goes
			if _, err := conn.Exec(context.WithoutCancel(t.Context()), fmt.Sprintf("DROP DATABASE %q WITH (FORCE)", name)); err != nil {
				t.Error(err)
			}
		})
		p.set("TIFFIN_FEEDBACK_DSN", p.server.DSNFor(p.writer, "", name))
	}
}
