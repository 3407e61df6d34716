package commandtest

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestFlagsThatTakeASecretAreFound(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"kafka-password", "password", "feedback-dsn", "sasl.password", "pass", "tls-key", "setup-dsn", "api_token", "source-conninfo", "pwd"} {
		if f := flag(name, "something"); !secret(f.Flags().Lookup(name)) {
			t.Errorf("--%s is not found", name)
		}
	}
	if f := flag("login", "USER and password"); !secret(f.Flags().Lookup("login")) {
		t.Error("what --help says of a flag is not read")
	}
	for _, name := range []string{"config", "from", "role", "daemon", "monkey", "passes"} {
		if f := flag(name, "something"); secret(f.Flags().Lookup(name)) {
			t.Errorf("--%s takes no secret", name)
		}
	}
}

func TestEveryCommandIsLookedAt(t *testing.T) {
	t.Parallel()
	root, below, deepest := &cobra.Command{Use: "root"}, &cobra.Command{Use: "below"}, &cobra.Command{Use: "deepest"}
	root.AddCommand(below)
	below.AddCommand(deepest)
	root.PersistentFlags().String("root-password", "", "")
	deepest.Flags().String("deep-password", "", "")
	deepest.Flags().Lookup("deep-password").Hidden = true
	if got := strings.Join(SecretFlags(root), " "); got != "root --root-password root below deepest --deep-password" {
		t.Errorf("found %s", got)
	}
}

func flag(name, usage string) *cobra.Command {
	cmd := &cobra.Command{Use: "x"}
	cmd.Flags().String(name, "", usage)
	return cmd
}
