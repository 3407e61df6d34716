package command

import "testing"

// What a doctor that was given a file tells to type is given the same one: without it tiffin migrate
// --print would make the table of the default name, and say nothing.
func TestFixReadsTheSettingsOfItsCommand(t *testing.T) {
	t.Parallel()
	for fix, want := range map[string]string{
		"tiffin migrate, or for a DBA: tiffin migrate --print --role w | psql feedback": "tiffin migrate -c t.yaml, or for a DBA: tiffin migrate -c t.yaml --print --role w | psql feedback",
		"slotsetup apply: SELECT 1;":              "slotsetup apply -c t.yaml: SELECT 1;",
		"DROP TABLE t; -- or: slotsetup apply":    "DROP TABLE t; -- or: slotsetup apply -c t.yaml",
		"try again: tiffin doctor":                "try again: tiffin doctor -c t.yaml",
		"see pg_hba.conf of tiffin, or slotsetup": "see pg_hba.conf of tiffin, or slotsetup",
	} {
		if got := SameSettings(fix, "t.yaml"); got != want {
			t.Errorf("%q, want %q", got, want)
		}
		if got := SameSettings(fix, ""); got != fix {
			t.Errorf("without a file %q, want %q", got, fix)
		}
	}
	if got := SameSettings("tiffin doctor", "my settings.yaml"); got != "tiffin doctor -c 'my settings.yaml'" {
		t.Errorf("%q", got)
	}
}
