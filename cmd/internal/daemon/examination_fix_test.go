package daemon

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"example.com/tiffin/internal/checkup"
)

// isDone reports whether what the doctor tells to do is, or holds, a command: an operator at night has
// no time to look for it, nor for the place of a setting ("set KEY: VALUE"). SQL at the beginning goes into psql as it stands: statements that end with a
// semicolon, and alternatives behind "--", as those of a shell's command behind "#".
func isDone(l checkup.Line) bool {
	statements, _, _ := strings.Cut(l.Fix, " -- ")
	if statement.MatchString(l.Fix) && (!strings.HasSuffix(statements, ";") || strings.Contains(statements, "; (") || strings.Contains(statements, ", or ")) {
		return false
	}
	return command.MatchString(l.Fix) || slices.Contains(settled(), l.Check)
}

var (
	statement = regexp.MustCompile(`^(ALTER|CREATE|DROP|GRANT|SELECT) `)
	command   = regexp.MustCompile(`\b((ALTER|CREATE|DROP|GRANT|SELECT) \S|kafka-[a-z-]+\.sh --|tiffin [a-z]+|slotsetup [a-z]+|set [a-z]+\.[a-z_.]+: \S|openssl |nc -vz |getent hosts |ss -l|chronyc |psql -h )`)
)

// settled are the checks where only a setting, or another server, helps.
func settled() []string {
	return []string{
		"source.version", "feedback.version", // an upgrade
		"source.replication_connection", "feedback.session", // another address, which nobody knows
		"kafka.transaction_timeout", "kafka.session_timeout", // the brokers read theirs at their start
	}
}

// statementsOf are those of the SQL that a fix begins with, each by itself, as psql sends them.
func statementsOf(fix string) (all []string) {
	text, _, _ := strings.Cut(fix, " -- ")
	quoted := false // within $$
	begin := 0
	for i := range text {
		switch {
		case strings.HasPrefix(text[i:], "$$"):
			quoted = !quoted
		case text[i] == ';' && !quoted:
			all = append(all, strings.TrimSpace(text[begin:i]))
			begin = i + 1
		}
	}
	return all
}

func TestFixIsACommand(t *testing.T) {
	t.Parallel()
	for fix, want := range map[string]bool{
		"ALTER TABLE t REPLICA IDENTITY DEFAULT; -- or ALTER TABLE t REPLICA IDENTITY FULL;":             true,
		"see what the server waits for: SELECT pid FROM pg_stat_activity;":                               true,
		"kafka-topics.sh --create --topic t":                                                             true,
		"start the server: nc -vz h 1":                                                                   true,
		"see the server's log":                                                                           false,
		"ALTER TABLE t REPLICA IDENTITY DEFAULT; (with a primary key) or ALTER TABLE t REPLICA IDENTITY": false,
		"ALTER TABLE t REPLICA IDENTITY FULL; on every partition":                                        false,
		"ALTER TABLE t ADD c text":                                                                       false,
	} {
		if got := isDone(checkup.Line{Check: "a.b", Fix: fix}); got != want {
			t.Errorf("%q: %t", fix, got)
		}
	}
}
