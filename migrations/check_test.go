package migrations

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

func TestCheckNamesEveryUnfitColumnAndItsFix(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	conn := db.Connect(t)
	if _, err := Migrate(t.Context(), conn, options()); err != nil {
		t.Fatal(err)
	}
	for _, change := range []struct{ sql, want string }{
		{"DROP COLUMN client_id", `column client_id is missing: ALTER TABLE "public"."subscribers_feedback" ADD COLUMN client_id text`},
		{"DROP COLUMN feedback", "column feedback is missing"},
		{"ALTER COLUMN datetime_created TYPE int4", "column datetime_created is integer, want bigint: ALTER TABLE"},
		{"ALTER COLUMN restaurant_id TYPE uuid USING NULL", "column restaurant_id is uuid, want text or varchar: ALTER TABLE"},
		{"ALTER COLUMN id DROP IDENTITY", "column id has no identity and no default: ALTER TABLE"},
		{"ADD COLUMN tenant text NOT NULL", "column tenant is NOT NULL without a default"},
	} {
		db.Exec(t, "ALTER TABLE subscribers_feedback "+change.sql)
		if err := Check(t.Context(), conn, options()); err == nil || !strings.Contains(err.Error(), change.want) {
			t.Errorf("after %s: want %q in %v", change.sql, change.want, err)
		}
	}
	err := Check(t.Context(), conn, options())
	if !errors.Is(err, ErrUnfit) {
		t.Errorf("what the check finds is no verdict: %v", err)
	}
	if lines := strings.Count(err.Error(), "\n") + 1; lines != 6 {
		t.Errorf("%d of 6 faults are told at once:\n%v", lines, err)
	}
}

// What is told of ids without a sequence mends that, also where rows are there, and where the column may be null.
func TestIDsAreMendedAsTold(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	conn := db.Connect(t)
	if _, err := Migrate(t.Context(), conn, options()); err != nil {
		t.Fatal(err)
	}
	const insert = `INSERT INTO subscribers_feedback (restaurant_id, adv_campaign_id, adv_campaign_content, adv_campaign_owner, adv_campaign_owner_contact,
		adv_campaign_datetime_start, adv_campaign_datetime_end, datetime_created, client_id, trigger_datetime_created) VALUES ('', '', '', '', '', 0, 0, 0, '', 0)`
	db.Exec(t, insert, insert)
	for _, broken := range [][]string{
		{"DROP IDENTITY"},
		{"DROP IDENTITY", "SET DEFAULT (random() * 1e9)::bigint"},
		{"DROP IDENTITY", "DROP NOT NULL"},
	} {
		if slices.Contains(broken, "DROP NOT NULL") {
			db.Exec(t, "ALTER TABLE subscribers_feedback DROP CONSTRAINT subscribers_feedback_pkey")
		}
		for _, change := range broken {
			db.Exec(t, "ALTER TABLE subscribers_feedback ALTER id "+change)
		}
		told := fmt.Sprint(Check(t.Context(), conn, options()))
		i := strings.LastIndex(told, ": ALTER TABLE")
		if i < 0 {
			t.Fatalf("after %v: %s", broken, told)
		}
		db.Exec(t, told[i+2:])
		if err := Check(t.Context(), conn, options()); err != nil {
			t.Errorf("after %v, mended as told: %v", broken, err)
		}
		db.Exec(t, insert)
	}
	var rows, ids int
	if err := conn.QueryRow(t.Context(), "SELECT count(*), count(DISTINCT id) FROM subscribers_feedback").Scan(&rows, &ids); err != nil || rows != 5 || ids != 5 {
		t.Errorf("%d rows, %d ids (%v)", rows, ids, err)
	}
}

func TestCheckedColumnsTakeWhatIsWritten(t *testing.T) {
	t.Parallel()
	fit := []column{{name: "id", base: "int4", hasDefault: true, sequence: true}}
	for _, w := range wanted()[1:] {
		base := "varchar"
		if w.want == "bigint" {
			base = "int8"
		}
		fit = append(fit, column{name: w.name, base: base, notNull: true})
	}
	if err := checkColumns("t", fit); err != nil {
		t.Errorf("serial ids and varchar texts are the contract's: %v", err)
	}
	fit[1].generated = true
	if err := checkColumns("t", fit); err == nil || !strings.Contains(err.Error(), "generated") {
		t.Errorf("a generated column: %v", err)
	}
	fit[1].generated, fit[0].base = false, "uuid"
	if err := checkColumns("t", fit); err == nil || !strings.Contains(err.Error(), "column id") {
		t.Errorf("a uuid as id: %v", err)
	}
}

