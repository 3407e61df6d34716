package checkup

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// Postgres runs the checks of reaching a database: dns, tcp, tls, login, clock. setting is the key of
// the DSN. It returns the connection, nil if there is none; the caller closes it.
func Postgres(ctx context.Context, s *Sheet, config *pgx.ConnConfig, setting string) (conn *pgx.Conn) {
	p := postgres{config, setting}
	hosts := p.addresses()
	s.Check(ctx, "dns", nil, func(ctx context.Context) Finding {
		if len(hosts) == 0 {
			return Good("a local socket: " + config.Host)
		}
		return Resolve(ctx, hosts, setting)
	})
	s.Check(ctx, "tcp", []string{"dns"}, func(ctx context.Context) Finding {
		if len(hosts) == 0 {
			return Good("a local socket")
		}
		return Dial(ctx, hosts, setting)
	})
	s.Check(ctx, "tls", []string{"tcp"}, p.tls)
	s.Check(ctx, "login", []string{"tls"}, func(ctx context.Context) (f Finding) {
		conn, f = p.login(ctx)
		return f
	})
	s.Check(ctx, "clock", []string{"login"}, func(ctx context.Context) Finding { return clock(ctx, conn) })
	return conn
}

type postgres struct {
	config  *pgx.ConnConfig
	setting string
}

// addresses are those of TCP; hosts of the same DSN once each.
func (p postgres) addresses() []string {
	var all []string
	add := func(host string, port uint16) {
		address := net.JoinHostPort(host, strconv.Itoa(int(port)))
		if !strings.HasPrefix(host, "/") && (len(all) == 0 || all[len(all)-1] != address) {
			all = append(all, address)
		}
	}
	add(p.config.Host, p.config.Port)
	for _, f := range p.config.Fallbacks {
		add(f.Host, f.Port)
	}
	return all
}

// tls asks the server for TLS as libpq does (SSLRequest), and judges its certificate.
func (p postgres) tls(ctx context.Context) Finding {
	addresses := p.addresses()
	if p.config.TLSConfig == nil {
		if len(addresses) == 0 || loopback(p.config.Host) {
			return Good("none, to this machine")
		}
		return Odd("none: sslmode says so, passwords and rows cross the network in the clear", "sslmode=verify-full in "+p.setting)
	}
	if len(addresses) == 0 {
		return Good("a local socket needs none")
	}
	conn, err := dial(ctx, addresses[0])
	if err != nil {
		return Bad(err.Error(), "try again")
	}
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline) // a connection without one is bounded by ctx at the handshake
	if offered, err := offersTLS(conn); err != nil || !offered {
		_ = conn.Close()
		if p.mayBePlain() {
			return Odd("the server offers none, and sslmode lets that pass", "ssl = on at the server, and sslmode=verify-full in "+p.setting)
		}
		return Bad(fmt.Sprintf("the server offers no TLS (%v), and sslmode in %s demands it", err, p.setting), "ssl = on at the server, or another sslmode")
	}
	f := Handshake(ctx, conn, p.config.TLSConfig, "sslrootcert in "+p.setting, time.Now())
	if f.Verdict == OK && p.config.TLSConfig.InsecureSkipVerify && p.config.TLSConfig.VerifyPeerCertificate == nil {
		return Odd(f.Text+"; not verified, as sslmode says", "sslmode=verify-full in "+p.setting)
	}
	return f
}

// mayBePlain reports whether sslmode lets a connection without TLS pass (allow, prefer).
func (p postgres) mayBePlain() bool {
	for _, f := range p.config.Fallbacks {
		if f.TLSConfig == nil {
			return true
		}
	}
	return false
}

func offersTLS(conn net.Conn) (bool, error) {
	request, err := (&pgproto3.SSLRequest{}).Encode(nil)
	if err != nil {
		return false, err
	}
	if _, err := conn.Write(request); err != nil {
		return false, err
	}
	var answer [1]byte
	if _, err := conn.Read(answer[:]); err != nil {
		return false, err
	}
	return answer[0] == 'S', nil
}

func (p postgres) login(ctx context.Context) (*pgx.Conn, Finding) {
	conn, err := pgx.ConnectConfig(ctx, p.config)
	who := fmt.Sprintf("user %s, database %s", p.config.User, p.config.Database)
	if err == nil {
		return conn, Good(who)
	}
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return nil, Bad(fmt.Sprintf("%s: %v", who, err), "check "+p.setting)
	}
	fix := "see the server's log"
	switch pg.Code {
	case "28P01":
		fix = "correct the password in " + p.setting + " (or PGPASSWORD, ~/.pgpass), or set it: ALTER ROLE " + pgx.Identifier{p.config.User}.Sanitize() + " PASSWORD '…'"
	case "28000":
		fix = "let the role in, in the server's pg_hba.conf, and give it LOGIN: ALTER ROLE " + pgx.Identifier{p.config.User}.Sanitize() + " LOGIN"
	case "3D000":
		fix = "name an existing database in " + p.setting
	case "42501":
		fix = "GRANT CONNECT ON DATABASE " + pgx.Identifier{p.config.Database}.Sanitize() + " TO " + pgx.Identifier{p.config.User}.Sanitize()
	case "53300":
		fix = "raise max_connections, or the connection limit of role or database"
	}
	return nil, Bad(fmt.Sprintf("%s: %s (SQLSTATE %s)", who, pg.Message, pg.Code), fix)
}

// clockTolerance is how far clocks may differ without anybody noticing: trigger times have whole seconds.
const clockTolerance = time.Second

// clock compares the server's clock with this host's: campaigns begin and end by the latter.
func clock(ctx context.Context, conn *pgx.Conn) Finding {
	before := time.Now()
	var there time.Time
	if err := conn.QueryRow(ctx, "SELECT clock_timestamp()").Scan(&there); err != nil {
		return Bad("ask for the time: "+err.Error(), "try again")
	}
	return skew(before, there, time.Now())
}

// skew compares a time told between two of this host's. What the question took is not known more
// exactly than to its half.
func skew(before, there, after time.Time) Finding {
	off := there.Sub(before.Add(after.Sub(before) / 2))
	if off.Abs() > clockTolerance+after.Sub(before)/2 {
		return Odd(fmt.Sprintf("the server's clock is %s off this host's", off.Round(10*time.Millisecond)), "synchronise both: chronyc tracking")
	}
	return Good(fmt.Sprintf("%s off this host's", off.Abs().Round(time.Millisecond)))
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
