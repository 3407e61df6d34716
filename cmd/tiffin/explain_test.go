package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"example.com/tiffin/cmd/internal/command"
	"example.com/tiffin/stream"
)

// Not parallel: commands read the environment of the process.
func TestExplainAnswersPeopleAndPrograms(t *testing.T) {
	clearEnvironment(t)
	db := servers.Database(t)
	t.Setenv("TIFFIN_FEEDBACK_DSN", db.DSN)
	t.Setenv("TIFFIN_KAFKA_GROUP", "g")
	if code, _, stderr := execute(t, "migrate"); code != command.ExitOK {
		t.Fatal(stderr)
	}
	db.Exec(t, `INSERT INTO subscribers_feedback (restaurant_id, adv_campaign_id, adv_campaign_content, adv_campaign_owner, adv_campaign_owner_contact,
			adv_campaign_datetime_start, adv_campaign_datetime_end, datetime_created, client_id, trigger_datetime_created, feedback)
			SELECT 'r', 'c', '', '', '', 0, 9, 1, client, 5, '' FROM unnest('{anna,boris}'::text[]) client`,
		`INSERT INTO tiffin.trigger (consumer_group, topic, partition, record_offset, outcome, restaurant_id, adv_campaign_id, trigger_datetime_created, fence_lsn, recipients, feedback_ids)
			SELECT 'g', 'campaigns', 0, 7, 'delivered', 'r', 'c', 5, '0/16B3748', 2, int8multirange(int8range(min(id), max(id) + 1)) FROM subscribers_feedback`,
		`INSERT INTO tiffin.trigger (consumer_group, topic, partition, record_offset, outcome, reason, error) VALUES ('g', 'campaigns', 0, 8, 'malformed', 'json', 'not JSON')`)
	for _, c := range []struct {
		args []string
		code int
		out  []string // words; none for an empty output
		errs string
	}{
		{[]string{"campaigns/0/7"}, command.ExitOK, []string{"message     campaigns/0/7\n", "outcome     delivered\n", "restaurant  r\n", "joined      1970-01-01T00:00:05Z\n", "position    0/16B3748 of", "recipients  2\n", "sent        unknown: kafka.brokers is not set\n"}, ""},
		{[]string{"campaigns/0/7", "--client", "anna"}, command.ExitOK, []string{"client      anna got it: subscribed as of position 0/16B3748", "row 1 of the feedback table"}, ""},
		{[]string{"campaigns/0/7", "--client", "carla"}, command.ExitOK, []string{"client      carla did not get it: not subscribed"}, ""},
		{[]string{"campaigns/0/7", "--client", ""}, command.ExitOK, []string{"client       did not get it"}, ""}, // any text is a client
		{[]string{"campaigns/0/8"}, command.ExitOK, []string{"outcome     malformed\n", "restaurant  unknown\n", "error       not JSON\n"}, ""},
		{[]string{"campaigns/0/9"}, command.ExitFault, nil, "the manifest does not know this message"},
		{[]string{"other/0/7"}, command.ExitFault, nil, "the manifest does not know this message"},
		{[]string{"campaigns"}, command.ExitUsage, nil, "TOPIC/PARTITION/OFFSET"},
		{nil, command.ExitUsage, nil, "--help"},
	} {
		code, stdout, stderr := execute(t, append([]string{"explain"}, c.args...)...)
		if code != c.code || !strings.Contains(stderr, c.errs) || c.errs == "" && stderr != "" || c.out == nil && stdout != "" {
			t.Errorf("explain %q: %d %q %q", c.args, code, stdout, stderr)
		}
		for _, words := range c.out {
			if !strings.Contains(stdout, words) {
				t.Errorf("explain %q: %q lacks %q", c.args, stdout, words)
			}
		}
	}
	for _, c := range []struct {
		args []string
		code int
		ok   bool
		got  *bool
	}{
		{[]string{"campaigns/0/7"}, command.ExitOK, true, nil},
		{[]string{"campaigns/0/7", "--client", "boris"}, command.ExitOK, true, new(true)},
		{[]string{"campaigns/0/7", "--client", "carla"}, command.ExitOK, true, new(false)},
		{[]string{"campaigns/0/9"}, command.ExitFault, false, nil},
	} {
		code, stdout, _ := execute(t, append([]string{"explain", "--json"}, c.args...)...)
		var answer struct {
			OK      *bool
			Trigger string
			Client  *struct{ Got bool }
		}
		if err := json.Unmarshal([]byte(stdout), &answer); err != nil || strings.Count(stdout, "\n") != 1 {
			t.Errorf("explain --json %q: %q: %v", c.args, stdout, err)
			continue
		}
		if code != c.code || answer.OK == nil || *answer.OK != c.ok || answer.Trigger != c.args[0] ||
			(answer.Client != nil) != (c.got != nil) || c.got != nil && answer.Client.Got != *c.got {
			t.Errorf("explain --json %q: %d %q", c.args, code, stdout)
		}
	}
	t.Setenv("TIFFIN_KAFKA_BROKERS", "127.0.0.1:1")
	if code, stdout, _ := execute(t, "explain", "campaigns/0/7"); code != command.ExitOK || !strings.Contains(stdout, "outcome     delivered\nsent        unknown: ") {
		t.Errorf("without a broker: %d %q", code, stdout)
	}
	t.Setenv("TIFFIN_FEEDBACK_DSN", "postgres://u:hunter2@127.0.0.1:1/d")
	if code, stdout, stderr := execute(t, "explain", "--json", "campaigns/0/7"); code != command.ExitFault || stdout != "" || strings.Contains(stderr, "hunter2") {
		t.Errorf("without a server: %d %q %q", code, stdout, stderr)
	}
}

// Delivered is said of what is in both sinks: of a campaign whose chunks are going out it is said how
// far they are, and of nobody that it has got it.
func TestExplainSaysWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		outcome          stream.Outcome
		recipients, sent int64
		underWay         bool
		want             string
	}{
		{stream.Delivered, 60_000, 20_000, true, "outcome     under way (delivered): decided and in the feedback database, 20000 of 60000 records sent so far\nrestaurant"},
		{stream.Delivered, 60_000, 60_000, false, "outcome     delivered\nsent        60000 of 60000 records\nrestaurant"},
		{stream.Malformed, 0, 0, true, "outcome     under way (malformed): decided and in the feedback database, 0 of 1 dead letters sent so far\nrestaurant"},
		{stream.Inactive, 0, 0, false, "outcome     inactive\nrestaurant"},
	} {
		e := stream.Explanation{Outcome: c.outcome, Recipients: c.recipients, Sent: &c.sent, UnderWay: c.underWay, Client: &stream.ClientAnswer{ID: "ann", Got: true}}
		var out bytes.Buffer
		cmd := newExplainCommand()
		cmd.SetOut(&out)
		if err := sayExplanation(cmd, &e, nil); err != nil || !strings.Contains(out.String(), c.want) {
			t.Errorf("%v\n got %s\nwant %s", err, out.String(), c.want)
		}
		if got := strings.Contains(out.String(), "ann got it"); got == c.underWay {
			t.Errorf("under way %t:\n%s", c.underWay, out.String())
		}
	}
}
