package testbed

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Facts are what the servers say of themselves.
type Facts struct {
	Postgres, Kafka string   // versions
	Settings        []string // a sentence a server
}

// Ask asks the servers; what cannot be asked is left out.
func (s *Servers) Ask(ctx context.Context) (f Facts) {
	for _, server := range []struct{ name, dsn string }{
		{"source database", s.SourceDSN(s.admin(s.given.Source))}, {"feedback database", s.FeedbackDSN(s.admin(s.given.Feedback))},
	} {
		version, settings, err := askPostgres(ctx, server.dsn)
		if err != nil {
			continue
		}
		f.Postgres = version
		f.Settings = append(f.Settings, server.name+": "+s.whose()+settings)
	}
	if version, settings, err := askKafka(ctx, s.Brokers()); err == nil {
		if s.kafka != nil {
			settings += fmt.Sprintf(", %d MiB of heap, G1 as Kafka's own scripts set it", KafkaHeapMB)
		}
		f.Kafka = version
		f.Settings = append(f.Settings, "Kafka: "+s.whose()+settings)
	}
	return f
}

func (s *Servers) whose() string {
	if s.Given() {
		return "given, "
	}
	return "a server of its own, "
}

// askPostgres reads what speed and durability depend on.
func askPostgres(ctx context.Context, dsn string) (version, settings string, err error) {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return "", "", fmt.Errorf("ask a server for its settings: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	err = conn.QueryRow(ctx, `SELECT current_setting('server_version'), string_agg(name || ' ' || current_setting(name), ', ' ORDER BY name) FROM pg_settings
		WHERE name IN ('fsync', 'synchronous_commit', 'synchronous_standby_names', 'full_page_writes', 'shared_buffers', 'max_wal_size', 'checkpoint_timeout', 'autovacuum_naptime')
		AND current_setting(name) <> ''`).Scan(&version, &settings)
	if err != nil {
		return "", "", fmt.Errorf("ask a server for its settings: %w", err)
	}
	return version, settings, nil
}

func askKafka(ctx context.Context, brokers []string) (version, settings string, err error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	if err != nil {
		return "", "", fmt.Errorf("ask the brokers: %w", err)
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	known, err := admin.ListBrokers(ctx)
	if err != nil || len(known) == 0 {
		return "", "", fmt.Errorf("ask the brokers: %w", err)
	}
	if versions, err := admin.ApiVersions(ctx); err == nil {
		for _, v := range versions {
			version = v.VersionGuess()
		}
	}
	words := []string{fmt.Sprintf("brokers %d", len(known))}
	configs, _ := admin.DescribeBrokerConfigs(ctx, known[0].NodeID) // a right that not everybody has
	for _, resource := range configs {
		for _, c := range resource.Configs {
			switch c.Key {
			case "min.insync.replicas", "default.replication.factor", "log.flush.interval.messages", "compression.type":
				words = append(words, c.Key+" "+c.MaybeValue())
			}
		}
	}
	return version, strings.Join(words, ", "), nil
}
