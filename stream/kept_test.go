package stream_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"example.com/tiffin/stream"
)

// Spaces beyond a column's length Postgres cuts off without a word (SQL's rule), and a record would keep them:
// such a campaign is refused as a longer text is.
func TestSpacesThatTheTableCutsOffAreRefused(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 60} { // by INSERT, and by COPY
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 1, map[string][]string{"r": clients(n)})
			r.untilNow()
			r.db.Exec(t, `CREATE DOMAIN shorter AS varchar(20); CREATE DOMAIN short AS shorter`, `ALTER TABLE subscribers_feedback ALTER adv_campaign_content TYPE varchar(20), ALTER adv_campaign_owner TYPE short`)
			long, owner, fits := campaign("r", "content"), campaign("r", "owner"), campaign("r", "fits")
			long.Content = "short" + strings.Repeat(" ", 30)
			owner.Owner = "Иванов" + strings.Repeat(" ", 15)
			fits.Content, fits.Owner = strings.Repeat("я", 19)+" ", "я"
			long.Owner, owner.Content = "o", "c"
			r.publish(0, long.json(t), owner.json(t))
			at := r.publish(0, fits.json(t))
			r.untilNow()
			var want []delivery
			for _, c := range clients(n) {
				want = append(want, r.expect(fits, 0, at, c))
			}
			if n := len(r.records(r.cfg.Kafka.DeadLetter)); n != 2 {
				t.Errorf("%d dead letters, want 2", n)
			}
			same(t, "records", r.deliveries(), want)
			r.wantRows(want)
		})
	}
}

// What makes another row, or another id, of what is inserted is told, and waited for: records could not be rebuilt
// from such rows.
func TestTableThatChangesRowsIsWaitedFor(t *testing.T) {
	t.Parallel()
	const trigger = `CREATE FUNCTION changes() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN %s; RETURN NEW; END $$;
		CREATE TRIGGER changes BEFORE INSERT ON subscribers_feedback FOR EACH ROW EXECUTE FUNCTION changes()`
	for name, ddl := range map[string]string{
		"id by a trigger":       `CREATE SEQUENCE other START 1000000; ` + fmt.Sprintf(trigger, `NEW.id := nextval('other')`),
		"content by a trigger":  fmt.Sprintf(trigger, `NEW.restaurant_id := upper(NEW.restaurant_id)`),
		"id by an expression":   `CREATE SEQUENCE other; ALTER TABLE subscribers_feedback ALTER id DROP IDENTITY, ALTER id SET DEFAULT nextval('other') * 100 + 7`,
		"a client by a trigger": fmt.Sprintf(trigger, `IF NEW.client_id = 'c3' THEN NEW.client_id := 'x'; END IF`),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 1, map[string][]string{"r": {"c1", "c2", "c3"}})
			r.untilNow()
			r.db.Exec(t, ddl)
			r.publish(0, campaign("r", "c1").json(t))
			log := r.logging()
			_, stop := r.start()
			defer func() { _ = stop() }()
			r.eventually("word of it", func() bool { return log.lines("feedback table") > 0 })
			r.wantDelivered(0, 0)
		})
	}
}

// A table that is altered under a running process is noticed by its probe: from then on nothing that it would change is
// taken for what was inserted.
func TestAlterationUnderARunningProcessIsNoticed(t *testing.T) {
	t.Parallel()
	for name, ddl := range map[string]string{
		"a trigger": `CREATE FUNCTION changes() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.restaurant_id := upper(NEW.restaurant_id); RETURN NEW; END $$;
			CREATE TRIGGER changes BEFORE INSERT ON subscribers_feedback FOR EACH ROW EXECUTE FUNCTION changes()`,
		"a default of the id": `CREATE SEQUENCE other; ALTER TABLE subscribers_feedback ALTER id DROP IDENTITY, ALTER id SET DEFAULT nextval('other') * 100 + 7`,
		"a column's length":   `ALTER TABLE subscribers_feedback ALTER adv_campaign_content TYPE varchar(20)`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 1, map[string][]string{"r": {"c1", "c2"}})
			r.untilNow()
			r.publish(0, campaign("r", "before").json(t))
			log := r.logging()
			_, stop := r.start()
			defer func() { _ = stop() }()
			r.eventually("the first campaign", func() bool { return r.groupOffset(0) == 1 })
			r.db.Exec(t, ddl)
			r.eventually("word of it", func() bool { return log.lines("was altered") > 0 })
			spaces := campaign("r", "after")
			spaces.Content = "short" + strings.Repeat(" ", 30)
			r.publish(0, spaces.json(t))
			r.eventually("the second campaign's refusal", func() bool {
				return log.lines("remove") > 0 || log.lines("fed by no sequence") > 0 || log.lines("value too long") > 0
			})
			r.wantDelivered(2, 2)
		})
	}
}

