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
