package acceptance

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"example.com/tiffin/internal/devstack"
	"example.com/tiffin/internal/devstack/devstacktest"
	"example.com/tiffin/internal/manual"
)

// site is what a reader of the documents has: a Kafka that asks for SCRAM over TLS and for rights, a
// source and a feedback server that take nothing but TLS and passwords, and a shell in a directory of
// its own. What the documents tell to type is typed there word for word, but for the addresses in
// elsewhere: no name of a host is to be had in a test, nor the usual ports.
//
// As in the documents, the operator's own tools talk to the brokers' plaintext listener, and tiffin to
// the other one.
type site struct {
	t                *testing.T
	kafka            *devstack.Kafka
	source, feedback *devstack.Postgres
	dir, exports     string // where the shell works, and what it keeps of its variables
	env              []string
	address          string // of the daemon's endpoint
	elsewhere        *strings.Replacer
}

// The passwords that the documents have the reader choose.
const (
	readersPassword = "choose one"
	writersPassword = "choose another"
)

func newSite(t *testing.T) *site {
	t.Helper()
	needTools(t, "bash", "make", "psql", "kcat", "curl")
	s := &site{t: t, dir: t.TempDir(), address: freeAddress(t)}
	s.exports = filepath.Join(s.dir, ".exports")
	s.kafka = devstacktest.StartKafka(t, devstack.KafkaOptions{SASL: true, Settings: map[string]string{
		"authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer", "super.users": "User:ANONYMOUS",
	}})
	s.source, s.feedback = s.server(), s.server()
	s.elsewhere = strings.NewReplacer(
		"broker:9092", s.kafka.PlainBrokers()[0],
		"broker1:9093, broker2:9093", s.kafka.Brokers()[0],
		"/etc/tiffin/kafka-ca.pem", s.kafka.CAFile(),
		"@db:5432", "@"+s.source.Address(),
		"@db2:5432", "@"+s.feedback.Address(),
		"localhost:9464", s.address,
		"10.0.0.0/8", "127.0.0.0/8",
	)
	s.prepareDatabases()
	s.prepareShell()
	return s
}

// follow does what a document says: each of its blocks in order, by the step that knows what it is to
// do. A block that no step knows fails, and so does a step whose block is gone.
func follow(t *testing.T, file string, steps map[string]func(block string)) {
	t.Helper()
	for _, block := range manual.Blocks(t, file) {
		step, known := steps[block.Info]
		if !known {
			t.Fatalf("%s:%d: no step of this test types the block %q", file, block.Line, block.Info)
		}
		t.Logf("%s:%d", file, block.Line)
		step(block.Text)
		delete(steps, block.Info) // each once
	}
	for info := range steps {
		t.Errorf("%s has no block %q", file, info)
	}
}

// needTools skips where the machine lacks a program that the documents use; with CI=true that is a failure.
func needTools(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil && os.Getenv("CI") == "true" {
			t.Fatal(err)
		} else if err != nil {
			t.Skipf("the documents' commands need %s: %v", name, err)
		}
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	address, err := devstack.FreeAddress(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return address
}

func (s *site) server() *devstack.Postgres {
	s.t.Helper()
	server, err := devstack.StartPostgres(s.t.Context(), devstack.PostgresOptions{TLS: true, Auth: devstack.AuthSCRAM})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if err := server.Close(); err != nil {
			s.t.Error(err)
		}
	})
	return server
}

