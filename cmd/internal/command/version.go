package command

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

// stamp is "VERSION COMMIT DATE", set by the linker (-X): a build from an archive or in a container
// has no repository for the go command to look at. The date is the commit's, so that a build can
// be repeated byte for byte.
var stamp string //nolint:gochecknoglobals // the linker sets nothing else

// Build tells which program runs. What is not known is "unknown".
type Build struct {
	Version string // a tag, or what the go command makes of the commit
	Commit  string
	Date    string // of the commit, RFC 3339
}

// ThisBuild returns the build of this process: the linker's stamp, else what the go command recorded.
func ThisBuild() Build {
	info, _ := debug.ReadBuildInfo()
	return buildFrom(stamp, info)
}

func buildFrom(stamp string, info *debug.BuildInfo) Build {
	b := Build{"unknown", "unknown", "unknown"}
	if info != nil {
		if info.Main.Version != "" {
			b.Version = info.Main.Version
		}
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				b.Commit = s.Value
			case "vcs.time":
				b.Date = s.Value
			}
		}
	}
	if parts := strings.Fields(stamp); len(parts) == 3 {
		b = Build{parts[0], parts[1], parts[2]}
	}
	return b
}

// versionCommand is the command "version" of a program.
func versionCommand(program string) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print version, commit and the commit's date",
		Example: "  " + program + " version",
		Args:    Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			b := ThisBuild()
			return Say(cmd, "%s %s (commit %s of %s) %s %s/%s", program, b.Version, b.Commit, b.Date,
				runtime.Version(), runtime.GOOS, runtime.GOARCH)
		},
	}
}

// String is what logs and pages show.
func (b Build) String() string { return fmt.Sprintf("%s (%.12s)", b.Version, b.Commit) }