// A trigger that fills a column of the operator's own changes nothing of ours.
func TestTriggerOfAnotherColumnIsNoChange(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, map[string][]string{"r": clients(60), "s": clients(3)})
	r.untilNow()
	r.db.Exec(t, `ALTER TABLE subscribers_feedback ADD COLUMN at timestamptz`,
		`CREATE FUNCTION fills() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.at := now(); RETURN NEW; END $$`,
		`CREATE TRIGGER fills BEFORE INSERT ON subscribers_feedback FOR EACH ROW EXECUTE FUNCTION fills()`)
	for range 5 {
		r.publish(0, campaign("r", "x").json(t), campaign("s", "y").json(t))
	}
	r.untilNow()
	r.wantDelivered(315, 315)
	r.setOffset(0, 0, "tiffin") // as after a crash between the two commits
	r.untilNow()
	r.wantDelivered(315, 630)
}

// A serial column's default, as a table has it that was made before identities, gives the id that is expected: no row
// is read back.
func TestSerialIDsAreNotReadBack(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 60} { // by COPY, and by INSERT
		r := newRig(t, 1, map[string][]string{"r": clients(n)})
		r.untilNow()
		r.db.Exec(t, `CREATE SEQUENCE "Ids"`, `ALTER TABLE subscribers_feedback ALTER id DROP IDENTITY, ALTER id SET DEFAULT nextval('"Ids"')`)
		r.publish(0, campaign("r", "x").json(t), campaign("r", "y").json(t))
		r.untilNow()
		r.wantDelivered(2*n, 2*n)
		var written, read int
		r.eventually("statistics of the rows", func() bool {
			written = r.number(`SELECT n_tup_ins FROM pg_stat_user_tables WHERE relname = 'subscribers_feedback'`)
			return written == 2*n
		})
		if read = r.number(`SELECT idx_scan FROM pg_stat_user_tables WHERE relname = 'subscribers_feedback'`); read != 0 {
			t.Errorf("%d rows written, and read %d times", written, read)
		}
	}
}

// Row-level security would hide rows from a recovery: it is an error, not an empty answer.
func TestRowSecurityIsAnError(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, map[string][]string{"r": clients(5)})
	r.untilNow()
	role := servers.Unique(t, "role")
	r.db.Exec(t, `CREATE ROLE `+role+` LOGIN`, `GRANT ALL ON ALL TABLES IN SCHEMA public, tiffin TO `+role, `GRANT USAGE ON SCHEMA tiffin, public TO `+role,
		`GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO `+role, `ALTER TABLE subscribers_feedback ENABLE ROW LEVEL SECURITY`,
		`CREATE POLICY inserted ON subscribers_feedback FOR INSERT WITH CHECK (true)`)
	r.cfg.FeedbackDSN = r.db.Server.DSNFor(role, "", r.db.Name)
	r.publish(0, campaign("r", "c1").json(t))
	if err := r.tryUntilNow(); err == nil || !strings.Contains(err.Error(), "row-level security") {
		t.Errorf("error %v", err)
	}
}

// Texts are exchanged in UTF-8, whatever encoding the database's sessions have by default.
func TestTextsSurviveTheDatabasesEncoding(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, map[string][]string{"r": {"a"}})
	r.db.Exec(t, `ALTER DATABASE `+r.db.Name+` SET client_encoding = 'LATIN1'`)
	m := campaign("r", "c1")
	m.Content = "Скидка 10 %"
	at := r.publish(0, m.json(t))
	r.untilNow()
	conn := r.db.Connect(t)
	if _, err := conn.Exec(t.Context(), `SET client_encoding = 'UTF8'`); err != nil {
		t.Fatal(err)
	}
	var content string
	if err := conn.QueryRow(t.Context(), `SELECT adv_campaign_content FROM subscribers_feedback`).Scan(&content); err != nil || content != m.Content {
		t.Errorf("the row says %q, the campaign %q: %v", content, m.Content, err)
	}
	same(t, "records", r.deliveries(), []delivery{r.expect(m, 0, at, "a")})
}

// A message whose rows are gone, and whose ids others' rows have now, is not told to have reached their clients.
func TestExplainKnowsItsRowsFromThoseThatTookOverTheirIDs(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, map[string][]string{"r": {"a", "b"}, "s": {"x", "y"}})
	at := r.publish(0, campaign("r", "c1").json(t))
	r.untilNow()
	r.db.Exec(t, `TRUNCATE subscribers_feedback RESTART IDENTITY`)
	r.publish(0, campaign("s", "c2").json(t))
	r.untilNow()
	x := "x"
	e, err := stream.Explain(t.Context(), r.db.Connect(t), r.cfg.Kafka.Group, r.trigger(at), pgx.Identifier{"public", "subscribers_feedback"}, &x)
	if err != nil {
		t.Fatal(err)
	}
	if e.Client.Got {
		t.Errorf("client x of restaurant s got the message of restaurant r: %+v", e.Client)
	}
}