// prepareDatabases makes what is there before tiffin comes, and lets its role into the source as
// docs/security.md says: to its one database, and not to "replication".
func (s *site) prepareDatabases() {
	s.t.Helper()
	ctx := s.t.Context()
	for server, database := range map[*devstack.Postgres]string{s.source: "app", s.feedback: "feedback"} {
		if err := server.CreateDatabase(ctx, database); err != nil {
			s.t.Fatal(err)
		}
	}
	s.exec(s.source, "app",
		"CREATE TABLE subscribers_restaurants (id serial PRIMARY KEY, client_id varchar NOT NULL, restaurant_id varchar NOT NULL)")
	var file string
	if err := s.connect(s.source, "app").QueryRow(ctx, "SHOW hba_file").Scan(&file); err != nil {
		s.t.Fatal(err)
	}
	rules := s.elsewhere.Replace(manual.Named(s.t, "docs/security.md", "conf hba")) + "hostssl all postgres 127.0.0.1/32 scram-sha-256\n"
	if err := os.WriteFile(file, []byte(rules), 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.exec(s.source, "app", "SELECT pg_reload_conf()")
}

// prepareShell writes what a reader has on PATH and in files: Kafka's tools, passwords, authorities.
func (s *site) prepareShell() {
	s.t.Helper()
	tools := filepath.Join(s.dir, "tools")
	authorities := filepath.Join(s.dir, "authorities.pem")
	var trusted []byte
	for _, server := range []*devstack.Postgres{s.source, s.feedback} {
		pem, err := os.ReadFile(server.CAFile())
		if err != nil {
			s.t.Fatal(err)
		}
		trusted = append(trusted, pem...)
	}
	pgpass := filepath.Join(s.dir, ".pgpass")
	passwords := fmt.Sprintf("*:*:*:tiffin_reader:%s\n*:*:*:tiffin_writer:%s\n*:*:*:postgres:%s\n", readersPassword, writersPassword, s.source.Password())
	temporary := filepath.Join(s.dir, "tmp")
	for _, fault := range []error{
		os.Mkdir(tools, 0o755), os.Mkdir(temporary, 0o777), s.kafka.WriteScripts(tools),
		os.Chmod(filepath.Dir(s.dir), 0o755), // for the demo's server, when root
		os.WriteFile(authorities, trusted, 0o600), os.WriteFile(pgpass, []byte(passwords), 0o600),
	} {
		if fault != nil {
			s.t.Fatal(fault)
		}
	}
	host, port, err := net.SplitHostPort(s.feedback.Address())
	if err != nil {
		s.t.Fatal(err)
	}
	s.env = []string{
		"PATH=" + tools + ":" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "TMPDIR=" + temporary,
		// psql without a host is the feedback database's, the one that the documents show it with.
		"PGHOST=" + host, "PGPORT=" + port, "PGUSER=postgres", "PGPASSFILE=" + pgpass, "PGSSLMODE=verify-full", "PGSSLROOTCERT=" + authorities,
		"TIFFIN_HTTP_LISTEN=" + s.address,
	}
}

func (s *site) connect(server *devstack.Postgres, database string) *pgx.Conn {
	s.t.Helper()
	conn, err := pgx.Connect(s.t.Context(), server.DSN(database))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(s.t.Context())) })
	return conn
}

func (s *site) exec(server *devstack.Postgres, database, sql string) {
	s.t.Helper()
	conn, err := pgx.Connect(s.t.Context(), server.DSN(database))
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = conn.Close(s.t.Context()) }()
	if _, err := conn.PgConn().Exec(s.t.Context(), sql).ReadAll(); err != nil {
		s.t.Fatalf("%s: %v", sql, err)
	}
}

// command is a block for the shell, which knows what earlier blocks exported.
func (s *site) command(block string) *exec.Cmd {
	s.t.Helper()
	const script = `[ ! -f "$0" ] || . "$0"
eval "$1"
export -p >"$0"`
	cmd := exec.CommandContext(s.t.Context(), "bash", "-euo", "pipefail", "-c", script, s.exports, s.elsewhere.Replace(block))
	cmd.Dir, cmd.Env = s.dir, s.env
	cmd.SysProcAttr = mortal()
	return cmd
}

// sh types a block and returns what it printed; it must succeed.
func (s *site) sh(block string) string {
	s.t.Helper()
	return s.shWith("", block)
}

// shWith gives the block something on its standard input.
func (s *site) shWith(input, block string) string {
	s.t.Helper()
	out, errs, err := s.try(input, block)
	if err != nil {
		s.t.Fatalf("%s\n%v\n%s%s", block, err, out, errs)
	}
	s.t.Logf("%s%s%s", block, out, errs)
	return out
}

