package stream

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"example.com/tiffin/internal/devstack"
	"example.com/tiffin/migrations"
)

// On a real Postgres the process dies before and after every statement that it sends, and every
// statement's answer is lost, in turn: what is seen of the feedback database then is whole, and in the
// end both sinks hold the same, exactly once. (In TestCrashAtEveryStepLeavesBothSinksEqual a
// batch is one effect; here it is its statements, those of the writer as those of the ledger.)
func TestCrashAtEveryStatementLeavesBothSinksEqual(t *testing.T) {
	t.Parallel()
	const atOnce = 4
	server, err := devstack.StartPostgres(t.Context(), devstack.PostgresOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	var kinds []crashKind
	for i := range atOnce {
		kinds = append(kinds, crashKind{database: newCrashDatabase(t, server, fmt.Sprint("crash", i))})
	}
	effects := kinds[0].effects(t, nil)
	points := kinds[0].points(effects)
	statements := 0
	for _, n := range effects {
		statements += n
	}
	t.Logf("%s: %d statements, %d crash points: %v", t.Name(), statements, len(points), effects)
	for _, name := range []string{"begin", "nextval", "insert", "COPY", "CopyDone", "currval", "advance", "manifest", "commit", "claim", "enter", "give up"} {
		if effects[name] == 0 {
			t.Errorf("%s was never a statement: the test does not see it", name)
		}
	}
	for i, kind := range kinds {
		t.Run(fmt.Sprint("part ", i), func(t *testing.T) {
			t.Parallel()
			size := (len(points) + atOnce - 1) / atOnce
			kind.take(t, nil, points[min(i*size, len(points)):min((i+1)*size, len(points))])
		})
	}
}

// crashDatabase is a feedback database for one crashRun after the other.
type crashDatabase struct{ dsn string }

var crashTable = pgx.Identifier{"public", "subscribers_feedback"}

func newCrashDatabase(t *testing.T, server *devstack.Postgres, name string) *crashDatabase {
	t.Helper()
	if err := server.CreateDatabase(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	d := &crashDatabase{dsn: server.DSN(name)}
	conn := d.connect(t)
	if _, err := migrations.Migrate(t.Context(), conn, migrations.Options{FeedbackTable: crashTable}); err != nil {
		t.Fatal(err)
	}
	return d
}

// connect makes a connection that no fault happens to.
func (d *crashDatabase) connect(t *testing.T) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), d.dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	return conn
}

// begin empties the database for a run.
func (d *crashDatabase) begin(t *testing.T, f *fault) crashSink {
	t.Helper()
	s := &statementSink{database: d, fault: f, conn: d.connect(t)}
	if _, err := s.conn.Exec(t.Context(), `DELETE FROM tiffin.progress; DELETE FROM tiffin.trigger; DELETE FROM subscribers_feedback`); err != nil {
		t.Fatal(err)
	}
	return s
}

// statementSink is the real store, whose connections see every statement.
type statementSink struct {
	database *crashDatabase
	fault    *fault
	conn     *pgx.Conn // for questions about it
}

func (s *statementSink) open(ctx context.Context, c *Config) (store, error) {
	c.FeedbackTable = crashTable
	cfg, err := pgxpool.ParseConfig(s.database.dsn)
	if err != nil {
		return nil, err
	}
	dial := cfg.ConnConfig.DialFunc
	cfg.ConnConfig.DialFunc = dialStatements(s.fault, dial)
	return openPool(ctx, c, cfg)
}

// lines are the rows as records; one that the manifest does not lead to is of no message.
func (s *statementSink) lines(t *testing.T) []string {
	t.Helper()
	rows, err := s.conn.Query(t.Context(), `SELECT format('in/%s/%s %s {"restaurant_id":%s,"adv_campaign_id":%s,"adv_campaign_content":%s,"adv_campaign_owner":%s,'
			'"adv_campaign_owner_contact":%s,"adv_campaign_datetime_start":%s,"adv_campaign_datetime_end":%s,"datetime_created":%s,"client_id":%s,"trigger_datetime_created":%s}',
		t.partition, t.record_offset, client_id, to_json(f.restaurant_id), to_json(f.adv_campaign_id), to_json(adv_campaign_content), to_json(adv_campaign_owner),
		to_json(adv_campaign_owner_contact), adv_campaign_datetime_start, adv_campaign_datetime_end, datetime_created, to_json(client_id), f.trigger_datetime_created)
		FROM subscribers_feedback f LEFT JOIN tiffin.trigger t ON t.feedback_ids @> f.id`)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(lines)
	return lines
}

func (s *statementSink) next(t *testing.T) map[int32]int64 {
	t.Helper()
	rows, err := s.conn.Query(t.Context(), `SELECT partition, next_offset FROM tiffin.progress`)
	if err != nil {
		t.Fatal(err)
	}
	at := map[int32]int64{}
	var partition int32
	var next int64
	if _, err = pgx.ForEachRow(rows, []any{&partition, &next}, func() error { at[partition] = next; return nil }); err != nil {
		t.Fatal(err)
	}
	return at
}

// whole says that nothing is half written: the manifest reaches exactly to where the ledger stands,
// and leads to exactly the rows that there are, as many of each message as it says.
func (s *statementSink) whole(t *testing.T) {
	t.Helper()
	var ledger, rows, counts int
	if err := s.conn.QueryRow(t.Context(), `SELECT
		(SELECT count(*) FROM tiffin.progress p WHERE next_offset <> (SELECT count(*) FROM tiffin.trigger t WHERE t.partition = p.partition)),
		(SELECT count(*) FROM subscribers_feedback f WHERE (SELECT count(*) FROM tiffin.trigger t WHERE t.feedback_ids @> f.id) <> 1),
		(SELECT count(*) FROM tiffin.trigger t WHERE recipients <> (SELECT count(*) FROM subscribers_feedback f WHERE t.feedback_ids @> f.id))`).
		Scan(&ledger, &rows, &counts); err != nil {
		t.Fatal(err)
	}
	if ledger+rows+counts > 0 {
		t.Errorf("half written: %d partitions whose manifest does not reach to the ledger, %d rows that the manifest does not lead to, "+
			"%d messages with another number of rows than it says", ledger, rows, counts)
	}
}
