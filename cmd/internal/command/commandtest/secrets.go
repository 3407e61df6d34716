// Package commandtest judges the command lines of all programs by the same rules.
package commandtest

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// SecretFlags lists the flags of root and of all commands below it that would take a secret: a
// flag's value is shown to everyone who lists processes. --help has a say in it too, so that
// another name for the same thing is found.
func SecretFlags(root *cobra.Command) []string {
	var found []string
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		for _, flags := range []*pflag.FlagSet{cmd.LocalFlags(), cmd.PersistentFlags()} {
			flags.VisitAll(func(f *pflag.Flag) {
				if shown := cmd.CommandPath() + " --" + f.Name; secret(f) && !slices.Contains(found, shown) {
					found = append(found, shown)
				}
			})
		}
		for _, child := range cmd.Commands() {
			walk(child)
		}
	}
	walk(root)
	return found
}

func secret(f *pflag.Flag) bool {
	if f.Value.Type() == "bool" {
		return false // it can hold none
	}
	named := []string{"passw", "passphrase", "pwd", "secret", "token", "credential", "sasl", "dsn", "conninfo"}
	described := []string{"password", "passphrase", "secret", "token", "credential", "postgres://", "connection string", "private key"}
	contains := func(text string) func(string) bool {
		return func(word string) bool { return strings.Contains(strings.ToLower(text), word) }
	}
	if slices.ContainsFunc(named, contains(f.Name)) || slices.ContainsFunc(described, contains(f.Usage)) {
		return true
	}
	parts := strings.FieldsFunc(strings.ToLower(f.Name), func(r rune) bool { return r == '-' || r == '_' || r == '.' })
	return slices.Contains(parts, "pass") || slices.Contains(parts, "key")
}
