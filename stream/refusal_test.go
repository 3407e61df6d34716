package stream_test

import (
	"fmt"
	"strings"
	"testing"
)

// A row that the table's own rules refuse will be refused for ever: its campaign becomes a
// dead letter, exactly once, with what Postgres said; those beside it are delivered.
func TestRowRefusedByTheTableBecomesADeadLetter(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		rule string
		says string
	}{
		{"CHECK", `ALTER TABLE subscribers_feedback ADD CONSTRAINT nothing_bad CHECK (adv_campaign_content NOT LIKE 'bad%')`, "nothing_bad"},
		{"column too short", `ALTER TABLE subscribers_feedback ALTER adv_campaign_content TYPE varchar(60)`, "value too long"},
		{"trigger", `CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			IF NEW.adv_campaign_content LIKE 'bad%' THEN RAISE EXCEPTION 'not on my watch'; END IF; RETURN NEW; END $$;
			CREATE TRIGGER refuse BEFORE INSERT ON subscribers_feedback FOR EACH ROW EXECUTE FUNCTION refuse()`, "not on my watch"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 2, map[string][]string{"r": clients(40), "many": clients(25_000)})
			r.cfg.MaxTransactionRecords = 100
			o := newOutage(t, r)
			o.db.Exec(t, c.rule)
			var letters []string
			for i := range 30 {
				m := campaign("r", fmt.Sprint("more ", i))
				if i%5 == 1 {
					m.Content = "bad " + strings.Repeat("x", 80)
				}
				if i%10 == 6 {
					m.Content = "bad " + strings.Repeat("x", 40_000) // the brokers are asked before Postgres commits
				}
				if i == 11 {
					m.Restaurant = "many" // more than a transaction takes
				}
				o.publishAs(m)
				if i%5 == 1 {
					partition := int32((o.number - 1) % 2)
					letters = append(letters, fmt.Sprintf("%s/%d/%d", o.cfg.Kafka.Input, partition, (o.number-1)/2))
					o.want = o.want[:len(o.want)-40]
				}
			}
			o.settled()
			if err := o.stop(); err != nil {
				t.Fatal(err)
			}
			o.wantBoth(o.want)
			o.wantRefused(letters, c.says)
			if n := o.retries("postgres"); n != 1 {
				t.Errorf("%v sessions ended; one refusal should be enough to take care", n)
			}
		})
	}
}

func (o *outage) wantRefused(triggers []string, says string) {
	o.t.Helper()
	left := map[string]bool{}
	for _, id := range triggers {
		left[id] = true
	}
	for _, letter := range o.records(o.cfg.Kafka.DeadLetter) {
		headers := map[string]string{}
		for _, h := range letter.Headers {
			headers[h.Key] = string(h.Value)
		}
		if !left[headers["trigger"]] || headers["reason"] != "refused_by_table" || !strings.Contains(headers["error"], says) {
			o.t.Errorf("dead letter %v: not expected, or not again", headers)
		}
		delete(left, headers["trigger"])
	}
	if len(left) > 0 {
		o.t.Errorf("no dead letter for %v", left)
	}
}

// Of ids that do not fit, the first word says so, also where they are those of a COPY.
func TestIDsBeyondTheirColumnAreToldAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, map[string][]string{"r": clients(7)})
	log := r.logging()
	r.untilNow()
	r.db.Exec(t, `ALTER TABLE subscribers_feedback ALTER id DROP IDENTITY, ALTER id TYPE integer`, `CREATE SEQUENCE wide START 2147483648`,
		`ALTER TABLE subscribers_feedback ALTER id SET DEFAULT nextval('wide')`)
	r.publishMany(100)
	_, stop := r.start()
	r.eventually("the remedy", func() bool { return log.lines("make the column a bigint") > 0 })
	if n := log.lines("a campaign is refused"); n != 0 {
		t.Errorf("%d times a campaign was said to be refused", n)
	}
	r.db.Exec(t, `ALTER TABLE subscribers_feedback ALTER id TYPE bigint`)
	r.eventually("all rows", func() bool { return r.rowCount() == 700 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	r.wantDelivered(700, 700)
}

// What is the table's state is mended by somebody: it is waited for, and no dead letter.
func TestStateOfTheTableIsWaitedFor(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, rule, mend, says string
	}{
		{
			"new column that must not be null", `ALTER TABLE subscribers_feedback ADD COLUMN note text; ALTER TABLE subscribers_feedback
			ADD CONSTRAINT noted CHECK (true); ALTER TABLE subscribers_feedback ALTER note SET DEFAULT 'x'; UPDATE subscribers_feedback SET note = 'x';
			ALTER TABLE subscribers_feedback ALTER note SET NOT NULL, ALTER note DROP DEFAULT`,
			`ALTER TABLE subscribers_feedback ALTER note SET DEFAULT 'x'`, "not-null constraint",
		},
		{
			"sequence set back", `SELECT setval(pg_get_serial_sequence('subscribers_feedback', 'id'), 1)`,
			`SELECT setval(pg_get_serial_sequence('subscribers_feedback', 'id'), 1000)`, "duplicate key",
		},
		{
			"ids beyond their column", `ALTER TABLE subscribers_feedback ALTER id DROP IDENTITY, ALTER id TYPE integer; CREATE SEQUENCE wide START 2147483648;
			ALTER TABLE subscribers_feedback ALTER id SET DEFAULT nextval('wide')`,
			`ALTER TABLE subscribers_feedback ALTER id TYPE bigint`, "make the column a bigint",
		},
		{
			"sequence at its end", `ALTER TABLE subscribers_feedback ALTER id SET MAXVALUE 100`, `ALTER TABLE subscribers_feedback ALTER id SET MAXVALUE 1000000`,
			"reached maximum value of sequence",
		},
		{
			"trigger that swallows rows", `CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
			CREATE TRIGGER swallow BEFORE INSERT ON subscribers_feedback FOR EACH ROW EXECUTE FUNCTION swallow()`,
			`DROP TRIGGER swallow ON subscribers_feedback`, "a trigger or rule on it changes what is inserted",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			o := newOutage(t, newRig(t, 2, map[string][]string{"r": clients(40)}))
			o.db.Exec(t, c.rule)
			o.publish(4)
			o.told(c.says)
			o.unready(c.says)
			o.db.Exec(t, c.mend)
			o.over("postgres")
		})
	}
}
