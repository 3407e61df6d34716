package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"example.com/tiffin/cmd/bench/internal/harness"
	"example.com/tiffin/cmd/bench/internal/report"
	"example.com/tiffin/cmd/bench/internal/testbed"
	"example.com/tiffin/cmd/internal/command"
)

// flags are what the command line says.
type flags struct {
	options  harness.Options
	peers    []string
	peersDir string
	json     string
	report   string
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "bench [SCENARIO…]",
		Short: "Measure tiffin from outside, beside the machine's limit",
		Long: `Starts a real Apache Kafka (Java and, the first time, Maven are needed) and durable PostgreSQL in a
temporary directory, runs "tiffin run" as a process of its own, and measures from outside. Both
sinks are compared with the expected deliveries, each of them. The exit status is 1 if they differ
or a goal is missed. Progress goes to stderr, results to stdout. The scenarios, of which "bench list"
tells more: ` + named(scenarios(), func(harness.Scenario) bool { return true }) + `.

Servers that run already are used instead if BENCH_KAFKA_BROKERS, BENCH_SOURCE_DSN and
BENCH_FEEDBACK_DSN are set: brokers without TLS, and URLs for roles that may create databases, that of
the source with REPLICATION. These
scenarios start their own all the same, because they configure, stop or kill them:
` + named(scenarios(), func(s harness.Scenario) bool { return s.OwnServers }) + `.`,
		Example: "  bench list\n  bench throughput\n  bench throughput --case 'fan-out 100' --runs 3\n  bench throughput --case 'fan-out 100' --runs 5 --against bin/tiffin-without-pgo\n  bench throughput latency --runs 3 --report /tmp/report --json /tmp/figures.json\n  bench all --quick",
		Args:    checkScenarios,
	}
	var f flags
	o := &f.options
	root.Flags().BoolVar(&o.Quick, "quick", false, "a small form of each scenario that takes seconds; sinks and answers are checked, no goal is judged")
	root.Flags().IntVar(&o.Runs, "runs", 1, "`N` repetitions, tiffin and the peers in turn; medians and spread are shown")
	root.Flags().StringArrayVar(&o.Cases, "case", nil, "only the cases of a scenario whose `NAME` is this; repeatable")
	root.Flags().StringVar(&o.Tiffin, "tiffin", "", "`PATH` of the program to measure (default: tiffin beside bench, else built from the source)")
	root.Flags().StringArrayVar(&o.Against, "against", nil, "`PATH` of another build of tiffin to measure in turn with it; repeatable; where peers take part")
	root.Flags().StringVar(&o.Dir, "dir", "", "`DIRECTORY` that the servers' directories are made in; its disk is measured too (default: for temporary files)")
	root.Flags().IntVar(&o.Kills, "kills", 0, "`NUMBER` of kill -9 after which soak ends (default: 50, with --quick 10)")
	root.Flags().DurationVar(&o.For, "for", 0, "`TIME` after which soak ends, if that is not by --kills")
	root.Flags().Uint64Var(&o.Seed, "seed", 0, "`NUMBER` that soak draws changes, campaigns and faults from (default: any, it is printed)")
	root.Flags().StringArrayVar(&f.peers, "peer", nil, "`NAME` of a program to measure beside tiffin; repeatable; bench list names them")
	f.peersFlag(root)
	root.Flags().StringVar(&f.json, "json", "", "`FILE` for the figures, one JSON object a line, the last a summary with \"ok\"; - for stdout instead of text")
	root.Flags().StringVar(&f.report, "report", "", "`DIRECTORY` for a report: index.html, README.md, figures.json, CPU profiles")
	root.RunE = func(cmd *cobra.Command, names []string) error {
		o.Progress = cmd.ErrOrStderr()
		if err := checkOptions(o); err != nil {
			return command.Usage(cmd, err)
		}
		return f.run(cmd.Context(), cmd, names)
	}
	root.ValidArgsFunction = completeScenarios
	return command.Root(root, newListCommand(&f))
}

func (f *flags) peersFlag(of *cobra.Command) {
	of.Flags().StringVar(&f.peersDir, "peers", "cmd/bench/peers", "`DIRECTORY` of the peers")
}

// all names every scenario on the command line.
const all = "all"

func chosen(names []string) []harness.Scenario {
	return slices.DeleteFunc(scenarios(), func(s harness.Scenario) bool {
		return !slices.Contains(names, s.Name) && !slices.Contains(names, all)
	})
}

