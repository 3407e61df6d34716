package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"example.com/tiffin/cmd/internal/command"
	"example.com/tiffin/cmd/internal/daemon"
	"example.com/tiffin/stream"
)

func newVerifyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Are both sinks equal over a range of input offsets? Names every difference",
		Long: `Compares the committed records of the output topic with the rows of the feedback table, and both with
the manifest: what is missing, extra or different on either side is named with its campaign message
and its client. Dead letters of malformed messages are looked for too. The column feedback is the
readers' own, and not compared. Nothing is written; a daemon may go on meanwhile: what is compared
ends where the ledger stood at the start, and the feedback database is read in one snapshot.

A bound is an RFC 3339 time (when messages were handled) or PARTITION:OFFSET, and may be repeated;
--from is inside the range, --to is not. As soon as a partition is named, only named ones are
compared. Without bounds it is all that the ledger knows of kafka.group.

The exit status is 0 when both sinks are equal, 1 when not. In at_least_once mode a record that came
twice, byte for byte the same, is named and is no difference. Records that retention has removed
with the older part of the topic are counted, and not judged.`,
		Example: `  tiffin verify -c tiffin.yaml
  tiffin verify --from 2026-01-31T00:00:00Z --to 2026-02-01T00:00:00Z
  tiffin verify --from 0:1000 --to 0:2000 --json | jq 'select(.kind)'`,
		Args: command.Args(cobra.NoArgs),
	}
	file := command.ConfigFlag(cmd)
	from := cmd.Flags().StringArray("from", nil, "begin at this `BOUND`: a time or PARTITION:OFFSET")
	to := cmd.Flags().StringArray("to", nil, "end before this `BOUND`")
	asJSON := cmd.Flags().Bool("json", false, "one object a line, last a summary with \"ok\"")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		bounds := [2][]stream.Bound{}
		var faults []error
		for i, texts := range [][]string{*from, *to} {
			for _, text := range texts {
				b, err := stream.ParseBound(text)
				faults = append(faults, err)
				bounds[i] = append(bounds[i], b)
			}
		}
		if err := errors.Join(faults...); err != nil {
			return command.Usage(cmd, err)
		}
		s, _, err := command.Load(cmd, *file, []string{"feedback.dsn", "kafka.brokers"})
		if err != nil {
			return err
		}
		v := daemon.Verification(s)
		v.From, v.To = bounds[0], bounds[1]
		return verify(cmd, v, *asJSON)
	}
	return cmd
}

func verify(cmd *cobra.Command, v stream.Verification, asJSON bool) error {
	v.Progress = new(stream.Progress)
	bar := newProgressBar(cmd.ErrOrStderr(), v.Progress)
	ctx, stop := context.WithCancel(cmd.Context())
	defer stop()
	drawn := make(chan struct{})
	go func() { defer close(drawn); bar.run(ctx) }()

	out := json.NewEncoder(cmd.OutOrStdout())
	verdict, err := stream.Verify(ctx, v, func(d stream.Difference) error {
		bar.clear()
		if asJSON {
			return out.Encode(d)
		}
		return command.Say(cmd, "%s", d.String())
	})
	stop()
	<-drawn
	switch {
	case err != nil:
		return fmt.Errorf("verify: %w", err)
	case asJSON:
		err = out.Encode(verdict)
	default:
		err = sayVerdict(cmd.OutOrStdout(), &verdict)
	}
	if err == nil && !verdict.OK {
		err = fmt.Errorf("verify: the sinks differ in %d places", verdict.Differences)
	}
	return err
}

func sayVerdict(out io.Writer, v *stream.Verdict) error {
	var b strings.Builder
	for _, p := range v.Partitions {
		fmt.Fprintf(&b, "%s/%d from %d to %d", v.Topic, p.Partition, p.From, p.To)
		if p.GroupOffset != nil {
			fmt.Fprintf(&b, " (group %s stands at %d: what lies behind may not be out yet)", v.Group, *p.GroupOffset)
		}
		b.WriteString("\n")
	}
	fmt.Fprintf(&b, "%d messages, %d rows, %d records, %d dead letters compared: %d differences\n", v.Messages, v.Rows, v.Records, v.DeadLetters, v.Differences)
	if v.Duplicates > 0 {
		fmt.Fprintf(&b, "%d records more than rows, byte for byte the same as another\n", v.Duplicates)
	}
	if v.Gone > 0 {
		fmt.Fprintf(&b, "%d deliveries not judged: their records are gone by retention of the topic\n", v.Gone)
	}
	if other := v.Other - v.Unmarked; other > 0 {
		fmt.Fprintf(&b, "%d records of other messages, or from before the group began, left aside\n", other)
	}
	if v.Unmarked+v.UnmarkedLetters > 0 {
		fmt.Fprintf(&b, "%d records and %d dead letters without the header trigger, from outside of these messages' time, left aside: another program wrote them\n",
			v.Unmarked, v.UnmarkedLetters)
	}
	_, err := io.WriteString(out, b.String())
	return err
}
