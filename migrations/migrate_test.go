package migrations

import (
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"example.com/tiffin/internal/devstack/devstacktest"
)

func TestMigrateMakesAnEmptyDatabaseCurrent(t *testing.T) {
	t.Parallel()
	conn := servers.Database(t).Connect(t)
	if err := Check(t.Context(), conn, options()); err == nil || !strings.Contains(err.Error(), "run `tiffin migrate`") {
		t.Errorf("an empty database: %v", err)
	}
	report, err := Migrate(t.Context(), conn, options())
	if err != nil {
		t.Fatal(err)
	}
	if report.From != 0 || report.To != 3 || len(report.Applied) != 3 || !report.CreatedFeedbackTable || !report.Changed() {
		t.Errorf("the first report: %+v", report)
	}
	if err := Check(t.Context(), conn, options()); err != nil {
		t.Error(err)
	}
	if report, err = Migrate(t.Context(), conn, options()); err != nil || report.Changed() || report.To != 3 {
		t.Errorf("again: %+v, %v", report, err)
	}
}

func TestSeveralProcessesMigrateAtOnce(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	reports := make([]Report, 8)
	var group errgroup.Group
	for i := range reports {
		conn := db.Connect(t)
		group.Go(func() (err error) {
			reports[i], err = Migrate(t.Context(), conn, options())
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	changed := 0
	for _, report := range reports {
		if report.Changed() {
			changed++
		}
	}
	if changed != 1 {
		t.Errorf("%d of %d processes changed the database, want 1: %+v", changed, len(reports), reports)
	}
	var locks int
	if err := db.Connect(t).QueryRow(t.Context(), "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())").Scan(&locks); err != nil || locks != 0 {
		t.Errorf("%d advisory locks are left (%v)", locks, err)
	}
}

// A pooler that gives each transaction another session is refused: the lock would stay with whoever has the session next.
func TestPoolerThatKeepsNoSessionMigratesNothing(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	pooled := strings.Replace(db.DSN, db.Server.Address(), devstacktest.PoolTransactions(t, db.DSN), 1)
	conn, err := pgx.Connect(t.Context(), pooled)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Migrate(t.Context(), conn, options())
	if !errors.Is(err, ErrUnfit) || !strings.Contains(err.Error(), "pool_mode = session") {
		t.Errorf("error %v", err)
	}
	if err := conn.Close(t.Context()); err != nil {
		t.Error(err)
	}
	var left int
	if err := db.Connect(t).QueryRow(t.Context(), "SELECT (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())) + (SELECT count(*) FROM pg_namespace WHERE nspname = 'tiffin')").Scan(&left); err != nil || left != 0 {
		t.Errorf("%d locks and schemas are left (%v)", left, err)
	}
}

// A table that was renamed, or is not the one that the settings name now, is not made anew: the rows of records that are still
// owed are in the other. Who asks for it by name gets it.
func TestTableOfAGroupThatDeliveredIsNotMadeAnew(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	conn := db.Connect(t)
	ours := options()
	ours.Group = "ours"
	if _, err := Migrate(t.Context(), conn, ours); err != nil {
		t.Fatal(err)
	}
	db.Exec(t, "INSERT INTO tiffin.trigger (consumer_group, topic, partition, record_offset, outcome, recipients) VALUES ('ours', 't', 0, 0, 'delivered', 1)",
		"ALTER TABLE subscribers_feedback RENAME TO of_yesterday")
	_, err := Migrate(t.Context(), conn, ours)
	for _, err := range []error{err, Check(t.Context(), conn, ours)} {
		if !errors.Is(err, ErrUnfit) || !strings.Contains(err.Error(), "Rename that back") {
			t.Errorf("error %v", err)
		}
	}
	for _, opts := range []Options{{FeedbackTable: ours.FeedbackTable, Group: "another"}, {FeedbackTable: pgx.Identifier{"public", "asked_for"}}} {
		if report, err := Migrate(t.Context(), conn, opts); err != nil || !report.CreatedFeedbackTable {
			t.Errorf("%+v: %+v, %v", opts, report, err)
		}
	}
}

func TestUnloggedTableIsRefused(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	conn := db.Connect(t)
	if _, err := Migrate(t.Context(), conn, options()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ change, want string }{
		{"ALTER TABLE subscribers_feedback SET UNLOGGED", "ALTER TABLE subscribers_feedback SET LOGGED"},
		{"ALTER TABLE subscribers_feedback SET LOGGED", ""},
	} {
		db.Exec(t, c.change)
		err := Check(t.Context(), conn, options())
		if c.want == "" && err != nil || c.want != "" && (!errors.Is(err, ErrUnfit) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("after %s: %v", c.change, err)
		}
	}
	db.Exec(t, "ALTER TABLE subscribers_feedback RENAME TO template", "CREATE TABLE subscribers_feedback (LIKE template INCLUDING ALL) PARTITION BY RANGE (id)",
		"CREATE UNLOGGED TABLE part PARTITION OF subscribers_feedback DEFAULT")
	if err := Check(t.Context(), conn, options()); err == nil || !strings.Contains(err.Error(), "ALTER TABLE part SET LOGGED") {
		t.Errorf("a partition: %v", err)
	}
}

func TestCurrentDatabaseNeedsNoRightToCreate(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	role, conn := as(t, db)
	if _, err := Migrate(t.Context(), conn, options()); err == nil || !strings.Contains(err.Error(), "tiffin migrate --print --role ROLE") {
		t.Errorf("without a right to create: %v", err)
	}
	script, err := SQL(Options{FeedbackTable: options().FeedbackTable, Role: role})
	if err != nil {
		t.Fatal(err)
	}
	db.Exec(t, script)
	if report, err := Migrate(t.Context(), conn, options()); err != nil || report.Changed() {
		t.Errorf("after the DBA's script: %+v, %v", report, err)
	}
	if err := Check(t.Context(), conn, options()); err != nil {
		t.Error(err)
	}
	db.Exec(t, "DROP OWNED BY "+role+"; DROP ROLE "+role)
}

func TestPrintedSQLIsWhatMigrateDoes(t *testing.T) {
	t.Parallel()
	migrated, printed := servers.Database(t), servers.Database(t)
	if _, err := Migrate(t.Context(), migrated.Connect(t), options()); err != nil {
		t.Fatal(err)
	}
	script, err := SQL(options())
	if err != nil {
		t.Fatal(err)
	}
	printed.Exec(t, script)
	printed.Exec(t, script) // and again: what is there is left alone
	const shape = `
		SELECT string_agg(format('%s.%s.%s %s %s %s', n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
		       col_description(c.oid, a.attnum)), E'\n' ORDER BY n.nspname, c.relname, a.attnum)
		  FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
		 WHERE n.nspname IN ('tiffin', 'public') AND a.attnum > 0 AND c.relkind IN ('r', 'i')`
	var one, other string
	if err := migrated.Connect(t).QueryRow(t.Context(), shape).Scan(&one); err != nil {
		t.Fatal(err)
	}
	if err := printed.Connect(t).QueryRow(t.Context(), shape).Scan(&other); err != nil {
		t.Fatal(err)
	}
	if one != other || len(one) < 1000 {
		t.Errorf("Migrate made\n%s\nthe script\n%s", one, other)
	}
	if report, err := Migrate(t.Context(), printed.Connect(t), options()); err != nil || report.Changed() {
		t.Errorf("after the script: %+v, %v", report, err)
	}
}

func TestNewerSchemaIsRefused(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	conn := db.Connect(t)
	if _, err := Migrate(t.Context(), conn, options()); err != nil {
		t.Fatal(err)
	}
	db.Exec(t, "UPDATE tiffin.schema_version SET version = 99")
	for what, err := range map[string]error{
		"Migrate": func() error { _, err := Migrate(t.Context(), conn, options()); return err }(),
		"Check":   Check(t.Context(), conn, options()),
	} {
		if !errors.Is(err, ErrNewerSchema) || !errors.Is(err, ErrUnfit) || !strings.Contains(err.Error(), "has version 99, this program knows up to 3") {
			t.Errorf("%s: %v", what, err)
		}
	}
	script, err := SQL(options())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), script); err == nil || !strings.Contains(err.Error(), "has version 99, this program knows up to 3") {
		t.Errorf("the printed script: %v", err)
	}
}

func TestFailedMigrationLeavesNothingAndMayBeRunAgain(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	conn := db.Connect(t)
	// Something of that name is in the way of the last statement of the step.
	db.Exec(t, "CREATE SCHEMA tiffin", "CREATE TABLE tiffin.trigger (x int)")
	if _, err := Migrate(t.Context(), conn, options()); err == nil || !strings.Contains(err.Error(), `001_ledger.sql`) {
		t.Errorf("with a table in the way: %v", err)
	}
	db.Exec(t, "DROP TABLE tiffin.trigger")
	if report, err := Migrate(t.Context(), conn, options()); err != nil || report.From != 0 || report.To != 3 {
		t.Errorf("with the table gone: %+v, %v", report, err)
	}
}

func TestFeedbackTableOfOthersIsLeftAlone(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	conn := db.Connect(t)
	db.Exec(t, `CREATE SCHEMA "Their Own"`, `CREATE TABLE "Their Own"."feed.back" (
		id serial PRIMARY KEY, restaurant_id varchar NOT NULL, adv_campaign_id text NOT NULL, adv_campaign_content text NOT NULL,
		adv_campaign_owner text NOT NULL, adv_campaign_owner_contact text NOT NULL, adv_campaign_datetime_start int8 NOT NULL,
		adv_campaign_datetime_end int8 NOT NULL, datetime_created int8 NOT NULL, client_id text NOT NULL, trigger_datetime_created int8 NOT NULL,
		feedback varchar, seen boolean NOT NULL DEFAULT false, note text)`)
	opts := Options{FeedbackTable: pgx.Identifier{"Their Own", "feed.back"}}
	report, err := Migrate(t.Context(), conn, opts)
	if err != nil || report.CreatedFeedbackTable {
		t.Errorf("%+v, %v", report, err)
	}
	if err := Check(t.Context(), conn, opts); err != nil {
		t.Error(err)
	}
	if _, err := Migrate(t.Context(), conn, Options{FeedbackTable: pgx.Identifier{"nowhere", "t"}}); err == nil || !strings.Contains(err.Error(), "feedback.table") {
		t.Errorf("a feedback table in no schema: %v", err)
	}
	if _, err := Migrate(t.Context(), conn, Options{}); err == nil {
		t.Error("no feedback table was accepted")
	}
}