func TestCheckNamesEveryMissingRight(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	if _, err := Migrate(t.Context(), db.Connect(t), options()); err != nil {
		t.Fatal(err)
	}
	db.Exec(t, "ALTER TABLE subscribers_feedback ALTER COLUMN id DROP IDENTITY", "CREATE SEQUENCE ids OWNED BY subscribers_feedback.id",
		"ALTER TABLE subscribers_feedback ALTER COLUMN id SET DEFAULT nextval('ids')")
	role, conn := as(t, db)
	if err := Check(t.Context(), conn, options()); err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("without any right: %v", err)
	}
	db.Exec(t, "GRANT USAGE ON SCHEMA tiffin TO "+role, "GRANT SELECT ON tiffin.schema_version TO "+role)
	err := Check(t.Context(), conn, options())
	for _, want := range []string{
		"GRANT SELECT, INSERT, UPDATE ON tiffin.progress TO ", "GRANT SELECT, INSERT ON tiffin.trigger TO ",
		`GRANT SELECT, INSERT ON "public"."subscribers_feedback" TO `, "GRANT USAGE ON SEQUENCE public.ids TO ",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q in %v", want, err)
		}
	}
	db.Exec(t, GrantSQL(Options{FeedbackTable: options().FeedbackTable, Role: role}))
	if err := Check(t.Context(), conn, options()); err != nil {
		t.Errorf("with the rights that GrantSQL gives: %v", err)
	}
	// And they are enough to write with.
	if _, err := conn.Exec(t.Context(), `INSERT INTO subscribers_feedback (restaurant_id, adv_campaign_id, adv_campaign_content, adv_campaign_owner,
		adv_campaign_owner_contact, adv_campaign_datetime_start, adv_campaign_datetime_end, datetime_created, client_id, trigger_datetime_created, feedback)
		VALUES ('', '', '', '', '', 0, 0, 0, '', 0, '') RETURNING id`); err != nil {
		t.Error(err)
	}
	db.Exec(t, "DROP OWNED BY "+role+"; DROP ROLE "+role)
}

// Of an identity column's sequence an INSERT needs no right, but the daemon asks it where it is.
func TestCheckNamesTheRightToAnIdentitysSequence(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	if _, err := Migrate(t.Context(), db.Connect(t), options()); err != nil {
		t.Fatal(err)
	}
	role, conn := as(t, db)
	db.Exec(t, GrantSQL(Options{FeedbackTable: options().FeedbackTable, Role: role}))
	if err := Check(t.Context(), conn, options()); err != nil {
		t.Errorf("with the rights that GrantSQL gives: %v", err)
	}
	db.Exec(t, "REVOKE ALL ON SEQUENCE subscribers_feedback_id_seq FROM "+role)
	if err := Check(t.Context(), conn, options()); err == nil || !strings.Contains(err.Error(), "GRANT USAGE ON SEQUENCE public.subscribers_feedback_id_seq TO ") {
		t.Errorf("without the right to the sequence: %v", err)
	}
	db.Exec(t, "DROP OWNED BY "+role+"; DROP ROLE "+role)
}

func TestLiteralsAreQuoted(t *testing.T) {
	t.Parallel()
	conn := servers.Database(t).Connect(t)
	for _, text := range []string{`it's`, `back\slash`, `'; drop table x; --`, pgx.Identifier{`a"b'c`}.Sanitize()} {
		var got string
		if err := conn.QueryRow(t.Context(), "SELECT "+literal(text)).Scan(&got); err != nil || got != text {
			t.Errorf("%s came back as %s (%v)", text, got, err)
		}
	}
}

// A database that could not hold every text is refused.
func TestCheckRefusesAnotherEncoding(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	other := db.Name + "_1251"
	db.Exec(t, "CREATE DATABASE "+other+" ENCODING 'WIN1251' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
	conn, err := pgx.Connect(t.Context(), db.Server.DSN(other))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	if _, err := Migrate(t.Context(), conn, options()); err != nil {
		t.Fatal(err)
	}
	if err := Check(t.Context(), conn, options()); !errors.Is(err, ErrUnfit) || !strings.Contains(err.Error(), "WIN1251") {
		t.Errorf("check: %v", err)
	}
}

// Ids that fall are refused: a batch's rows are found between the sequence's values before and behind it.
func TestCheckRefusesASequenceThatCountsDownwards(t *testing.T) {
	t.Parallel()
	for name, own := range map[string][]string{
		"identity": {"ALTER TABLE subscribers_feedback ALTER COLUMN id SET INCREMENT BY -1 SET MINVALUE -1000"},
		"default": {
			"ALTER TABLE subscribers_feedback ALTER COLUMN id DROP IDENTITY", "CREATE SEQUENCE ids INCREMENT BY -1",
			"ALTER TABLE subscribers_feedback ALTER COLUMN id SET DEFAULT nextval('ids')",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := servers.Database(t)
			if _, err := Migrate(t.Context(), db.Connect(t), options()); err != nil {
				t.Fatal(err)
			}
			db.Exec(t, own...)
			if err := Check(t.Context(), db.Connect(t), options()); err == nil || !strings.Contains(err.Error(), "counts downwards") || !strings.Contains(err.Error(), "INCREMENT BY 1") {
				t.Errorf("%v", err)
			}
		})
	}
}
