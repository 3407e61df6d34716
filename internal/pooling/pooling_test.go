package pooling_test

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"example.com/tiffin/internal/devstack/devstacktest"
	"example.com/tiffin/internal/pooling"
)

// servers is shared by the tests of the package, as TestMain demands.
var servers devstacktest.Servers

func TestMain(m *testing.M) { os.Exit(servers.Main(m)) }

func TestPoolersAreTold(t *testing.T) {
	t.Parallel()
	db := servers.Database(t)
	for name, c := range map[string]struct {
		address string
		want    error
	}{
		"the server":                     {db.Server.Address(), nil},
		"a session a transaction":        {devstacktest.PoolTransactions(t, db.DSN), pooling.ErrNoSession},
		"no session beside one that has": {oneOnly(t, devstacktest.PoolTransactions(t, db.DSN)), pooling.ErrNoRoom},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn, err := pgx.Connect(t.Context(), strings.Replace(db.DSN, db.Server.Address(), c.address, 1))
			if err != nil {
				t.Fatal(err)
			}
			if err := pooling.Check(t.Context(), conn); !errors.Is(err, c.want) {
				t.Errorf("error %v, want %v", err, c.want)
			}
			if err := conn.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// oneOnly leads the first connection to a server, and answers no other.
func oneOnly(t *testing.T, to string) string {
	t.Helper()
	from, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	first, err := net.Dial("tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	t.Cleanup(func() {
		_ = from.Close()
		_ = first.Close()
		group.Wait()
	})
	group.Go(func() {
		client, err := from.Accept()
		if err != nil {
			return
		}
		defer func() { _ = client.Close() }()
		group.Go(func() { _, _ = io.Copy(first, client) })
		group.Go(func() {
			for other, err := from.Accept(); err == nil; other, err = from.Accept() {
				defer func() { _ = other.Close() }()
			}
		})
		_, _ = io.Copy(client, first)
	})
	return from.Addr().String()
}
