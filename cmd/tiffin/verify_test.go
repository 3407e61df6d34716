package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"example.com/tiffin/cmd/internal/command"
	"example.com/tiffin/stream"
)

// Not parallel: commands read the environment of the process.
func TestVerifyTellsUsageFromFaults(t *testing.T) {
	clearEnvironment(t)
	for _, args := range [][]string{{"verify", "--from", "yesterday"}, {"verify", "--to", "1"}, {"verify", "extra"}, {"verify"}} {
		if code, stdout, stderr := execute(t, args...); code != command.ExitUsage || stdout != "" || stderr == "" {
			t.Errorf("tiffin %q: %d %q %q", args, code, stdout, stderr)
		}
	}
	t.Setenv("TIFFIN_FEEDBACK_DSN", "postgres://u:hunter2@127.0.0.1:1/d")
	t.Setenv("TIFFIN_KAFKA_BROKERS", "127.0.0.1:1")
	code, stdout, stderr := execute(t, "verify")
	if code != command.ExitFault || stdout != "" || !strings.Contains(stderr, "kafka") || strings.Contains(stderr, "hunter2") {
		t.Errorf("without servers: %d %q %q", code, stdout, stderr)
	}
}

// The bar is for a terminal: elsewhere nothing of it is written.
func TestProgressBarIsForATerminal(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	bar := newProgressBar(&out, new(stream.Progress))
	bar.run(t.Context()) // returns at once
	bar.clear()
	if out.Len() != 0 {
		t.Errorf("%q", out.String())
	}
	bar = &progressBar{out: &out, from: new(stream.Progress)}
	bar.draw(time.Now())
	bar.clear()
	if text := out.String(); !strings.Contains(text, "waiting") || !strings.HasSuffix(text, "\r\x1b[K") {
		t.Errorf("%q", text)
	}
}

// What people read at the end: where it looked, what it counted, and only what there is to say.
func TestVerdictIsSaidInWords(t *testing.T) {
	t.Parallel()
	at := int64(40)
	plain := stream.Verdict{Topic: "in", Group: "g", Messages: 3, Rows: 20, Records: 20, DeadLetters: 1, OK: true}
	plain.Partitions = []stream.JudgedSpan{{Partition: 0, From: 5, To: 50}}
	full := plain
	full.Partitions = []stream.JudgedSpan{{Partition: 0, From: 5, To: 50}, {Partition: 2, From: 0, To: 44, GroupOffset: &at}}
	full.Differences, full.Duplicates, full.Gone, full.Other = 4, 6, 7, 8
	moved := plain
	moved.Other, moved.Unmarked, moved.UnmarkedLetters = 1201, 1200, 2
	for _, c := range []struct {
		verdict stream.Verdict
		want    string
	}{
		{plain, "in/0 from 5 to 50\n3 messages, 20 rows, 20 records, 1 dead letters compared: 0 differences\n"},
		{full, "in/0 from 5 to 50\nin/2 from 0 to 44 (group g stands at 40: what lies behind may not be out yet)\n" +
			"3 messages, 20 rows, 20 records, 1 dead letters compared: 4 differences\n" +
			"6 records more than rows, byte for byte the same as another\n" +
			"7 deliveries not judged: their records are gone by retention of the topic\n" +
			"8 records of other messages, or from before the group began, left aside\n"},
		{moved, "in/0 from 5 to 50\n3 messages, 20 rows, 20 records, 1 dead letters compared: 0 differences\n" +
			"1 records of other messages, or from before the group began, left aside\n" +
			"1200 records and 2 dead letters without the header trigger, from outside of these messages' time, left aside: another program wrote them\n"},
	} {
		var out strings.Builder
		if err := sayVerdict(&out, &c.verdict); err != nil || out.String() != c.want {
			t.Errorf("%v\n got %q\nwant %q", err, out.String(), c.want)
		}
	}
}
