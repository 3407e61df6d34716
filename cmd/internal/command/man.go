package command

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// manCommand is the command "man" of a program: its manual pages, of the very text of --help.
func manCommand(program string) *cobra.Command {
	return &cobra.Command{
		Use:   "man DIRECTORY",
		Short: "Write the manual pages, one for each command",
		Long: `Writes the manual pages of this program and its commands into a directory, which is made if it is
not there. The date is the commit's, so that the pages of a build are the same wherever they are made.`,
		Example: fmt.Sprintf("  %[1]s man /usr/local/share/man/man1\n  man %[1]s-version", program),
		Args:    Args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil { //nolint:gosec // manual pages are for everybody
				return fmt.Errorf("make the directory of manual pages: %w", err)
			}
			build := ThisBuild()
			date, err := time.Parse(time.RFC3339, build.Date)
			if err != nil {
				date = time.Unix(0, 0).UTC() // unknown
			}
			root := cmd.Root()
			root.DisableAutoGenTag = true // it has the day of today
			for _, c := range append(root.Commands(), root) {
				c.Long = asWritten(c.Long)
			}
			return doc.GenManTree(root, &doc.GenManHeader{
				Section: "1", Date: &date, Source: "tiffin " + build.Version, Manual: "tiffin",
			}, args[0])
		},
	}
}

// asWritten keeps indented lines, such as tables, as they are: to Markdown, of which the pages are
// made, they are one paragraph.
func asWritten(text string) string {
	var lines []string
	block := false
	for line := range strings.SplitSeq(text, "\n") {
		indented := strings.HasPrefix(line, "  ")
		if indented && !block {
			lines = append(lines, "")
		}
		if block = indented; indented {
			line = "    " + line
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}
