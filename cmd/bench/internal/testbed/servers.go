// Package testbed is what the contenders of a benchmark run on, and what they are: real servers,
// fresh databases and topics for each, processes that are watched from outside. Its one rule: every
// contender gets the same.
package testbed

import (
	"context"
	"errors"
	"maps"
	"net/url"
	"strings"
	"sync/atomic"

	"example.com/tiffin/internal/devstack"
	"example.com/tiffin/internal/dsn"
)

// Given are servers to use instead of starting some: addresses of brokers without TLS and
// passwords, and URLs of Postgres for a role that may create databases. All or none.
type Given struct {
	Brokers          []string
	Source, Feedback string // DSNs, as URLs
}

// GivenBy reads them from the environment: BENCH_KAFKA_BROKERS, BENCH_SOURCE_DSN and
// BENCH_FEEDBACK_DSN.
func GivenBy(getenv func(string) string) (Given, error) {
	g := Given{Source: getenv("BENCH_SOURCE_DSN"), Feedback: getenv("BENCH_FEEDBACK_DSN")}
	if brokers := getenv("BENCH_KAFKA_BROKERS"); brokers != "" {
		g.Brokers = strings.Split(brokers, ",")
	}
	if g.any() && (len(g.Brokers) == 0 || g.Source == "" || g.Feedback == "") {
		return Given{}, errors.New("use given servers: BENCH_KAFKA_BROKERS, BENCH_SOURCE_DSN and BENCH_FEEDBACK_DSN must be set all or none")
	}
	for _, name := range []string{g.Source, g.Feedback} {
		if _, err := dsn.Parse(name); name != "" && (err != nil || !dsn.IsURL(name)) {
			return Given{}, errors.New("use given servers: BENCH_SOURCE_DSN and BENCH_FEEDBACK_DSN must be URLs, postgres://USER@HOST:PORT/DATABASE")
		}
	}
	return g, nil
}

func (g Given) any() bool { return len(g.Brokers) > 0 || g.Source != "" || g.Feedback != "" }

// Servers are the real ones that are measured together with a contender. The source database has a
// server of its own, as where another team guards it: on a shared one the replication slot would
// have to decode what the feedback table's rows write to the log.
type Servers struct {
	source, feedback *devstack.Postgres // nil: given
	kafka            *devstack.Kafka
	given            Given

	stages atomic.Int64 // made so far: they number names
}

// The settings that differ from the defaults of both products, with which every contender runs.
const (
	KafkaHeapMB   = 1024
	SharedBuffers = "512MB"
	MaxWAL        = "8GB" // no checkpoint by size in the middle of a run
	// Nor an autovacuum: a table is seconds old, and one contender would have it and another not.
	AutovacuumNaptime = "30min"
)

// Given is whether these servers are not ours.
func (s *Servers) Given() bool { return s.given.any() }

// Start starts the servers below dir, unless they are given.
func Start(ctx context.Context, dir string, given Given) (*Servers, error) {
	s := &Servers{given: given}
	if given.any() {
		return s, nil
	}
	var err error
	for _, server := range []**devstack.Postgres{&s.source, &s.feedback} {
		if *server, err = StartPostgres(ctx, dir, nil); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	s.kafka, err = devstack.StartKafka(ctx, devstack.KafkaOptions{Dir: dir, Production: true, HeapMB: KafkaHeapMB})
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// StartPostgres starts a durable one with the settings of every benchmark, and more.
func StartPostgres(ctx context.Context, dir string, more map[string]string) (*devstack.Postgres, error) {
	settings := map[string]string{
		"shared_buffers": SharedBuffers, "max_wal_size": MaxWAL, "checkpoint_timeout": "30min", "autovacuum_naptime": AutovacuumNaptime,
		"max_replication_slots": "20", "max_wal_senders": "20",
	}
	maps.Copy(settings, more)
	return devstack.StartPostgres(ctx, devstack.PostgresOptions{Dir: dir, Durable: true, Settings: settings})
}

// Close ends the servers that Start started.
func (s *Servers) Close() error {
	var err error
	if s.kafka != nil {
		err = s.kafka.Close()
	}
	for _, server := range []*devstack.Postgres{s.source, s.feedback} {
		if server != nil {
			err = errors.Join(err, server.Close())
		}
	}
	return err
}

// Brokers are Kafka's addresses.
func (s *Servers) Brokers() []string {
	if s.kafka == nil {
		return s.given.Brokers
	}
	return s.kafka.Brokers()
}

// SourceDSN is the URL of a database of the source server.
func (s *Servers) SourceDSN(name string) string { return database(s.source, s.given.Source, name) }

// FeedbackDSN is the URL of a database of the feedback server.
func (s *Servers) FeedbackDSN(name string) string {
	return database(s.feedback, s.given.Feedback, name)
}

func database(server *devstack.Postgres, given, name string) string {
	if server != nil {
		return server.DSN(name)
	}
	u, err := url.Parse(given)
	if err != nil { // GivenBy has seen that it can be parsed
		return given
	}
	u.Path = "/" + name
	return u.String()
}

// Processes are the servers' that Start started, by what they are.
func (s *Servers) Processes() map[string]int {
	if s.kafka == nil {
		return nil
	}
	return map[string]int{"source database": s.source.PID(), "feedback database": s.feedback.PID(), "broker": s.kafka.PIDs()[0]}
}

// admin is the database that others are created from.
func (s *Servers) admin(given string) string {
	if u, err := url.Parse(given); err == nil && len(u.Path) > 1 {
		return u.Path[1:]
	}
	return "postgres"
}
