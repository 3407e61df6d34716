package daemon

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/tiffin/internal/devstack"
	"example.com/tiffin/internal/devstack/devstacktest"
)

// unreadyWithin is what operators were promised (INTERFACE: a lost database turns /readyz to 503).
const unreadyWithin = 15 * time.Second

func TestUnreadyDaemonSaysWhyUntilTheServersAreThere(t *testing.T) {
	t.Parallel()
	server, err := devstack.StartPostgres(t.Context(), devstack.PostgresOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	w := newWorld(t)
	db := devstacktest.NewDatabase(t, server, "late")
	db.Exec(t, "CREATE TABLE subscribers_restaurants (id serial PRIMARY KEY, client_id varchar NOT NULL, restaurant_id varchar NOT NULL)")
	if err := server.Stop(t.Context(), devstack.StopFast); err != nil {
		t.Fatal(err)
	}

	r := start(t, append(w.environ, "TIFFIN_SOURCE_DSN="+db.DSN, "TIFFIN_FEEDBACK_DSN="+db.DSN), nil)
	eventually(t, func() bool {
		status, reasons := r.probe(t)
		all := strings.Join(reasons, "\n")
		return status == http.StatusServiceUnavailable && strings.Contains(all, "connection refused") && strings.Contains(all, "feedback database")
	}, "both databases are named as unreachable")
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.waitReady(t)

	// Lost while it runs, both are named within the time that operators were promised.
	if err := server.Stop(t.Context(), devstack.StopFast); err != nil {
		t.Fatal(err)
	}
	lost := time.Now()
	var reasons []string
	eventually(t, func() bool {
		var status int
		status, reasons = r.probe(t)
		return status == http.StatusServiceUnavailable && refusedIn(reasons, "source: ") && refusedIn(reasons, "feedback database: ")
	}, "both databases are named as lost")
	if took := time.Since(lost); took > unreadyWithin {
		t.Errorf("%s until both lost databases were named, want at most %s: %q", took, unreadyWithin, reasons)
	}
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool {
		status, reasons := r.probe(t)
		return status == http.StatusOK && len(reasons) == 0
	}, "the same daemon is ready again")
}

// refusedIn reports whether a reason says of a part that its server refuses connections.
func refusedIn(reasons []string, part string) bool {
	return slices.ContainsFunc(reasons, func(r string) bool {
		return strings.Contains(r, part) && strings.Contains(r, "connection refused")
	})
}

func TestWhatWaitingDoesNotMendEndsTheDaemonByName(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		prepare []string // in the database
		environ []string
		want    []string
	}{
		"feedback table of another shape": {
			prepare: []string{"CREATE TABLE subscribers_feedback (id int)"},
			want:    []string{"feedback database", "client_id", "ALTER TABLE"},
		},
		"schema missing and not to be made": {
			environ: []string{"TIFFIN_FEEDBACK_MIGRATE=false"},
			want:    []string{"feedback database", "tiffin migrate"},
		},
		"subscribers missing": {
			environ: []string{"TIFFIN_SOURCE_TABLE=public.nowhere"},
			want:    []string{"public.nowhere"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.db.Exec(t, test.prepare...)
			err := start(t, append(w.environ, test.environ...), nil).end(t)
			for _, want := range test.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("want %q in %v", want, err)
				}
			}
		})
	}
}

func TestRefusedPasswordEndsTheDaemonByName(t *testing.T) {
	t.Parallel()
	server, err := devstack.StartPostgres(t.Context(), devstack.PostgresOptions{Auth: devstack.AuthSCRAM})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	w := newWorld(t)
	wrong := server.DSNFor(server.Username(), "hunter2", "postgres")
	for _, key := range []string{"TIFFIN_SOURCE_DSN", "TIFFIN_FEEDBACK_DSN"} {
		err := start(t, append(w.environ, key+"="+wrong), nil).end(t)
		if err == nil || !strings.Contains(err.Error(), "password authentication failed") || !strings.Contains(err.Error(), "fix: ") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s with a wrong password: %v", key, err)
		}
	}
}

// eventually asks until the answer is yes: what is waited for has no event to subscribe to.
func eventually(t *testing.T, ask func() bool, what string) {
	t.Helper()
	deadline := time.After(patience)
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for !ask() {
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatalf("never: %s", what)
		}
	}
}