func (s *site) try(input, block string) (stdout, stderr string, err error) {
	s.t.Helper()
	cmd := s.command(block)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

// until types a block again and again until it succeeds and prints what it must.
func (s *site) until(block, want string) string {
	s.t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(90 * time.Second); ; <-tick.C {
		out, errs, err := s.try("", block)
		if err == nil && strings.Contains(out, want) {
			s.t.Logf("%s%s", block, out)
			return out
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s\nprinted %q: want %q, %v\n%s", block, out, want, err, errs)
		}
	}
}

// psql runs a block of SQL as the server's superuser, as a DBA would.
func (s *site) psql(server *devstack.Postgres, database, sql string) string {
	s.t.Helper()
	return s.shWith(sql, fmt.Sprintf("psql -X -v ON_ERROR_STOP=1 -p %d %s\n", server.Port(), database))
}

// daemon is a block whose last command goes on until it is asked to stop.
type daemon struct {
	cmd  *exec.Cmd
	log  syncBuffer
	done chan error
}

// start types a block and leaves it running.
func (s *site) start(block string) *daemon {
	s.t.Helper()
	d := &daemon{cmd: s.command(block), done: make(chan error, 1)}
	d.cmd.Stdout, d.cmd.Stderr = &d.log, &d.log
	d.cmd.SysProcAttr = mortalGroup()
	if err := d.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() { d.done <- d.cmd.Wait() }()
	s.t.Cleanup(func() {
		_ = syscall.Kill(-d.cmd.Process.Pid, syscall.SIGKILL)
		d.done <- <-d.done
		if s.t.Failed() {
			s.t.Logf("%s%s", block, d.log.String())
		}
	})
	return d
}

// stop asks the program that the shell waits for to end, and returns the block's exit.
func (s *site) stop(d *daemon) {
	s.t.Helper()
	children, err := os.ReadFile(fmt.Sprintf("/proc/%[1]d/task/%[1]d/children", d.cmd.Process.Pid))
	if err != nil {
		s.t.Fatal(err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(string(children)))
	if err != nil {
		s.t.Fatalf("the shell waits for %q", children)
	}
	if err := syscall.Kill(child, syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
	s.ended(d)
}

// ended waits until the block has ended, well.
func (s *site) ended(d *daemon) {
	s.t.Helper()
	select {
	case err := <-d.done:
		d.done <- err
		if err != nil {
			s.t.Fatalf("it ended with %v\n%s", err, d.log.String())
		}
	case <-time.After(90 * time.Second):
		s.t.Fatalf("it goes on\n%s", d.log.String())
	}
}

// says waits for words of a running block.
func (s *site) says(d *daemon, words string) {
	s.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(90 * time.Second)
	for !strings.Contains(d.log.String(), words) {
		select {
		case <-tick.C:
		case err := <-d.done:
			d.done <- err
			if !strings.Contains(d.log.String(), words) {
				s.t.Fatalf("it ended (%v) before it said %q\n%s", err, words, d.log.String())
			}
		case <-deadline:
			s.t.Fatalf("it does not say %q\n%s", words, d.log.String())
		}
	}
}

// settings writes tiffin.yaml and puts the password that is not in it into the environment.
func (s *site) settings(yaml string) {
	s.t.Helper()
	s.write("tiffin.yaml", yaml)
	s.sh("export TIFFIN_KAFKA_SASL_PASSWORD=" + s.kafka.Password())
}

// write puts a file where the shell works.
func (s *site) write(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(s.elsewhere.Replace(text)), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// clone makes what a reader has after git clone, with what is changed here and not committed yet: the directory
// may hold other files already. What git does not know is left out; an archive, which has no repository, is copied.
func clone(t *testing.T, to string) {
	t.Helper()
	root := manual.Root(t)
	if _, err := os.Stat(filepath.Join(root, ".git")); err != nil {
		copyArchive(t, root, to)
		return
	}
	needTools(t, "git")
	bare := filepath.Join(to, ".clone")
	git(t, "", "clone", "--quiet", "--no-checkout", root, bare)
	for _, fault := range []error{os.Rename(filepath.Join(bare, ".git"), filepath.Join(to, ".git")), os.Remove(bare)} {
		if fault != nil {
			t.Fatal(fault)
		}
	}
	git(t, "", "-C", to, "reset", "--quiet", "--hard")
	if changes := git(t, "", "-C", root, "-c", "diff.noprefix=false", "-c", "diff.mnemonicPrefix=false", "diff", "--binary", "--no-color", "--no-ext-diff", "HEAD"); changes != "" {
		git(t, changes, "-C", to, "apply")
	}
}

// git leaves the index of the repository that it reads as it is.
func git(t *testing.T, input string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", args...)
	cmd.Env = append(os.Environ(), "GIT_OPTIONAL_LOCKS=0")
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("git %q: %v\n%s", args, err, &errs)
	}
	return out.String()
}

func copyArchive(t *testing.T, root, to string) {
	t.Helper()
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		from, to := filepath.Join(root, e.Name()), filepath.Join(to, e.Name())
		switch {
		case e.Name() == "bin", e.Name() == "dist":
		case e.IsDir():
			err = os.CopyFS(to, os.DirFS(from))
		default:
			err = copyFile(from, to)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if closed := out.Close(); err == nil {
		err = closed
	}
	return err
}

// What is built of a clone says which commit it is of, and holds what is not committed yet.
func TestBuildOfACloneKnowsItsCommit(t *testing.T) {
	t.Parallel()
	needTools(t, "make")
	root, dir := manual.Root(t), t.TempDir()
	if _, err := os.Stat(filepath.Join(root, ".git")); err != nil {
		t.Skip("needs the repository: ", err)
	}
	clone(t, dir)
	if changed, there := git(t, "", "-C", root, "diff", "--stat", "HEAD"), git(t, "", "-C", dir, "diff", "--stat", "HEAD"); there != changed {
		t.Errorf("changed in the clone:\n%shere:\n%s", there, changed)
	}
	cmd := exec.CommandContext(t.Context(), "make", "-C", dir, "build")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make build: %v\n%s", err, out)
	}
	out, err := exec.CommandContext(t.Context(), filepath.Join(dir, "bin", "tiffin"), "version").Output()
	if commit := strings.TrimSpace(git(t, "", "-C", root, "rev-parse", "HEAD")); err != nil || !strings.Contains(string(out), "(commit "+commit+" of 2") || strings.Contains(string(out), "unknown") {
		t.Errorf("tiffin version, of %s: %s%v", commit, out, err)
	}
}
