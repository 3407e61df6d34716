package stream_test

import (
	"testing"
)

// A role or a database may say synchronous_commit = off, and a crash of the server would lose rows
// whose records are out, or a claim of which others have heard. Every session that writes says
// otherwise for itself; what is stronger stays. Triggers tell what is in force while they write.
func TestCommitsAreFlushedWhateverTheRoleSays(t *testing.T) {
	t.Parallel()
	for role, want := range map[string]string{"off": "on", "local": "on", "on": "on", "remote_write": "remote_write", "remote_apply": "remote_apply"} {
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 1, map[string][]string{"small": clients(2), "large": clients(30)})
			r.cfg.MaxTransactionRecords = 10
			r.asOrdinaryRole()
			r.db.Exec(t, "ALTER ROLE "+r.db.Name+" SET synchronous_commit = '"+role+"'", `CREATE TABLE in_force (rows text, setting text)`,
				`CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
				$$ BEGIN INSERT INTO in_force SELECT DISTINCT restaurant_id, current_setting('synchronous_commit') FROM new; RETURN NULL; END $$`,
				`CREATE TRIGGER note AFTER INSERT ON subscribers_feedback REFERENCING NEW TABLE AS new FOR EACH STATEMENT EXECUTE FUNCTION note()`)
			r.untilNow() // the schema is there
			r.db.Exec(t, `CREATE FUNCTION note_claim() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
				$$ BEGIN INSERT INTO in_force VALUES ('ledger', current_setting('synchronous_commit')); RETURN NULL; END $$`,
				`CREATE TRIGGER note AFTER UPDATE ON tiffin.progress FOR EACH ROW EXECUTE FUNCTION note_claim()`)
			r.publish(0, campaign("small", "s").json(t), campaign("large", "l").json(t))
			r.untilNow()
			for _, rows := range []string{"small", "large"} {
				if n := r.number(`SELECT count(*) FROM in_force WHERE rows = '` + rows + `' AND setting = '` + want + `'`); n != 1 {
					t.Errorf("%s campaign: %d insertions with synchronous_commit = %s, want 1; the role has %s", rows, n, want, role)
				}
			}
			if all, as := r.number(`SELECT count(*) FROM in_force WHERE rows = 'ledger'`), r.number(`SELECT count(*) FROM in_force WHERE rows = 'ledger' AND setting = '`+want+`'`); all < 4 || as != all {
				t.Errorf("the ledger was written %d times, %d of them with synchronous_commit = %s, want all: a claim, two campaigns and the end", all, as, want)
			}
		})
	}
}
