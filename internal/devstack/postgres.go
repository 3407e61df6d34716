package devstack

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// startLimit bounds a start on a machine that does a lot besides; 0.2 s is usual.
const startLimit = 60 * time.Second

// ErrClosed is returned by the methods of a server after Close.
var ErrClosed = errors.New("the server was closed and its directory removed")

// Auth is how a Postgres asks for passwords (pg_hba.conf).
type Auth string

// The kinds of Auth.
const (
	AuthTrust    Auth = "trust" // no password is asked for; the default
	AuthSCRAM    Auth = "scram-sha-256"
	AuthPassword Auth = "password" // clear text on the wire
)

// PostgresOptions describe a throwaway PostgreSQL. The zero value is right for a test.
type PostgresOptions struct {
	Dir      string            // the server's directory is made below it; empty: the system's for temporary files
	BinDir   string            // server binaries; empty: by Version
	Version  string            // major version, "14" to NewestPostgres, or Unmended, downloaded unless installed; empty: POSTGRES_VERSION of the environment, else the newest installed, else downloaded
	Auth     Auth              // empty: AuthTrust
	TLS      bool              // connections without TLS are refused
	Durable  bool              // fsync on, as a benchmark needs; otherwise off, and Kill may lose commits of a crashed machine, not of a crashed server
	Settings map[string]string // of postgresql.conf; they win over the defaults
	Log      io.Writer         // the server's log, written from another goroutine; nil: only its tail is kept, for errors
}

// StopMode is how a server ends its sessions when it stops.
type StopMode string

// The modes of pg_ctl.
const (
	StopFast      StopMode = "fast"      // disconnects clients, writes a checkpoint
	StopImmediate StopMode = "immediate" // crashes in order: recovery at the next start
)

// Postgres is a running PostgreSQL of its own. Its methods may be called from several goroutines.
type Postgres struct {
	dir     string // everything of this server
	bin     string
	port    int
	options PostgresOptions
	as      *account

	mu     sync.Mutex // serialises starts and stops
	proc   *process   // nil while stopped
	closed bool
}

// StartPostgres makes a new cluster (UTF8, C locale, wal_level=logical) and starts its server. The
// superuser is Username, with Password unless Auth is AuthTrust. ctx bounds the start, not the
// server's life: that ends with Close, which the caller must call.
func StartPostgres(ctx context.Context, options PostgresOptions) (*Postgres, error) {
	as, err := serverAccount()
	if err != nil {
		return nil, err
	}
	bin := options.BinDir
	if bin == "" {
		if bin, err = postgresBinaries(ctx, cmp.Or(options.Version, os.Getenv("POSTGRES_VERSION")), as); err != nil {
			return nil, err
		}
	}
	ports, err := freePorts(ctx, 1)
	if err != nil {
		return nil, err
	}
	dir, err := newDirectory(options.Dir, "postgres", as)
	if err != nil {
		return nil, err
	}
	s := &Postgres{dir: dir, bin: bin, port: ports[0], options: options, as: as}
	if err := s.create(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if err := s.Start(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Start starts a stopped or killed server again, on the same port and data, and waits until it
// answers (after a crash: until it has recovered). Starting a running server does nothing.
func (s *Postgres) Start(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fmt.Errorf("start postgres: %w", ErrClosed)
	}
	if s.proc.running() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	proc, err := startProcess(ctx, command{
		name: "postgres", path: filepath.Join(s.bin, "postgres"), args: []string{"-D", s.data()},
		env: s.environment(), dir: s.dir, as: s.as, death: syscall.SIGQUIT, log: s.options.Log,
	})
	if err != nil {
		return err
	}
	if err := proc.waitReady(ctx, s.ping); err != nil {
		proc.kill()
		return err
	}
	s.proc = proc
	return nil
}

// Stop stops the server and waits until all its processes are gone; Start may follow. A server that
// has not stopped when ctx is done is killed, and the error says so.
func (s *Postgres) Stop(ctx context.Context, mode StopMode) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stop(ctx, mode)
}

func (s *Postgres) stop(ctx context.Context, mode StopMode) error {
	if s.proc == nil {
		return nil
	}
	sig := syscall.SIGINT // fast; see "Shutting Down the Server" in the manual
	if mode == StopImmediate {
		sig = syscall.SIGQUIT
	}
	err := s.proc.stop(ctx, sig)
	s.proc = nil
	return err
}

// Kill ends the server and every one of its processes by SIGKILL, as the kernel's out-of-memory
// killer or a lost machine would, and waits until they are gone. Start may follow.
func (s *Postgres) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kill()
}

