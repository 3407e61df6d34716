// Package devstacktest shares throwaway servers among the tests of one binary: a server is started
// by the first test that asks for it, every test gets a database or topics of its own, and Main
// stops all of them at the end.
//
//	var servers devstacktest.Servers
//
//	func TestMain(m *testing.M) { os.Exit(servers.Main(m)) }
//
//	func TestSomething(t *testing.T) {
//		db := servers.Database(t)
//		...
//	}
package devstacktest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"example.com/tiffin/internal/devstack"
)

// Servers are the shared servers of one test binary. The zero value is ready; all methods may be
// called by parallel tests.
type Servers struct {
	// PostgresOptions are used for the shared Postgres; set them before the first test.
	PostgresOptions devstack.PostgresOptions
	// KafkaOptions are used for the shared Kafka; set them before the first test.
	KafkaOptions devstack.KafkaOptions

	postgres shared[*devstack.Postgres]
	newest   shared[*devstack.Postgres]
	kafka    shared[*devstack.Kafka]
	number   atomic.Int64 // makes names unique within the binary
}

// Main runs the tests, closes the servers, looks for leaked goroutines and returns the exit status.
func (s *Servers) Main(m *testing.M) int {
	code := m.Run()
	err := s.Close()
	if leaked := goleak.Find(); code == 0 {
		err = errors.Join(err, leaked) // after a failed test a leak is no news
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "after the tests:", err)
		code = max(code, 1)
	}
	return code
}

// Close stops what was started. Main calls it; a TestMain of one's own must.
func (s *Servers) Close() error {
	return errors.Join(s.postgres.close(), s.newest.close(), s.kafka.close())
}

// Postgres is the shared server. A test that stops, kills or configures it must start its own by
// devstack.StartPostgres instead.
func (s *Servers) Postgres(tb testing.TB) *devstack.Postgres {
	tb.Helper()
	server, err := s.postgres.get(func() (*devstack.Postgres, error) {
		return devstack.StartPostgres(tb.Context(), s.PostgresOptions)
	})
	if err != nil {
		tb.Fatal(err)
	}
	return server
}

// NewestPostgres is a shared server of the newest major version. It may have to be downloaded: where
// that is not possible the test is skipped and says so; with CI=true that is a failure.
func (s *Servers) NewestPostgres(tb testing.TB) *devstack.Postgres {
	tb.Helper()
	server, err := s.newest.get(func() (*devstack.Postgres, error) {
		options := s.PostgresOptions
		options.BinDir, options.Version = "", devstack.NewestPostgres
		return devstack.StartPostgres(tb.Context(), options)
	})
	if err != nil && os.Getenv("CI") != "true" {
		tb.Skipf("needs PostgreSQL %s: %v", devstack.NewestPostgres, err)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return server
}

// Unique returns a lower-case name that no other test of this binary has: the prefix, the test's
// name as far as it fits and a number. It is a legal name of a database, slot, topic and group.
func (s *Servers) Unique(tb testing.TB, prefix string) string {
	tb.Helper()
	number := fmt.Sprintf("_%d", s.number.Add(1))
	name := prefix + "_" + strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r + ('a' - 'A')
		default:
			return '_'
		}
	}, tb.Name())
	const longest = 63 // of a Postgres name (NAMEDATALEN - 1)
	return name[:min(len(name), longest-len(number))] + number
}

// shared is one server, started once; a failed start is not tried again, so that a machine that
// cannot start one fails its tests at once.
type shared[T interface{ Close() error }] struct {
	mu      sync.Mutex
	started bool
	server  T
	err     error
}

func (s *shared[T]) get(start func() (T, error)) (T, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.started {
		s.started = true
		s.server, s.err = start()
	}
	return s.server, s.err
}

func (s *shared[T]) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.started || s.err != nil {
		return nil
	}
	return s.server.Close()
}

// detached is for clean-up, when the test's own context has ended.
func detached(tb testing.TB) context.Context { return context.WithoutCancel(tb.Context()) }