func (f *flags) run(ctx context.Context, cmd *cobra.Command, names []string) (err error) {
	if f.options.Given, err = testbed.GivenBy(os.Getenv); err != nil {
		return command.Usage(cmd, err)
	}
	if err := f.checkPeers(names); err != nil {
		return command.Usage(cmd, err)
	}
	chosen := chosen(names)
	e, err := harness.NewEnv(f.options)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	if err := f.preparePeers(ctx, e); err != nil {
		return err
	}
	text := cmd.OutOrStdout()
	if f.json == "-" {
		text = io.Discard
	}
	outcomes, verdict := harness.Run(ctx, e, chosen, func(o *harness.Outcome) error { return harness.WriteText(text, o) })
	environment := report.Environ(ctx, e, os.Args)
	switch f.json {
	case "":
	case "-":
		err = harness.WriteJSON(cmd.OutOrStdout(), environment, outcomes)
	default:
		err = writeFile(f.json, func(w io.Writer) error { return harness.WriteJSON(w, environment, outcomes) })
	}
	if f.report != "" {
		err = errors.Join(err, report.Write(f.report, environment, outcomes))
	}
	return errors.Join(verdict, err)
}

// checkOptions refuses what would be found out after minutes. Programs are named by their whole paths from here on.
func checkOptions(o *harness.Options) error {
	if o.Runs < 1 {
		return fmt.Errorf("--runs is %d, and must be at least 1", o.Runs)
	}
	if o.Kills < 0 || o.For < 0 {
		return fmt.Errorf("--kills %d, --for %v: neither can be negative", o.Kills, o.For)
	}
	seen := map[string]bool{}
	for i := range o.Against {
		path, err := executable(o.Against[i])
		if err != nil {
			return fmt.Errorf("--against: %w", err)
		}
		if seen[path] {
			return fmt.Errorf("--against: %s is named twice", path)
		}
		o.Against[i], seen[path] = path, true
	}
	if o.Tiffin == "" {
		return nil
	}
	path, err := executable(o.Tiffin)
	if err != nil {
		return fmt.Errorf("--tiffin: %w", err)
	}
	o.Tiffin = path
	return nil
}

// executable is the whole path of a file that can be executed.
func executable(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("there is no such build: %w", err)
	}
	if !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
		return "", fmt.Errorf("%s is no program", path)
	}
	return filepath.Abs(path)
}

// checkPeers refuses a peer or a build that there is not, and either for a scenario that is named and
// takes none. With "all" they take part where they can.
func (f *flags) checkPeers(names []string) error {
	for _, name := range f.peers {
		if there := testbed.Peers(f.peersDir); !slices.Contains(there, name) {
			return fmt.Errorf("there is no peer %q in %s; there are: %s", name, f.peersDir, strings.Join(there, ", "))
		}
	}
	for _, s := range scenarios() {
		if len(f.peers)+len(f.options.Against) > 0 && !s.Peers && slices.Contains(names, s.Name) {
			return fmt.Errorf("%s has no peers: leave --peer and --against out", s.Name)
		}
	}
	return nil
}

// preparePeers lets the peers fetch what they need; one that can't be had here is left out.
func (f *flags) preparePeers(ctx context.Context, e *harness.Env) error {
	for _, name := range f.peers {
		e.Say("peer %s: fetching and building what it needs", name)
		p, err := testbed.PreparePeer(ctx, f.peersDir, name)
		if errors.Is(err, testbed.ErrUnavailable) {
			e.Say("SKIPPED %v", err)
			e.Skipped = append(e.Skipped, fmt.Sprintf("%s: %v", name, err))
			continue
		}
		if err != nil {
			return err
		}
		e.Peers = append(e.Peers, p)
	}
	return nil
}

func writeFile(path string, write func(io.Writer) error) (err error) {
	file, err := os.Create(path) //nolint:gosec // it is the user's
	if err != nil {
		return fmt.Errorf("make the file of figures: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	return write(file)
}

// completeScenarios completes the names of those that are not on the line yet.
func completeScenarios(_ *cobra.Command, named []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	var names []cobra.Completion
	for _, s := range scenarios() {
		if !slices.Contains(named, s.Name) {
			names = append(names, cobra.CompletionWithDesc(s.Name, s.Summary))
		}
	}
	return append(names, cobra.CompletionWithDesc(all, "every scenario")), cobra.ShellCompDirectiveNoFileComp
}

func checkScenarios(cmd *cobra.Command, names []string) error {
	if len(names) == 0 {
		return command.Usage(cmd, errors.New("name a scenario"))
	}
	for _, name := range names {
		if name != all && !slices.ContainsFunc(scenarios(), func(s harness.Scenario) bool { return s.Name == name }) {
			return command.Usage(cmd, fmt.Errorf("there is no scenario %q; bench list names them", name))
		}
	}
	return nil
}
