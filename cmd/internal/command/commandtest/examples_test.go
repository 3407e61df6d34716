package commandtest

import (
	"errors"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestHelpWithoutAnExampleIsFound(t *testing.T) {
	t.Parallel()
	newRoot := func() *cobra.Command {
		root := &cobra.Command{Use: "root", Short: "Do", Example: "  root good"}
		good := &cobra.Command{Use: "good", Short: "Do well", Example: "  root good"}
		silent := &cobra.Command{Use: "silent", Short: "Say nothing", Example: "  root silent"}
		silent.SetHelpFunc(func(*cobra.Command, []string) {})
		good.AddCommand(&cobra.Command{Use: "bare", Short: "Show no example"}, &cobra.Command{Use: "other", Short: "Show another's", Example: "  root good"})
		root.AddCommand(good, silent, &cobra.Command{Use: "nameless", Example: "  root nameless"})
		for _, cmd := range append(append([]*cobra.Command{root}, root.Commands()...), good.Commands()...) {
			cmd.RunE = func(*cobra.Command, []string) error { return errors.New("run, instead of helping") }
		}
		return root
	}
	found := Unexplained(t.Context(), newRoot)
	for i, want := range []string{"root good bare: no example", "root good other: no example", "root nameless: no description", "root silent: --help"} {
		if i >= len(found) || !strings.HasPrefix(found[i], want) {
			t.Errorf("%q lacks %q", found, want)
		}
	}
	if len(found) != 4 {
		t.Errorf("found %q", found)
	}
}
