package daemon

import (
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"example.com/tiffin/cmd/internal/settings"
	"example.com/tiffin/internal/checkup"
)

// step is one check of a visit, and those of its area that it needs: without them it cannot be judged.
type step struct {
	check string
	needs []string
}

// visit is all that the doctor looks at, in its order.
func visit() []step {
	return []step{
		{"source.dns", nil},
		{"source.tcp", []string{"source.dns"}},
		{"source.tls", []string{"source.tcp"}},
		{"source.login", []string{"source.tls"}},
		{"source.clock", []string{"source.login"}},
		{"source.version", []string{"source.login"}},
		{"source.primary", []string{"source.version"}},
		{"source.wal_level", []string{"source.version"}},
		{"source.synchronous_standby_names", []string{"source.version"}},
		{"source.replication_right", []string{"source.version"}},
		{"source.table", []string{"source.version"}},
		{"source.table_right", []string{"source.table"}},
		{"source.columns", []string{"source.table_right"}},
		{"source.replica_identity", []string{"source.columns"}},
		{"source.publication", []string{"source.columns"}},
		{"source.slot", []string{"source.primary"}},
		{"source.replication_slots", []string{"source.slot"}},
		{"source.wal_senders", []string{"source.slot"}},
		{"source.replication_connection", []string{"source.replication_right", "source.wal_senders"}},
		{"source.retained_wal", []string{"source.slot"}},
		{"source.max_slot_wal_keep_size", []string{"source.version"}},
		{"feedback.dns", nil},
		{"feedback.tcp", []string{"feedback.dns"}},
		{"feedback.tls", []string{"feedback.tcp"}},
		{"feedback.login", []string{"feedback.tls"}},
		{"feedback.clock", []string{"feedback.login"}},
		{"feedback.session", []string{"feedback.login"}},
		{"feedback.version", []string{"feedback.session"}},
		{"feedback.primary", []string{"feedback.version"}},
		{"feedback.encoding", []string{"feedback.session"}},
		{"feedback.schema", []string{"feedback.version"}},
		{"feedback.table", []string{"feedback.schema"}},
		{"feedback.columns", []string{"feedback.table"}},
		{"feedback.rights", []string{"feedback.table"}},
		{"feedback.logged", []string{"feedback.rights"}},
		{"feedback.indexes", []string{"feedback.rights"}},
		{"feedback.triggers", []string{"feedback.rights"}},
		{"feedback.row_security", []string{"feedback.rights"}},
		{"kafka.dns", nil},
		{"kafka.tcp", []string{"kafka.dns"}},
		{"kafka.tls", []string{"kafka.tcp"}},
		{"kafka.login", []string{"kafka.tls"}},
		{"kafka.advertised", []string{"kafka.login"}},
		{"kafka.version", []string{"kafka.advertised"}},
		{"kafka.broker_settings", []string{"kafka.advertised"}},
		{"kafka.topic_input", []string{"kafka.login"}},
		{"kafka.topic_output", []string{"kafka.login"}},
		{"kafka.topic_dead_letter", []string{"kafka.login"}},
		{"kafka.may_read_input", []string{"kafka.topic_input"}},
		{"kafka.may_write_output", []string{"kafka.topic_output"}},
		{"kafka.may_write_dead_letter", []string{"kafka.topic_dead_letter"}},
		{"kafka.group", []string{"kafka.advertised"}},
		{"kafka.transactional_id", []string{"kafka.version"}},
		{"kafka.transaction_timeout", []string{"kafka.broker_settings"}},
		{"kafka.session_timeout", []string{"kafka.broker_settings"}},
		{"kafka.message_size", []string{"kafka.topic_input", "kafka.topic_output", "kafka.topic_dead_letter"}},
		{"index.spill_dir", nil},
		{"http.listen", nil},
	}
}

// unjudged are the checks that need the failed one, or one that needs it.
func unjudged(failed string) (all []string) {
	for _, s := range visit() {
		if slices.ContainsFunc(s.needs, func(n string) bool { return n == failed || slices.Contains(all, n) }) {
			all = append(all, s.check)
		}
	}
	return all
}

// What is told is in the order in which a start would fail, each check once.
func TestDoctorsVisitHasItsOrder(t *testing.T) {
	t.Parallel()
	s, err := settings.Load(settings.Input{Environ: last(newPatient(t, servers.Postgres(t)).environ)})
	if err != nil {
		t.Fatal(err)
	}
	var told, want []string
	sheet := checkup.NewSheet(func(l checkup.Line) { told = append(told, l.Check) })
	if err := Examine(t.Context(), s, slog.New(slog.DiscardHandler), sheet); err != nil {
		t.Fatal(err)
	}
	for _, s := range visit() {
		want = append(want, s.check)
	}
	if !slices.Equal(told, want) {
		t.Errorf("told %q\nwant %q", told, want)
	}
}

// A check that no ailment of these tests brings out is one that nobody has seen fail.
func TestEveryCheckOfTheDoctorHasAnAilment(t *testing.T) {
	t.Parallel()
	named := ailmentsInSource(t)
	for _, s := range visit() {
		if !named[s.check] {
			t.Errorf("%s: no ailment has it fail or warn", s.check)
		}
	}
	for check := range named {
		if !slices.ContainsFunc(visit(), func(s step) bool { return s.check == check }) {
			t.Errorf("%s: an ailment names it, the visit does not have it", check)
		}
	}
}

// ailmentsInSource are the checks that stand as fail or warn of a literal in these tests.
func ailmentsInSource(t *testing.T) map[string]bool {
	t.Helper()
	files, err := filepath.Glob("examination*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	named := map[string]bool{}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			pair, ok := n.(*ast.KeyValueExpr)
			if !ok {
				return true
			}
			key, _ := pair.Key.(*ast.Ident)
			value, _ := pair.Value.(*ast.BasicLit)
			if key != nil && value != nil && slices.Contains([]string{"fail", "warn"}, key.Name) {
				check, err := strconv.Unquote(value.Value)
				if err != nil || !strings.Contains(check, ".") {
					t.Errorf("%s: %s is no check", name, value.Value)
				}
				named[check] = true
			}
			return true
		})
	}
	return named
}
