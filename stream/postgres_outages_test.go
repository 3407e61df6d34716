package stream_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"example.com/tiffin/migrations"
)

// Whatever the feedback database refuses for a while, delivery pauses, says why, goes on when
// it can, and both sinks hold everything once.
func TestFeedbackDatabaseFaultsLoseNothing(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		patience string // lock_timeout, as the DSN may say it
		run      func(*outage)
	}{
		{"backends terminated", "20s", (*outage).backendsTerminated},
		{"deadlock", "20s", (*outage).deadlock},
		{"serialization failure", "20s", (*outage).serializationFailure},
		{"statement_timeout", "20s", (*outage).statementTimeout},
		{"table locked by an ALTER", "400ms", (*outage).tableLocked},
		{"idle_session_timeout", "20s", (*outage).idleSession},
		{"read-only", "20s", (*outage).readOnly},
		{"too many connections for the role", "20s", (*outage).connectionLimit},
		{"right revoked", "20s", (*outage).rightRevoked},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 2, map[string][]string{"r": clients(40)})
			r.asOrdinaryRole()
			r.cfg.FeedbackDSN += "&lock_timeout=" + c.patience
			o := newOutage(t, r)
			c.run(o)
			o.over("postgres")
		})
	}
}

// asOrdinaryRole makes the engine connect as a role that is no superuser and has the rights
// that `migrate --print` grants. Its name is the database's.
func (r *rig) asOrdinaryRole() {
	r.t.Helper()
	role := pgx.Identifier{r.db.Name}.Sanitize()
	r.db.Exec(r.t, "CREATE ROLE "+role+" LOGIN")
	r.t.Cleanup(func() { dropRole(context.WithoutCancel(r.t.Context()), r) })
	conn := r.db.Connect(r.t)
	if _, err := migrations.Migrate(r.t.Context(), conn, migrations.Options{FeedbackTable: r.cfg.FeedbackTable}); err != nil {
		r.t.Fatal(err)
	}
	r.db.Exec(r.t, "GRANT USAGE ON SCHEMA tiffin TO "+role, "GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA tiffin TO "+role,
		"GRANT SELECT, INSERT ON subscribers_feedback TO "+role, "GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO "+role)
	r.cfg.FeedbackDSN = r.db.Server.DSNFor(r.db.Name, "", r.db.Name)
}

func dropRole(ctx context.Context, r *rig) {
	conn, err := pgx.Connect(ctx, r.db.DSN)
	if err != nil {
		r.t.Error(err)
		return
	}
	defer func() { _ = conn.Close(ctx) }()
	role := pgx.Identifier{r.db.Name}.Sanitize()
	if _, err := conn.PgConn().Exec(ctx, "DROP OWNED BY "+role+"; DROP ROLE "+role).ReadAll(); err != nil {
		r.t.Errorf("drop the role: %v", err)
	}
}

