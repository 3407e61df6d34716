package devstack

import "testing"

// After a failover the timeline is another, and what the standby had not got is lost.
func TestFailoverLosesWhatTheStandbyHadNot(t *testing.T) {
	t.Parallel()
	s := startPostgres(t, PostgresOptions{})
	dsn := s.DSN("postgres")
	query(t, dsn, "CREATE TABLE kept ()")
	query(t, dsn, "SELECT pg_create_logical_replication_slot('slot', 'pgoutput')::text")
	if err := s.SaveStandby(t.Context()); err != nil {
		t.Fatal(err)
	}
	query(t, dsn, "CREATE TABLE lost ()")
	if err := s.Failover(t.Context()); err != nil {
		t.Fatal(err)
	}
	const state = `SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8) || ' ' || coalesce(to_regclass('kept')::text, '-') || ' ' ||
		coalesce(to_regclass('lost')::text, '-') || ' ' || (SELECT count(*) FROM pg_replication_slots)`
	if got := query(t, dsn, state); got != "00000002 kept - 0" {
		t.Fatalf("timeline, tables and slots: %s", got)
	}
}
