package daemon

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"example.com/tiffin/cmd/internal/settings"
	"example.com/tiffin/internal/dsn"
	"example.com/tiffin/stream"
)

// What the page asks of the feedback database. Nothing is open while nobody looks.
const (
	pageConnections = 2 // a search must not hold up the list of the newest
	pageIdle        = 30 * time.Second
	pageStatement   = "5s" // bounds a search where no index helps
	pageCampaigns   = 20
	// askGroup bounds the question to the brokers how much of a message is out: without an answer the
	// manifest's stands.
	askGroup = 2 * time.Second
)

// manifest answers the page's questions; it implements livepage.Manifest. Safe for concurrent use.
type manifest struct {
	pool     *pgxpool.Pool
	group    string
	topic    string
	feedback pgx.Identifier
	offsets  func(context.Context) (*stream.GroupOffsets, error)
}

// newManifest connects to nothing yet.
func newManifest(ctx context.Context, s *settings.Settings, comparer *stream.Comparer) (*manifest, error) {
	config, err := dsn.ParsePool(s.Feedback.DSN.Reveal())
	if err != nil {
		return nil, fmt.Errorf("feedback.dsn %w", err)
	}
	if config.ConnConfig.RuntimeParams["application_name"] == "" {
		config.ConnConfig.RuntimeParams["application_name"] = "tiffin page"
	}
	if config.ConnConfig.ConnectTimeout == 0 {
		config.ConnConfig.ConnectTimeout = connectLimit
	}
	config.MinConns, config.MinIdleConns, config.MaxConns, config.MaxConnIdleTime = 0, 0, pageConnections, pageIdle
	config.HealthCheckPeriod = pageIdle
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("feedback database, for the page: %w", withFix(err))
	}
	return &manifest{pool: pool, group: s.Kafka.Group, topic: s.Kafka.Input, feedback: s.Feedback.Table.Identifier(), offsets: comparer.Offsets}, nil
}

func (m *manifest) close() { m.pool.Close() }

// Recent implements livepage.Manifest.
func (m *manifest) Recent(ctx context.Context) (list []stream.Explanation, err error) {
	err = m.read(ctx, func(tx pgx.Tx) error {
		list, err = stream.Recent(ctx, tx, m.group, m.topic, pageCampaigns)
		return err
	})
	m.tell(ctx, list)
	return list, err
}

// Search implements livepage.Manifest.
func (m *manifest) Search(ctx context.Context, id string) (found stream.Findings, err error) {
	err = m.read(ctx, func(tx pgx.Tx) error {
		found, err = stream.Search(ctx, tx, m.group, m.topic, m.feedback, id)
		return err
	})
	m.tell(ctx, found.Campaign, found.Client)
	return found, err
}

// Explain implements livepage.Manifest.
func (m *manifest) Explain(ctx context.Context, trigger string, client *string) (e stream.Explanation, err error) {
	err = m.read(ctx, func(tx pgx.Tx) error {
		e, err = stream.Explain(ctx, tx.Conn(), m.group, trigger, m.feedback, client)
		return err
	})
	list := []stream.Explanation{e}
	m.tell(ctx, list)
	return list[0], err
}

// tell fills in how much of the messages is out, if the brokers answer.
func (m *manifest) tell(ctx context.Context, lists ...[]stream.Explanation) {
	all := slices.Concat(lists...)
	if !slices.ContainsFunc(all, func(e stream.Explanation) bool { return e.Records() > 0 }) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, askGroup)
	defer cancel()
	group, err := m.offsets(ctx)
	if err != nil {
		return
	}
	for _, list := range lists {
		for i := range list {
			group.Tell(&list[i])
		}
	}
}

// read asks in a transaction that can neither write nor last.
func (m *manifest) read(ctx context.Context, ask func(pgx.Tx) error) error {
	err := pgx.BeginTxFunc(ctx, m.pool, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SET LOCAL statement_timeout = '"+pageStatement+"'"); err != nil {
			return err
		}
		return ask(tx)
	})
	if err != nil {
		return fmt.Errorf("feedback database: %w", withFix(err))
	}
	return nil
}