// kill stops the postmaster first, so that it starts no process between the listing and the end.
func (s *Postgres) kill() {
	if s.proc == nil {
		return
	}
	_ = s.proc.cmd.Process.Signal(syscall.SIGSTOP)
	children := childrenOf(s.proc.pid())
	_ = s.proc.cmd.Process.Kill()
	for _, pid := range children {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	<-s.proc.exited
	s.proc = nil
}

// Close stops the server and removes everything it wrote. It may be called more than once.
func (s *Postgres) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	stopped := s.stop(ctx, StopImmediate) // nothing is kept: no checkpoint is needed
	releaseSharedMemory(s.data())
	if err := os.RemoveAll(s.dir); err != nil {
		return errors.Join(stopped, fmt.Errorf("remove the postgres directory: %w", err))
	}
	return stopped
}

// PID is the process id of the server (the postmaster), 0 while it is stopped.
func (s *Postgres) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil {
		return 0
	}
	return s.proc.pid()
}

// DSN is the URL of a database for the superuser. It stays the same over restarts.
func (s *Postgres) DSN(database string) string {
	return s.DSNFor(s.Username(), s.Password(), database)
}

// DSNFor is the URL of a database for another user, or with another password; empty: none.
func (s *Postgres) DSNFor(user, password, database string) string {
	u := url.URL{Scheme: "postgres", User: url.User(user), Host: s.Address(), Path: "/" + database}
	if password != "" {
		u.User = url.UserPassword(user, password)
	}
	query := url.Values{"sslmode": {"disable"}}
	if s.options.TLS {
		query = url.Values{"sslmode": {"verify-full"}, "sslrootcert": {s.CAFile()}}
	}
	u.RawQuery = query.Encode()
	return u.String()
}

// Address is host:port.
func (s *Postgres) Address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// Port is the TCP port on 127.0.0.1.
func (s *Postgres) Port() int { return s.port }

// Username is the superuser's name.
func (s *Postgres) Username() string { return "postgres" }

// Password is the superuser's; empty with AuthTrust.
func (s *Postgres) Password() string {
	if s.auth() == AuthTrust {
		return ""
	}
	return "correct horse" // a space finds those who forget to quote
}

// CAFile is the authority that signed the server's certificate; empty without TLS.
func (s *Postgres) CAFile() string {
	if !s.options.TLS {
		return ""
	}
	return filepath.Join(s.dir, "ca.crt")
}

// BinDir is where the server's binaries are; psql and pgbench are among them only where a
// distribution installed them.
func (s *Postgres) BinDir() string { return s.bin }

// CreateDatabase makes an empty database. Its name is quoted here.
func (s *Postgres) CreateDatabase(ctx context.Context, name string) error {
	return s.exec(ctx, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize()+" TEMPLATE template0")
}

// exec runs one statement in the database "postgres".
func (s *Postgres) exec(ctx context.Context, sql string, args ...any) error {
	conn, err := pgx.Connect(ctx, s.DSN("postgres"))
	if err != nil {
		return fmt.Errorf("connect to the throwaway postgres: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if _, err := conn.Exec(ctx, sql, args...); err != nil {
		return fmt.Errorf("run %q: %w", sql, err)
	}
	return nil
}

func (s *Postgres) ping(ctx context.Context) error { return s.exec(ctx, "SELECT 1") }

func (s *Postgres) auth() Auth {
	if s.options.Auth == "" {
		return AuthTrust
	}
	return s.options.Auth
}

func (s *Postgres) data() string { return filepath.Join(s.dir, "data") }

// environment is the server's: nothing of this process's own reaches it (PGDATA, LC_ALL, ...).
func (s *Postgres) environment() []string {
	return []string{"PATH=" + s.bin + ":/usr/bin:/bin", "LC_ALL=C", "TZ=UTC", "HOME=" + s.dir}
}
