// Command benthos is a pipeline on the open-source engine of Redpanda Connect: pipeline.yaml says what
// it does. The connectors to Kafka and Postgres are our own, after those of Redpanda Connect, which are
// no part of the engine. It is a module of its own, so that tiffin depends on none of this.
package main

import (
	"context"
	_ "embed"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	_ "github.com/redpanda-data/benthos/v4/public/components/pure" // mapping, unarchive, split, broker
	"github.com/redpanda-data/benthos/v4/public/service"
)

//go:embed pipeline.yaml
var pipeline string

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx); err != nil && ctx.Err() == nil {
		_, _ = fmt.Fprintln(os.Stderr, "benthos:", err) // there is nowhere else to say it
		os.Exit(1)                                      //nolint:gocritic // the handler goes with the process
	}
}

func run(ctx context.Context) error {
	components := service.NewEnvironment()
	for _, add := range []func(*service.Environment) error{addCampaigns, addSubscribers, addFeedback, addRecords} {
		if err := add(components); err != nil {
			return fmt.Errorf("add a component: %w", err)
		}
	}
	builder := components.NewStreamBuilder()
	builder.SetLogger(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
	if err := builder.SetYAML(pipeline); err != nil {
		return fmt.Errorf("pipeline: %w", err)
	}
	stream, err := builder.Build()
	if err != nil {
		return fmt.Errorf("pipeline: %w", err)
	}
	return stream.Run(ctx)
}