func (o *outage) terminate() {
	o.t.Helper()
	o.db.Exec(o.t, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'tiffin'")
}

// role sets a parameter of the engine's role, and gives the engine new connections, which
// obey it.
func (o *outage) role(set string) {
	o.t.Helper()
	o.db.Exec(o.t, "ALTER ROLE "+pgx.Identifier{o.db.Name}.Sanitize()+" "+set)
	o.terminate()
}

// hold begins a transaction of somebody else.
func (o *outage) hold(statements ...string) *pgx.Conn {
	o.t.Helper()
	conn := o.db.Connect(o.t)
	for _, sql := range append([]string{"BEGIN"}, statements...) {
		if _, err := conn.Exec(o.t.Context(), sql); err != nil {
			o.t.Fatalf("%s: %v", sql, err)
		}
	}
	return conn
}

func (o *outage) end(conn *pgx.Conn, how string) {
	o.t.Helper()
	if _, err := conn.Exec(o.t.Context(), how); err != nil {
		o.t.Fatalf("%s: %v", how, err)
	}
}

// blocked waits until the engine waits for a lock.
func (o *outage) blocked() {
	o.t.Helper()
	conn := o.db.Connect(o.t)
	o.eventually("the engine waiting for a lock", func() bool {
		var n int
		err := conn.QueryRow(o.t.Context(), `SELECT count(*) FROM pg_stat_activity
			WHERE datname = current_database() AND application_name = 'tiffin' AND wait_event_type = 'Lock'`).Scan(&n)
		return err == nil && n > 0
	})
}

func (o *outage) backendsTerminated() {
	for range 3 {
		o.terminate()
		o.publish(3)
		o.settled()
	}
	o.told("terminating connection due to administrator command")
}

// deadlock: somebody locks the ledger and then the feedback table; the engine goes the other
// way and is the victim: a server looks for a deadlock once, when one has waited for so long.
func (o *outage) deadlock() {
	o.role("SET deadlock_timeout = '3s'")
	o.publish(2)
	o.settled()
	other := o.hold("SET LOCAL deadlock_timeout = '1h'", "UPDATE tiffin.progress SET updated_at = now()")
	o.publish(4)
	o.blocked()
	o.end(other, "LOCK TABLE subscribers_feedback IN ACCESS EXCLUSIVE MODE")
	o.end(other, "COMMIT")
	o.told("deadlock detected")
}

// serializationFailure: the role's transactions are serializable, and somebody else has
// updated the ledger when it is to be claimed.
func (o *outage) serializationFailure() {
	other := o.hold("UPDATE tiffin.progress SET updated_at = now()")
	o.role("SET default_transaction_isolation = 'serializable'")
	o.publish(4)
	o.blocked()
	o.end(other, "COMMIT")
	o.told("could not serialize access")
}

func (o *outage) statementTimeout() {
	o.role("SET statement_timeout = '300ms'")
	other := o.hold("LOCK TABLE subscribers_feedback IN ACCESS EXCLUSIVE MODE")
	o.publish(4)
	o.told("canceling statement due to statement timeout", "fix:", "statement_timeout")
	o.unready("statement timeout")
	o.end(other, "ROLLBACK")
}

// tableLocked: somebody adds a column in a transaction that stays open.
func (o *outage) tableLocked() {
	other := o.hold("ALTER TABLE subscribers_feedback ADD COLUMN note text")
	o.publish(4)
	o.told("canceling statement due to lock timeout", "fix:", "pg_locks")
	o.unready("lock timeout")
	o.end(other, "COMMIT")
}

// idleSession: the server ends sessions that rest, but for ours.
func (o *outage) idleSession() {
	o.role("SET idle_session_timeout = '200ms'")
	o.publish(2)
	o.settled()
	before := o.retries("postgres")
	conn := o.db.Connect(o.t)
	o.eventually("a session of the engine that rests for longer", func() bool {
		var n int
		err := conn.QueryRow(o.t.Context(), `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
			AND application_name = 'tiffin' AND state = 'idle' AND state_change < now() - interval '1 s'`).Scan(&n)
		return err == nil && n > 0
	})
	o.publish(2)
	o.settled()
	if n := o.retries("postgres"); n != before {
		o.t.Errorf("interrupted %v times by a rest", n-before)
	}
}

// readOnly is what a server that has become a standby answers.
func (o *outage) readOnly() {
	o.role("SET default_transaction_read_only = on")
	o.publish(4)
	o.told("read-only transaction")
	o.unready("read-only transaction")
	o.role("RESET default_transaction_read_only")
}

func (o *outage) connectionLimit() {
	role := pgx.Identifier{o.db.Name}.Sanitize()
	o.db.Exec(o.t, "ALTER ROLE "+role+" CONNECTION LIMIT 1")
	o.terminate()
	o.publish(4)
	o.told("too many connections for role", "fix:", "connection limit")
	o.unready("too many connections for role")
	o.db.Exec(o.t, "ALTER ROLE "+role+" CONNECTION LIMIT -1")
}

func (o *outage) rightRevoked() {
	role := pgx.Identifier{o.db.Name}.Sanitize()
	o.db.Exec(o.t, "REVOKE INSERT ON subscribers_feedback FROM "+role)
	o.publish(4)
	o.told("permission denied for table subscribers_feedback", "fix:", "migrate --print")
	o.unready("permission denied")
	o.db.Exec(o.t, "GRANT INSERT ON subscribers_feedback TO "+role)
}
