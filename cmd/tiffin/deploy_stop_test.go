package main

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// The kubelet restarts what hangs and sends nothing to what is not ready: it asks the endpoint's two answers,
// on the port that the daemon listens on (TestKubernetesSettingsAreValidWithTheSecretAskedFor).
func TestKubernetesProbesAskTheEndpoint(t *testing.T) {
	t.Parallel()
	c := readManifest(t).container
	for path, asked := range map[string]probe{"/livez": c.LivenessProbe, "/readyz": c.ReadinessProbe} {
		if get := asked.HTTPGet; get.Path != path || get.Port != c.Ports[0].Name {
			t.Errorf("%s is to be asked on the port %s: the probe asks %q on %q", path, c.Ports[0].Name, get.Path, get.Port)
		}
	}
}

// Whoever asks the daemon to stop waits for longer than it needs at most. One that is killed before loses nothing, but
// its campaigns are late: the group gives its partitions to others when its session times out.
func TestDaemonIsGivenTheTimeThatItNeedsToStop(t *testing.T) {
	t.Parallel()
	var compose struct {
		Services map[string]struct {
			Grace time.Duration `yaml:"stop_grace_period"`
		}
	}
	if err := yaml.Unmarshal([]byte(textOf(t, "deploy/compose/compose.yaml")), &compose); err != nil {
		t.Fatal(err)
	}
	need := longestStop(t)
	for who, granted := range map[string]time.Duration{
		kubernetesFile: readManifest(t).grace, "deploy/compose/compose.yaml": compose.Services["tiffin"].Grace,
		unitFile: unitSpan(t, unitFile, "TimeoutStopSec"), templateFile: unitSpan(t, templateFile, "TimeoutStopSec"),
	} {
		if granted <= need {
			t.Errorf("%s grants %v to stop, it may take %v", who, granted, need)
		}
	}
	if told := "asked to stop it ends within " + strconv.Itoa(int(need.Seconds())) + " s"; !strings.Contains(textOf(t, "docs/operating.md"), told) {
		t.Errorf("docs/operating.md does not say: %s", told)
	}
}

// longestStop is the sum of what the parts allow themselves when no server answers any more, in the order in which
// they end: what goes side by side is counted in turn.
func longestStop(t *testing.T) (sum time.Duration) {
	t.Helper()
	for _, part := range []struct {
		file, limit string // and what stands before its time there
		times       int
	}{
		{"stream/session.go", "drainTimeout = ", 1},  // what is in hand
		{"stream/session.go", "leaveTimeout = ", 3},  // the group's coordinator, the client's end, a static member's removal
		{"stream/producer.go", "abortTimeout = ", 1}, // open transactions, of all producers at once
		{"stream/writer.go", `func \(w \*writer\) close[^}]*context\.WithTimeout\(context\.WithoutCancel\(ctx\), `, 2}, // the connections of both writers
		{"cdc/dial.go", `const askLimit = `, 1},                                                     // the walsender, if it had to be ended
		{"cdc/dial.go", `func hangUp[^}]*context\.WithTimeout\(context\.WithoutCancel\(ctx\), `, 3}, // the reader's connections, the fences'
		{"cmd/internal/httpd/httpd.go", `stopLimit\s+= `, 1},                                        // answers under way
		{"cmd/internal/daemon/tracing.go", "const stopTracing = ", 1},                               // the last spans
	} {
		found := regexp.MustCompile(part.limit + `(?:(\d+)\s?\*\s?)?time\.Second\b`).FindStringSubmatch(textOf(t, part.file))
		if found == nil {
			t.Fatalf("%s has no %s", part.file, part.limit)
		}
		seconds, err := strconv.Atoi("0" + found[1])
		if err != nil {
			t.Fatal(err)
		}
		sum += time.Duration(part.times*max(seconds, 1)) * time.Second
	}
	// A pool's end waits until the server was asked to cancel the page's question (pgconn.PgConn.asyncClose).
	return sum + 15*time.Second
}

// unitSpan is a time of a unit's service, as seconds; 0 where it is not set.
func unitSpan(t *testing.T, file, key string) time.Duration {
	t.Helper()
	lines := unitLines(t, file)
	i := slices.IndexFunc(lines, func(line string) bool { return strings.HasPrefix(line, "[Service] "+key+"=") })
	if i < 0 {
		return 0
	}
	_, text, _ := strings.Cut(lines[i], "=")
	span, err := time.ParseDuration(text)
	if err != nil {
		t.Errorf("%s: %v", lines[i], err)
	}
	return span
}
