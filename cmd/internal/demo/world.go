package demo

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"example.com/tiffin/cmd/internal/settings"
	"example.com/tiffin/internal/devstack"
)

// The size of the demo: large enough to be no toy, small enough to load at once.
const (
	subscriptions = 20_000
	restaurants   = 500
	clients       = 5_000
	partitions    = 4
	database      = "tiffin"
)

// world is the servers and what they hold before the daemon starts.
type world struct {
	broker   *devstack.FakeBroker
	postgres *devstack.Postgres
	source   *devstack.SourceTable
	settings *settings.Settings
}

func newWorld(ctx context.Context, o Options) (*world, error) {
	w := &world{}
	group, gctx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		w.postgres, err = devstack.StartPostgres(gctx, devstack.PostgresOptions{})
		return err
	})
	group.Go(func() (err error) {
		w.broker, err = devstack.StartFakeBroker(gctx, devstack.FakeBrokerOptions{
			Port:   o.BrokerPort,
			Topics: map[string]int32{"campaigns": partitions, "deliveries": partitions, "campaigns.dlq": 1},
		})
		return err
	})
	err := group.Wait()
	if err == nil {
		err = w.fill(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

func (w *world) fill(ctx context.Context) error {
	if err := w.postgres.CreateDatabase(ctx, database); err != nil {
		return err
	}
	conn, err := w.connect(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	plan := devstack.Subscriptions{Seed: 1, Rows: subscriptions, Restaurants: restaurants, Clients: clients, Zipf: 0.5}
	if w.source, err = plan.Load(ctx, conn, pgx.Identifier{"public", "subscribers_restaurants"}); err != nil {
		return err
	}
	w.settings, err = settings.Load(settings.Input{Environ: []string{
		"TIFFIN_SOURCE_DSN=" + w.dsn(), "TIFFIN_FEEDBACK_DSN=" + w.dsn(),
		"TIFFIN_KAFKA_BROKERS=" + strings.Join(w.broker.Brokers(), ","),
		"TIFFIN_KAFKA_START=earliest", "TIFFIN_HTTP_LISTEN=127.0.0.1:0",
	}})
	if err != nil {
		return fmt.Errorf("the demo's own settings: %w", err)
	}
	return nil
}

func (w *world) close() error {
	if w.broker != nil {
		w.broker.Close()
	}
	if w.postgres != nil {
		return w.postgres.Close()
	}
	return nil
}

func (w *world) dsn() string { return w.postgres.DSN(database) }

func (w *world) connect(ctx context.Context) (*pgx.Conn, error) {
	conn, err := pgx.Connect(ctx, w.dsn())
	if err != nil {
		return nil, fmt.Errorf("connect to the demo's database: %w", err)
	}
	return conn, nil
}

// fingerprints reads both sinks from end to end, and shows every record to see.
func (w *world) fingerprints(ctx context.Context, see func(devstack.Delivery)) (table, topic devstack.Fingerprint, err error) {
	conn, err := w.connect(ctx)
	if err != nil {
		return table, topic, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	table = devstack.NewFingerprint()
	topic = table
	err = errors.Join(
		table.AddTable(ctx, conn, w.settings.Feedback.Table.Identifier()),
		devstack.EachCommitted(ctx, w.broker.Brokers(), w.settings.Kafka.Output, func(r *kgo.Record) error {
			d, err := devstack.ParseDelivery(r.Value)
			topic.Add(d)
			see(d)
			return err
		}))
	return table, topic, err
}

// psql is the client to show: that on PATH, or the server's own.
func (w *world) psql() string {
	own := filepath.Join(w.postgres.BinDir(), "psql")
	if _, err := exec.LookPath("psql"); err != nil {
		if _, err := exec.LookPath(own); err == nil {
			return own
		}
	}
	return "psql"
}
