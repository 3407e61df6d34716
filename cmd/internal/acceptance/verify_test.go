package acceptance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// verification is one run of `tiffin verify --json`.
type verification struct {
	OK                            bool
	Messages, Rows, Records       int64
	Differences, Duplicates, Gone int64
	lines                         []string // of differences
	exit                          int
	peak                          int64 // bytes resident
	took, cpu                     time.Duration
}

func (w *world) verify(args ...string) verification {
	w.t.Helper()
	path, err := binary()
	if err != nil {
		w.t.Fatal(err)
	}
	var out, logs bytes.Buffer
	cmd := exec.CommandContext(w.t.Context(), path, append([]string{"verify", "--json"}, args...)...)
	cmd.Env, cmd.Stdout, cmd.Stderr = w.env, &out, &logs
	began := time.Now()
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }() // the exit status tells
	peak := peakUntil(ended, cmd.Process.Pid)
	v := verification{exit: cmd.ProcessState.ExitCode(), took: time.Since(began), peak: peak}
	v.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	v.lines = strings.Split(strings.TrimSpace(out.String()), "\n")
	last := v.lines[len(v.lines)-1]
	v.lines = v.lines[:len(v.lines)-1]
	if err := json.Unmarshal([]byte(last), &v); err != nil {
		w.t.Fatalf("last line %q: %v\n%s", last, err, logs.String())
	}
	if v.OK != (v.exit == 0) || v.exit != 0 && !strings.Contains(logs.String(), "differ") {
		w.t.Errorf("exit status %d, ok %t:\n%s", v.exit, v.OK, logs.String())
	}
	return v
}

// peakUntil samples the largest resident set, in bytes, that a process has had, until it ends: the
// rusage of a child counts the memory of the parent that it was forked from.
func peakUntil(ended <-chan struct{}, pid int) (peak int64) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ended:
			return peak
		case <-tick.C:
		}
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if _, after, found := strings.Cut(string(status), "VmHWM:"); err == nil && found {
			kilobytes, _, _ := strings.Cut(strings.TrimSpace(after), " ")
			n, _ := strconv.ParseInt(kilobytes, 10, 64) // what cannot be read counts as nothing
			peak = max(peak, n<<10)
		}
	}
}

// The program compares both sinks by streaming: ten times as many deliveries take no more
// memory. VERIFY_DELIVERIES makes it a measurement.
func TestVerifyTakesNoMoreMemoryForMore(t *testing.T) {
	t.Parallel()
	deliveries := 200_000
	if text := os.Getenv("VERIFY_DELIVERIES"); text != "" {
		var err error
		if deliveries, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	w := newWorld(t, 1)
	const fan = 1000
	w.source.Exec(t, fmt.Sprintf(`INSERT INTO subscribers_restaurants (client_id, restaurant_id) SELECT gen_random_uuid(), 'r' FROM generate_series(1, %d)`, fan))
	now := time.Now().Unix()
	messages := make([]*campaign, deliveries/fan)
	for i := range messages {
		messages[i] = message("r", fmt.Sprint(i), strings.Repeat("x", 200), now-1000, now+100_000, nil)
	}
	w.publish(messages...)
	w.untilNow()
	tenth := w.verify("--to", fmt.Sprintf("0:%d", len(messages)/10))
	all := w.verify()
	if tenth.exit != 0 || all.exit != 0 || all.Rows != int64(deliveries) || all.Records != int64(deliveries) || tenth.Rows != int64(deliveries/10) {
		t.Errorf("%+v\n%+v", tenth, all)
	}
	t.Logf("%d deliveries in %s (%.0f a second), %s of CPU, %d MB resident; a tenth of them: %d MB", deliveries, all.took,
		float64(deliveries)/all.took.Seconds(), all.cpu, all.peak>>20, tenth.peak>>20)
	if tenth.peak > 0 && all.peak > tenth.peak*3/2 { // 0: not Linux
		t.Errorf("%d MB for all, %d MB for a tenth", all.peak>>20, tenth.peak>>20)
	}
	w.feedback.Exec(t, `DELETE FROM subscribers_feedback WHERE id % 50000 = 1`)
	if v := w.verify(); v.exit != 1 || v.Differences != int64((deliveries+49_999)/50_000) || !strings.Contains(v.lines[0], `"kind":"missing_row"`) {
		t.Errorf("%+v", v)
	}
}

// at_least_once: kill -9 in the middle of a backlog, again and again. Nothing is missing; what
// came twice is the same byte for byte, and of the same message; rows are there once.
func TestKilledAtLeastOnceDuplicatesAreTheSame(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	random := rand.New(rand.NewPCG(5, 6))
	of := w.subscribe(20_000, 40, random)
	messages := mixed(of, 600, random)
	for _, m := range messages {
		m.partition %= 2
	}
	w.publish(messages...)
	w.env = append(w.env, "TIFFIN_DELIVERY_MODE=at_least_once", "TIFFIN_DELIVERY_MAX_TRANSACTION_RECORDS=500")
	for kills, before := 0, -1; kills < 5; kills++ {
		p := w.start("run")
		w.eventually("progress", func() bool { n := w.count(); ok := n > before; before = max(before, n); return ok })
		time.AfterFunc(time.Duration(random.IntN(300))*time.Millisecond, p.kill)
		p.done <- <-p.done
	}
	w.untilNow()
	w.rewind() // as after a crash between the brokers' acknowledgement and the group's offset
	w.untilNow()

	records, times := w.records()
	once := map[string]bool{}
	var distinct []string
	for _, r := range records {
		if !once[r] {
			once[r] = true
			distinct = append(distinct, r)
		}
	}
	want := w.expected(messages)
	compare(t, "records, each once", distinct, want) // a duplicate with a byte changed would be one more
	compare(t, "rows", w.rows(times), want)
	v := w.verify()
	if v.exit != 0 || v.Duplicates == 0 && len(records) > len(want) || len(v.lines) > 0 && !strings.Contains(v.lines[0], `"harmless":true`) {
		t.Errorf("%+v", v)
	}
	t.Logf("%d records, %d of them duplicates; verify: %d differences, %d duplicates", len(records), len(records)-len(distinct), v.Differences, v.Duplicates)
	if len(records) == len(distinct) {
		t.Error("no record came twice: the test proved nothing")
	}
}

// rewind sets the group's offsets to the beginning.
func (w *world) rewind() {
	w.t.Helper()
	starts, err := kadm.NewClient(w.cl).ListStartOffsets(w.t.Context(), w.topic.in)
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := kadm.NewClient(w.cl).CommitOffsets(w.t.Context(), w.group(), starts.Offsets()); err != nil {
		w.t.Fatal(err)
	}
}
