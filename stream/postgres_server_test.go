package stream_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"example.com/tiffin/internal/devstack"
	"example.com/tiffin/internal/devstack/devstacktest"
)

// A feedback server that stops, crashes, is killed, is full of connections or of data is a
// reason within 15 s; when it is well again everything goes on, and nothing is lost or
// doubled.
func TestFeedbackServerComesBack(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t)
	server := startPostgres(t, map[string]string{"max_connections": "20"})
	r := newRig(t, 2, map[string][]string{"r": clients(40)})
	r.db = devstacktest.NewDatabase(t, server, "feedback")
	r.asOrdinaryRole()
	o := newOutage(t, r)
	for _, c := range []struct {
		name  string
		cause func() (mend func())
		words []string
	}{
		{"stopped", func() func() {
			if err := server.Stop(t.Context(), devstack.StopFast); err != nil {
				t.Fatal(err)
			}
			return o.startServer
		}, []string{"connection refused", "fix: start the server"}},
		{"crashed and up again", func() func() {
			if err := server.Stop(t.Context(), devstack.StopImmediate); err != nil {
				t.Fatal(err)
			}
			return o.startServer
		}, []string{"feedback"}},
		{"killed", func() func() { server.Kill(); return o.startServer }, []string{"connection refused"}},
		{"no connection left", o.useUpConnections, []string{"53300", "fix: raise max_connections"}},
		{"disk full", func() func() { return o.fillDisk(disk) }, []string{"No space left on device", "fix: make room"}},
	} {
		t.Run(c.name, func(t *testing.T) { //nolint:paralleltest // one server, one fault after the other
			o.t = t
			mend := c.cause()
			since := time.Now()
			o.publish(4)
			o.unready(c.words...)
			if d := time.Since(since); d > 15*time.Second {
				t.Errorf("unready after %s: want 15 s at most", d)
			}
			mend()
			o.publish(2)
			o.settled()
			if o.retries("postgres") == 0 {
				t.Error("tiffin_sink_retries_total{sink=\"postgres\"} is 0")
			}
		})
	}
	o.t = t
	o.over("postgres")
}

func startPostgres(t *testing.T, settings map[string]string) *devstack.Postgres {
	t.Helper()
	server, err := devstack.StartPostgres(t.Context(), devstack.PostgresOptions{Settings: settings})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	return server
}

func (o *outage) startServer() {
	o.t.Helper()
	if err := o.db.Server.Start(o.t.Context()); err != nil {
		o.t.Fatal(err)
	}
}

// useUpConnections takes every connection that is not reserved for superusers.
func (o *outage) useUpConnections() (mend func()) {
	o.t.Helper()
	var all []*pgx.Conn
	o.terminate()
	for {
		conn, err := pgx.Connect(o.t.Context(), o.cfg.FeedbackDSN)
		if err != nil {
			break
		}
		all = append(all, conn)
	}
	o.terminate() // what was quicker than we
	return func() {
		for _, conn := range all {
			_ = conn.Close(o.t.Context())
		}
	}
}

// smallDisk is a file system of a few MiB that the server can write to; empty where none can
// be mounted: by whoever is neither root nor may become it, and in a container without the right.
func smallDisk(t *testing.T) string {
	t.Helper()
	who, as := "nobody", []string(nil) // the server of a test that is root runs as nobody
	if os.Geteuid() != 0 {
		who, as = fmt.Sprint(os.Geteuid()), []string{"sudo", "-n"}
	}
	owner, err := user.Lookup(who)
	if err != nil {
		if owner, err = user.LookupId(who); err != nil {
			return ""
		}
	}
	dir, err := os.MkdirTemp("", "tiffin-small-disk-") //nolint:usetesting // the server, who may be nobody, cannot enter t.TempDir
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(dir) })
	run := func(args ...string) error {
		args = append(append([]string(nil), as...), args...)
		return exec.Command(args[0], args[1:]...).Run()
	}
	options := fmt.Sprintf("size=4m,mode=0700,uid=%s,gid=%s", owner.Uid, owner.Gid)
	if err := errors.Join(os.Chmod(dir, 0o755), run("mount", "-t", "tmpfs", "-o", options, "tmpfs", dir)); err != nil {
		return ""
	}
	t.Cleanup(func() {
		if err := run("umount", dir); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

// answerDiskFull has the server answer what it answers when a disk is full (src/backend/storage/smgr/md.c,
// mdextend), where no disk can be filled: what becomes of that answer is tested everywhere.
func (o *outage) answerDiskFull() (mend func()) {
	o.t.Helper()
	o.t.Log("no file system of limited size can be mounted here: the server's answer is imitated")
	o.db.Exec(o.t, `CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION
		'could not extend file "base/5/16397": No space left on device' USING ERRCODE = 'disk_full', HINT = 'Check free disk space.'; END $$`,
		`CREATE TRIGGER full_disk BEFORE INSERT ON subscribers_feedback FOR EACH STATEMENT EXECUTE FUNCTION full_disk()`)
	return func() { o.db.Exec(o.t, "DROP TRIGGER full_disk ON subscribers_feedback") }
}

// fillDisk moves the feedback table to a disk, and fills that.
func (o *outage) fillDisk(disk string) (mend func()) {
	o.t.Helper()
	if disk == "" {
		return o.answerDiskFull()
	}
	o.db.Exec(o.t, "CREATE TABLESPACE small LOCATION '"+disk+"'", "ALTER TABLE subscribers_feedback SET TABLESPACE small",
		"CREATE TABLE filler (x text) TABLESPACE small")
	conn := o.db.Connect(o.t)
	for full := false; !full; {
		_, err := conn.Exec(o.t.Context(), "INSERT INTO filler SELECT repeat('x', 1000) FROM generate_series(1, 20)")
		pg, is := errors.AsType[*pgconn.PgError](err)
		full = is && pg.Code == "53100"
		if err != nil && !full {
			o.t.Fatal(err)
		}
	}
	return func() { o.db.Exec(o.t, "DROP TABLE filler") }
}
