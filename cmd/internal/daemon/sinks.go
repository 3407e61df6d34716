package daemon

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"example.com/tiffin/cmd/internal/settings"
	"example.com/tiffin/stream"
)

// sinks tells the page how far both are; it implements livepage.Sinks. One question at a time.
type sinks struct {
	manifest *manifest
	comparer *stream.Comparer
}

// newSinks connects to nothing yet.
func newSinks(ctx context.Context, s *settings.Settings) (*sinks, error) {
	comparer, err := stream.NewComparer(kafkaConfig(s))
	if err != nil {
		return nil, fmt.Errorf("kafka, for the page: %w", err)
	}
	m, err := newManifest(ctx, s, comparer)
	if err != nil {
		return nil, err
	}
	return &sinks{m, comparer}, nil
}

func (s *sinks) close() {
	s.comparer.Close()
	s.manifest.close()
}

// Compare implements livepage.Sinks.
func (s *sinks) Compare(ctx context.Context) (all []stream.Standing, err error) {
	offsets, err := s.comparer.Offsets(ctx)
	if err != nil {
		return nil, fmt.Errorf("kafka: %w", err)
	}
	err = s.manifest.read(ctx, func(tx pgx.Tx) error {
		all, err = offsets.Beside(ctx, tx)
		return err
	})
	return all, err
}
