package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"example.com/tiffin/cmd/internal/command"
	"example.com/tiffin/cmd/internal/daemon"
	"example.com/tiffin/cmd/internal/settings"
	"example.com/tiffin/stream"
)

func newExplainCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "explain TOPIC/PARTITION/OFFSET",
		Short: "What became of one campaign message, and why a client did or did not get it",
		Long: `Answers from the manifest in the feedback database: outcome, time, database position, recipients.
Output records and dead letters carry the name of their message in the header trigger. As long as not
all of its records are committed in Kafka, as of a large campaign, the message is under way, and how
many are is told; for that kafka.brokers must be set too, and answer within 5 s. Of the settings it
needs feedback.dsn, and kafka.group if that is not the default.
The exit status is 1 if the message is not known.`,
		Example: `  tiffin explain campaigns/0/1234
  tiffin explain campaigns/0/1234 --client 123e4567-e89b-12d3-a456-426614174001 --json`,
		Args: command.Args(cobra.ExactArgs(1)),
	}
	file := command.ConfigFlag(cmd)
	client := cmd.Flags().String("client", "", "did this client `ID` get it, and why")
	asJSON := cmd.Flags().Bool("json", false, "one object, with \"ok\"; false when the message is not known")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if _, _, _, err := stream.ParseTrigger(args[0]); err != nil {
			return command.Usage(cmd, err)
		}
		if !cmd.Flags().Changed("client") {
			client = nil
		}
		s, _, err := command.Load(cmd, *file, []string{"feedback.dsn"})
		if err != nil {
			return err
		}
		e, err := explain(cmd.Context(), s, args[0], client)
		unsaid := errUnknownSent
		if err == nil && len(s.Kafka.Brokers) > 0 {
			unsaid = tellSent(cmd.Context(), s, &e)
		}
		switch {
		case *asJSON && (err == nil || errors.Is(err, stream.ErrUnknownTrigger)):
			err = errors.Join(err, encodeExplanation(cmd.OutOrStdout(), e, err))
		case err == nil:
			err = sayExplanation(cmd, &e, unsaid)
		}
		if err != nil {
			return fmt.Errorf("explain: %w", err)
		}
		return nil
	}
	return cmd
}

// encodeExplanation writes what programs read; unknown says that the message is not known.
func encodeExplanation(out io.Writer, e stream.Explanation, unknown error) error {
	var answer any = struct {
		OK bool `json:"ok"`
		stream.Explanation
	}{true, e}
	if unknown != nil {
		answer = struct {
			OK      bool   `json:"ok"`
			Trigger string `json:"trigger"`
			Error   string `json:"error"`
		}{false, e.Trigger, unknown.Error()}
	}
	return json.NewEncoder(out).Encode(answer)
}

func explain(ctx context.Context, s *settings.Settings, trigger string, client *string) (stream.Explanation, error) {
	conn, err := daemon.ConnectFeedback(ctx, s.Feedback.DSN)
	if err != nil {
		return stream.Explanation{}, fmt.Errorf("feedback database: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	return stream.Explain(ctx, conn, s.Kafka.Group, trigger, s.Feedback.Table.Identifier(), client)
}

// askGroup bounds the question to the brokers: without an answer the manifest's stands.
const askGroup = 5 * time.Second

var errUnknownSent = errors.New("kafka.brokers is not set")

// tellSent asks the brokers how much of the message is out.
func tellSent(ctx context.Context, s *settings.Settings, e *stream.Explanation) error {
	comparer, err := daemon.Comparer(s, e.Trigger)
	if err != nil {
		return err
	}
	defer comparer.Close()
	ctx, cancel := context.WithTimeout(ctx, askGroup)
	defer cancel()
	group, err := comparer.Offsets(ctx)
	if err != nil {
		return err
	}
	if group.Tell(e); e.Sent == nil {
		return fmt.Errorf("group %s has no offset of its partition", s.Kafka.Group)
	}
	return nil
}

// outcome is what became of a message; unsaid is why nobody knows how much of it is out.
func outcome(e *stream.Explanation, unsaid error) string {
	what := "records"
	if e.Outcome == stream.Malformed {
		what = "dead letters"
	}
	switch {
	case e.Records() == 0:
		return string(e.Outcome)
	case e.UnderWay:
		return fmt.Sprintf("under way (%s): decided and in the feedback database, %d of %d %s sent so far", e.Outcome, *e.Sent, e.Records(), what)
	case e.Sent == nil:
		return fmt.Sprintf("%s\nsent        unknown: %v", e.Outcome, unsaid)
	default:
		return fmt.Sprintf("%s\nsent        %d of %d %s", e.Outcome, *e.Sent, e.Records(), what)
	}
}

func sayExplanation(cmd *cobra.Command, e *stream.Explanation, unsaid error) error {
	text := func(s *string) string {
		if s == nil {
			return "unknown"
		}
		return *s
	}
	lines := fmt.Sprintf("message     %s\noutcome     %s\nrestaurant  %s\ncampaign    %s\njoined      %s\nposition    %s of the source database\nrecipients  %d",
		e.Trigger, outcome(e, unsaid), text(e.RestaurantID), text(e.CampaignID), time.Unix(e.Joined, 0).UTC().Format(time.RFC3339), text(e.FenceLSN), e.Recipients)
	if e.Error != nil {
		lines += "\nerror       " + *e.Error
	}
	if e.Client != nil {
		verdict := "did not get it"
		if e.Client.Got {
			verdict = "got it"
			if e.UnderWay {
				verdict = "is among its recipients"
			}
		}
		lines += fmt.Sprintf("\nclient      %s %s: %s", e.Client.ID, verdict, e.Client.Why)
	}
	return command.Say(cmd, "%s", lines)
}
