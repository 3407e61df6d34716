package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/dustin/go-humanize"

	"example.com/tiffin/cmd/bench/internal/harness"
	"example.com/tiffin/cmd/bench/internal/soak"
)

// The kills of a soak that is not told how long to be.
const (
	soakKills      = 50
	quickSoakKills = 10
)

func soakScenario() harness.Scenario {
	return harness.Scenario{
		Name:       "soak",
		Summary:    "daemons, brokers, databases and connections die at random; an oracle judges both sinks (--kills, --for, --seed)",
		OwnServers: true, Run: runSoak,
	}
}

func runSoak(ctx context.Context, e *harness.Env) (*harness.Result, error) {
	program, err := e.Program(ctx)
	if err != nil {
		return nil, err
	}
	c := soak.Config{Program: program, Dir: e.Dir, Seed: e.Seed, Kills: e.Kills, For: e.For, Say: e.Say}
	if c.Kills == 0 && c.For == 0 {
		c.Kills = soakKills
		if e.Quick {
			c.Kills = quickSoakKills
		}
	}
	if c.Seed == 0 {
		var b [4]byte
		_, _ = rand.Read(b[:]) // never fails, see crypto/rand
		c.Seed = uint64(binary.BigEndian.Uint32(b[:]))
	}
	s, err := soak.Run(ctx, c)
	if s == nil {
		return nil, err
	}
	r := soakResult(s)
	if err != nil {
		return r, err
	}
	return r, r.Judge(soakVerdict(s))
}

func soakResult(s *soak.Report) *harness.Result {
	r := &harness.Result{}
	r.Add(
		harness.Figure{Name: "kills", Unit: harness.Count, Value: float64(s.Kills)},
		harness.Figure{Name: "other faults", Unit: harness.Count, Value: float64(s.OtherFaults)},
		harness.Figure{Name: "changes committed", Unit: harness.Count, Value: float64(s.Changes)},
		harness.Figure{Name: "campaign messages", Unit: harness.Count, Value: float64(s.Messages)},
		harness.Figure{Name: "deliveries", Unit: harness.Count, Value: float64(s.Deliveries)},
		harness.Figure{Name: "last fault to all delivered, at most", Unit: harness.Seconds, Value: s.SlowestRound.Seconds()},
	)
	r.Note("Seed %d, %v; the daemons had %s lives; %s messages were delivered, %s dead letters; for %s messages only one state of the table was admissible.",
		s.Seed, s.Took.Round(1e9), strings.Trim(fmt.Sprint(s.Lives), "[]"), humanize.Comma(int64(s.Delivered)), humanize.Comma(int64(s.DeadLetters)), humanize.Comma(int64(s.OneState)))
	for _, told := range s.Told {
		r.Note("%s", told)
	}
	return r
}

func soakVerdict(s *soak.Report) harness.Verdict {
	v := harness.Verdict{Exact: s.OK(), Text: fmt.Sprintf("seed %d, %d kills: %d lost, %d twice, %d stale, %d different, %d out of order",
		s.Seed, s.Kills, s.Lost, s.Twice, s.Stale, s.Different, s.OutOfOrder)}
	return v
}
