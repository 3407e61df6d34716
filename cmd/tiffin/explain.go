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
Output records and dead letters carry the name of their message in the header trigger. Of the
settings it needs feedback.dsn, and kafka.group if that is not the default.`,
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
		switch {
		case *asJSON && (err == nil || errors.Is(err, stream.ErrUnknownTrigger)):
			err = errors.Join(err, encodeExplanation(cmd.OutOrStdout(), e, err))
		case err == nil:
			err = sayExplanation(cmd, &e)
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

func sayExplanation(cmd *cobra.Command, e *stream.Explanation) error {
	text := func(s *string) string {
		if s == nil {
			return "unknown"
		}
		return *s
	}
	lines := fmt.Sprintf("message     %s\noutcome     %s\nrestaurant  %s\ncampaign    %s\njoined      %s\nposition    %s of the source database\nrecipients  %d",
		e.Trigger, e.Outcome, text(e.RestaurantID), text(e.CampaignID), time.Unix(e.Joined, 0).UTC().Format(time.RFC3339), text(e.FenceLSN), e.Recipients)
	if e.Error != nil {
		lines += "\nerror       " + *e.Error
	}
	if e.Client != nil {
		verdict := "did not get it"
		if e.Client.Got {
			verdict = "got it"
		}
		lines += fmt.Sprintf("\nclient      %s %s: %s", e.Client.ID, verdict, e.Client.Why)
	}
	return command.Say(cmd, "%s", lines)
}
