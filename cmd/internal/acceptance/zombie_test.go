package acceptance

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"example.com/tiffin/migrations"
)

// A process is stopped (SIGSTOP) in a backlog while it inserts, until another has its partitions
// and has handled all of them. What refuses it when it goes on is a fence, and its log says which.
func TestStoppedProcessIsRefusedByAFence(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		fan      int // recipients of a campaign; 60,000 are given 72 s (statementTimeout), so that no time-out of its own comes first
		settings []string
		apart    bool          // the processes log in as roles that may not end each other's sessions
		stopped  time.Duration // at least
		fence    string
	}{
		// Longer than the brokers let a transaction be open, and Postgres an idle one: a minute each.
		{"a minute, by the end of its session", 60_000, []string{"TIFFIN_DELIVERY_MAX_TRANSACTION_RECORDS=70000"}, false, 61 * time.Second, "terminating connection due to administrator command"},
		// A batch of its own, all of it sent before it waits: the epoch's answer is there when the process goes on.
		{"by its epoch", 500, []string{"TIFFIN_DELIVERY_MAX_TRANSACTION_RECORDS=500", "TIFFIN_KAFKA_SESSION_TIMEOUT=6s"}, true, 0, "was taken over by another process"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 4)
			of := map[string][]string{"big": w.subscribeTo("big", c.fan), "small": w.subscribeTo("small", 3)}
			w.env = append(w.env, c.settings...)
			dsns := []string{w.feedback.DSN, w.feedback.DSN}
			if c.apart {
				dsns = []string{w.ordinaryRole("one"), w.ordinaryRole("other")}
			}
			var members []*process
			for n, dsn := range dsns {
				// Who waits for the table below does so for as long as it takes.
				member := *w
				member.env = append(append([]string(nil), w.env...), "TIFFIN_FEEDBACK_DSN="+dsn+"&lock_timeout=0")
				members = append(members, member.member(n))
				w.ready(members[n])
			}
			zombie, other := members[0], members[1]
			small := slices.Repeat([]string{"small"}, 10)
			all := w.backlog(of, small...)
			w.handled()
			table := w.lockTable()
			all = append(all, w.backlog(of, append([]string{"big"}, small...)...)...)
			w.blocked(len(members))
			zombie.signal(t, syscall.SIGSTOP)
			stopped, noted := time.Now(), len(zombie.log.String())
			w.eventually("the other taking over", func() bool { return strings.Contains(other.log.String(), "ending what a process left") })
			if c.apart {
				w.eventually("its sessions staying", func() bool { return strings.Contains(other.log.String(), "its sessions in the feedback database stay") })
			}
			w.eventually("all partitions with the other", func() bool { return w.owners() == 1 })
			if _, err := table.Exec(t.Context(), "ROLLBACK"); err != nil {
				t.Fatal(err)
			}
			w.handled()
			<-time.After(c.stopped - time.Since(stopped))
			zombie.signal(t, syscall.SIGCONT)
			w.eventually("the process noticing", func() bool { return strings.Contains(zombie.log.String()[noted:], "delivery interrupted") })
			said := firstLine(zombie.log.String()[noted:], "delivery interrupted")
			if t.Logf("after %s: %s", time.Since(stopped).Round(time.Second), said); !strings.Contains(said, c.fence) {
				t.Errorf("refused by something else: want %q", c.fence)
			}
			w.ready(zombie)
			all = append(all, w.backlog(of, small...)...)
			w.handled()
			for _, p := range members {
				w.stop(p)
			}
			w.wantBoth(all)
		})
	}
}

// subscribeTo gives a restaurant so many clients.
func (w *world) subscribeTo(restaurant string, n int) (clients []string) {
	w.t.Helper()
	var rows [][]any
	for i := range n {
		clients = append(clients, fmt.Sprintf("%s %d", restaurant, i))
		rows = append(rows, []any{clients[i], restaurant})
	}
	if _, err := w.source.Connect(w.t).CopyFrom(w.t.Context(), []string{"subscribers_restaurants"}, []string{"client_id", "restaurant_id"}, copyRows(rows)); err != nil {
		w.t.Fatal(err)
	}
	return clients
}

// backlog publishes a campaign of each of the restaurants into each of the four partitions.
func (w *world) backlog(of map[string][]string, restaurants ...string) (messages []*campaign) {
	w.t.Helper()
	now := time.Now().Unix()
	for i, restaurant := range restaurants {
		for partition := range int32(4) {
			m := message(restaurant, fmt.Sprint(i), "x", now-1000, now+100_000, of[restaurant])
			m.partition = partition
			messages = append(messages, m)
		}
	}
	w.publish(messages...)
	return messages
}

// lockTable keeps everybody from inserting.
func (w *world) lockTable() *pgx.Conn {
	w.t.Helper()
	conn := w.feedback.Connect(w.t)
	if _, err := conn.Exec(w.t.Context(), "BEGIN; LOCK TABLE subscribers_feedback IN SHARE MODE"); err != nil {
		w.t.Fatal(err)
	}
	return conn
}

// blocked waits until so many try to insert.
func (w *world) blocked(waiting int) {
	w.t.Helper()
	watch := w.feedback.Connect(w.t)
	w.eventually("insertions that wait", func() bool {
		var n int
		err := watch.QueryRow(w.t.Context(), `SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'subscribers_feedback'::regclass`).Scan(&n)
		return err == nil && n >= waiting
	})
}

// owners is how many processes the ledger names as those that have partitions.
func (w *world) owners() (n int) {
	w.t.Helper()
	if err := w.feedback.Connect(w.t).QueryRow(w.t.Context(), `SELECT count(DISTINCT owner) FROM tiffin.progress`).Scan(&n); err != nil {
		w.t.Fatal(err)
	}
	return n
}

// ordinaryRole makes a role with the daemon's rights in the feedback database, and returns its DSN.
func (w *world) ordinaryRole(name string) string {
	w.t.Helper()
	role, table := w.feedback.Name+"_"+name, pgx.Identifier{"public", "subscribers_feedback"}
	role = role[max(0, len(role)-63):]
	conn := w.feedback.Connect(w.t)
	options := migrations.Options{FeedbackTable: table, Role: role}
	if _, err := migrations.Migrate(w.t.Context(), conn, options); err != nil {
		w.t.Fatal(err)
	}
	w.feedback.Exec(w.t, "CREATE ROLE "+pgx.Identifier{role}.Sanitize()+" LOGIN", migrations.GrantSQL(options))
	w.t.Cleanup(func() {
		ctx := context.WithoutCancel(w.t.Context())
		conn, err := pgx.Connect(ctx, w.feedback.DSN)
		if err != nil {
			w.t.Error(err)
			return
		}
		defer func() { _ = conn.Close(ctx) }()
		quoted := pgx.Identifier{role}.Sanitize()
		if _, err := conn.PgConn().Exec(ctx, "DROP OWNED BY "+quoted+"; DROP ROLE "+quoted).ReadAll(); err != nil {
			w.t.Errorf("drop role %s: %v", role, err)
		}
	})
	return w.feedback.Server.DSNFor(role, "", w.feedback.Name)
}
