// Package report tells what was measured, where, and how to repeat it: one HTML page that needs
// nothing else, Markdown for a README, figures for programs. Its one rule: every figure stands
// beside its limit, its goal and its oracle's verdict.
package report

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"example.com/tiffin/cmd/bench/internal/harness"
)

// Environment is what the figures depend on.
type Environment struct {
	Kind     string    `json:"kind"` // environment
	Time     time.Time `json:"time"`
	Command  string    `json:"command"` // repeats the run
	Commit   string    `json:"commit"`
	CPU      string    `json:"cpu"`
	Cores    int       `json:"cores"`
	Memory   string    `json:"memory"`
	Kernel   string    `json:"kernel"`
	Go       string    `json:"go"`
	Postgres string    `json:"postgres,omitempty"`
	Kafka    string    `json:"kafka,omitempty"`
	Settings []string  `json:"settings"`
	Peers    []string  `json:"peers,omitempty"`
	Skipped  []string  `json:"skipped,omitempty"` // peers that could not be had
}

// Environ asks the machine, and the servers if the run had any. What cannot be asked is left empty.
func Environ(ctx context.Context, e *harness.Env, args []string) Environment {
	env := Environment{
		Kind: "environment", Time: time.Now().UTC().Truncate(time.Second), Command: "bench " + quoted(args[1:]), Commit: commit(ctx),
		CPU: field("/proc/cpuinfo", "model name"), Cores: runtime.NumCPU(), Memory: field("/proc/meminfo", "MemTotal"),
		Kernel: read("/proc/sys/kernel/osrelease"), Go: runtime.Version(),
	}
	env.Skipped = e.Skipped
	for _, p := range e.Peers {
		env.Peers = append(env.Peers, p.Name+": "+p.Guarantee)
	}
	if servers := e.Started(); servers != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second) // also after Ctrl-C
		defer cancel()
		facts := servers.Ask(ctx)
		env.Postgres, env.Kafka, env.Settings = facts.Postgres, facts.Kafka, facts.Settings
	}
	return env
}

func quoted(args []string) string {
	var words []string
	for _, arg := range args {
		if strings.ContainsAny(arg, " '\"$*") {
			arg = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
		}
		words = append(words, arg)
	}
	return strings.Join(words, " ")
}

// commit is what this program was built from, or what lies around it.
func commit(ctx context.Context) string {
	if info, ok := debug.ReadBuildInfo(); ok {
		revision, dirty := "", ""
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision":
				revision = s.Value
			case s.Key == "vcs.modified" && s.Value == "true":
				dirty = ", changed"
			}
		}
		if revision != "" {
			return revision + dirty
		}
	}
	out, err := exec.CommandContext(context.WithoutCancel(ctx), "git", "rev-parse", "HEAD").Output()
	if err != nil {
		return ""
	}
	return string(bytes.TrimSpace(out))
}

func read(path string) string {
	b, _ := os.ReadFile(path) //nolint:gosec // of /proc; none elsewhere
	return strings.TrimSpace(string(b))
}

// field is the first value of a name in a file of "name: value" lines.
func field(path, name string) string {
	for line := range strings.Lines(read(path)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
