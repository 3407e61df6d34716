package daemon

import (
	"testing"
)

// The rows of a partitioned feedback table go through what its partitions have, and the keys of its own
// are theirs: each thing that costs is named once, where it can be dropped.
func TestDoctorNamesWhatCostsOnPartitions(t *testing.T) {
	t.Parallel()
	const (
		function = "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'"
		clients  = "CREATE TABLE clients (id varchar PRIMARY KEY)"
	)
	for name, a := range map[string]ailment{
		"none":                         {breaks: partitioned()},
		"a partition's index":          {warn: "feedback.indexes", text: "p1_0_client_id_idx", cures: true, breaks: partitioned("CREATE INDEX ON p1_0 (client_id)")},
		"the table's index":            {warn: "feedback.indexes", text: "subscribers_feedback_client_id_idx: ", cures: true, breaks: partitioned("CREATE INDEX ON subscribers_feedback (client_id)")},
		"a partition's constraint":     {warn: "feedback.indexes", text: "once", cures: true, breaks: partitioned("ALTER TABLE p0 ADD CONSTRAINT once UNIQUE (id, client_id)")},
		"the table's constraint":       {warn: "feedback.indexes", text: "once: ", cures: true, breaks: partitioned("ALTER TABLE subscribers_feedback ADD CONSTRAINT once UNIQUE (id, client_id)")},
		"a partition's trigger":        {warn: "feedback.triggers", text: "t on p1_0: ", cures: true, breaks: partitioned(function, "CREATE TRIGGER t BEFORE INSERT ON p1_0 FOR EACH ROW EXECUTE FUNCTION f()")},
		"the table's trigger":          {warn: "feedback.triggers", text: "t on subscribers_feedback: ", cures: true, breaks: partitioned(function, "CREATE TRIGGER t AFTER INSERT ON subscribers_feedback FOR EACH ROW EXECUTE FUNCTION f()")},
		"a trigger that never runs":    {breaks: partitioned(function, "CREATE TRIGGER t AFTER INSERT ON p0 FOR EACH STATEMENT EXECUTE FUNCTION f()")},
		"a partition's foreign key":    {warn: "feedback.triggers", text: "foreign key known on p0: ", cures: true, breaks: partitioned(clients, "ALTER TABLE p0 ADD CONSTRAINT known FOREIGN KEY (client_id) REFERENCES clients")},
		"the table's foreign key":      {warn: "feedback.triggers", text: "foreign key known on subscribers_feedback: ", cures: true, breaks: partitioned(clients, "ALTER TABLE subscribers_feedback ADD CONSTRAINT known FOREIGN KEY (client_id) REFERENCES clients")},
		"foreign key, not partitioned": {warn: "feedback.triggers", text: "foreign key known on subscribers_feedback: ", cures: true, breaks: migrated(clients, "ALTER TABLE subscribers_feedback ADD CONSTRAINT known FOREIGN KEY (client_id) REFERENCES clients")},
	} {
		t.Run(name, func(t *testing.T) { t.Parallel(); a.comesOut(t) })
	}
}

// partitioned has the feedback table as docs/operating.md recommends, with a partition of a partition.
func partitioned(statements ...string) func(*testing.T, *patient) {
	return migrated(append([]string{
		"ALTER TABLE subscribers_feedback RENAME TO plain", "CREATE SEQUENCE ids", "GRANT USAGE ON SEQUENCE ids TO $WRITER",
		"CREATE TABLE subscribers_feedback (LIKE plain) PARTITION BY RANGE (id)", "DROP TABLE plain",
		"ALTER TABLE subscribers_feedback ADD PRIMARY KEY (id), ALTER id SET DEFAULT nextval('ids')", "GRANT SELECT, INSERT ON subscribers_feedback TO $WRITER",
		"CREATE TABLE p0 PARTITION OF subscribers_feedback FOR VALUES FROM (0) TO (100)",
		"CREATE TABLE p1 PARTITION OF subscribers_feedback DEFAULT PARTITION BY RANGE (id)", "CREATE TABLE p1_0 PARTITION OF p1 DEFAULT",
	}, statements...)...)
}
