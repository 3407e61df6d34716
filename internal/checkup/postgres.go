package checkup

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
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
	p := &postgres{config: config, setting: setting, sheet: s}
	hosts := p.addresses()
	s.Check(ctx, "dns", nil, func(ctx context.Context) Finding {
		if len(hosts) == 0 {
			return Good("a local socket: " + config.Host)
		}
		var f Finding
		f, hosts = Resolve(ctx, hosts, setting)
		return f
	})
	s.Check(ctx, "tcp", []string{"dns"}, func(ctx context.Context) Finding {
		if len(hosts) == 0 {
			return Good("a local socket")
		}
		var f Finding
		f, p.answer = Dial(ctx, hosts, setting)
		return f
	})
	s.Check(ctx, "tls", []string{"tcp"}, p.tls)
	s.Check(ctx, "login", []string{"tls"}, func(ctx context.Context) (f Finding) {
		conn, f = p.login(ctx)
		return f
	})
	s.Check(ctx, "clock", []string{"login"}, func(ctx context.Context) Finding { return p.clock(ctx, conn) })
	return conn
}

type postgres struct {
	config  *pgx.ConnConfig
	setting string
	sheet   *Sheet
	answer  []string // addresses that accept connections
}

// host is one of those that the DSN names.
type host struct {
	address string // HOST:PORT; empty: a local socket
	name    string
	tls     *tls.Config
}

// hosts in their order, once each: pgx repeats one that it tries in two ways, and what it tries first
// is what sslmode prefers.
func (p *postgres) hosts() []host {
	var all []host
	add := func(name string, port uint16, config *tls.Config) {
		h := host{net.JoinHostPort(name, strconv.Itoa(int(port))), name, config}
		if strings.HasPrefix(name, "/") {
			h.address = ""
		}
		if !slices.ContainsFunc(all, func(other host) bool { return other.address == h.address && other.name == h.name }) {
			all = append(all, h)
		}
	}
	add(p.config.Host, p.config.Port, p.config.TLSConfig)
	for _, f := range p.config.Fallbacks {
		add(f.Host, f.Port, f.TLSConfig)
	}
	return all
}

// addresses are those of TCP.
func (p *postgres) addresses() (all []string) {
	for _, h := range p.hosts() {
		if h.address != "" {
			all = append(all, h.address)
		}
	}
	return all
}

// tls judges every host that answers: which of them serves today is chance.
func (p *postgres) tls(ctx context.Context) Finding {
	var found []Finding
	for _, h := range p.hosts() {
		if h.address == "" || slices.Contains(p.answer, h.address) {
			found = append(found, p.tlsOf(ctx, h))
		}
	}
	return AnyOf(found)
}

// tlsOf asks a server for TLS as libpq does (SSLRequest), and judges its certificate.
func (p *postgres) tlsOf(ctx context.Context, h host) Finding {
	switch {
	case h.address == "":
		return Good("a local socket needs none")
	case h.tls == nil && loopback(h.name):
		return Good("none, to this machine")
	case h.tls == nil:
		return Odd("none: sslmode says so, passwords and rows cross the network in the clear", "sslmode=verify-full in "+p.setting)
	}
	conn, err := dial(ctx, h.address)
	if err != nil {
		return Bad(err.Error(), "try again: "+Probe(h.address))
	}
	_ = conn.SetDeadline(time.Now().Add(addressLimit)) // one that fails at this fails at the question
	if offered, err := offersTLS(conn); err != nil || !offered {
		_ = conn.Close()
		if TimedOut(err) {
			return Silent([]string{h.address}, p.setting, err)
		}
		if p.mayBePlain() {
			return Odd("the server offers none, and sslmode lets that pass", switchOnTLS+"; and sslmode=verify-full in "+p.setting)
		}
		why := ""
		if err != nil {
			why = " (" + err.Error() + ")"
		}
		return Bad("the server at "+h.address+" offers no TLS"+why+", and sslmode in "+p.setting+" demands it", switchOnTLS+"; or another sslmode")
	}
	peer := Peer{
		Setting: p.setting, Authority: "sslrootcert in " + p.setting, StartTLS: "postgres",
		Client: "sslcert and sslkey in " + p.setting, File: "SSLCERT",
	}
	f := Handshake(ctx, conn, h.tls, peer, p.sheet.Now())
	if f.Verdict == OK && h.tls.InsecureSkipVerify && h.tls.VerifyPeerCertificate == nil {
		return Odd(f.Text+"; not verified, as sslmode says", "sslmode=verify-full in "+p.setting)
	}
	return f
}

// switchOnTLS is for a server that has its certificate (ssl_cert_file) and key (ssl_key_file).
const switchOnTLS = "ALTER SYSTEM SET ssl = on; SELECT pg_reload_conf(); -- with server.crt and server.key in its data directory"

// mayBePlain reports whether sslmode lets a connection without TLS pass (allow, prefer).
func (p *postgres) mayBePlain() bool {
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

func (p *postgres) login(ctx context.Context) (*pgx.Conn, Finding) {
	conn, err := pgx.ConnectConfig(ctx, p.config)
	who := fmt.Sprintf("user %s, database %s", p.config.User, p.config.Database)
	if err == nil {
		return conn, Good(who)
	}
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok && TimedOut(err) {
		return nil, Silent(p.answer, p.setting, err)
	}
	if !ok {
		return nil, Bad(fmt.Sprintf("%s: %v", who, err), "check "+p.setting+": "+psql(&p.config.Config)+" -d "+Word(p.config.Database))
	}
	fix := Admission(pg, &p.config.Config, p.setting)
	if fix == "" {
		fix = "see the server's log; the same by its own client: " + psql(&p.config.Config) + " -d " + Word(p.config.Database)
	}
	return nil, Bad(fmt.Sprintf("%s: %s (SQLSTATE %s)", who, pg.Message, pg.Code), fix)
}

// feedbackSetting is the key of the only DSN that may lead to a pooler.
const feedbackSetting = "feedback.dsn"

// Admission is what to do where a server refuses a connection; setting is the key of
// the DSN. Empty: the error does not tell.
func Admission(refused *pgconn.PgError, config *pgconn.Config, setting string) string {
	role, database := pgx.Identifier{config.User}.Sanitize(), pgx.Identifier{config.Database}.Sanitize()
	switch refused.Code {
	case "08P01": // whatever pgbouncer does not like
		return poolerRemedy(refused.Message, setting)
	case "28P01":
		return "correct user and password in " + setting + " (or PGUSER, PGPASSWORD, ~/.pgpass), or set it: ALTER ROLE " + role +
			" PASSWORD '…'; -- where there is no such role, of which the server says the same: CREATE ROLE " + role + " LOGIN PASSWORD '…';"
	case "28000":
		return "correct the user in " + setting + ", or let it in: ALTER ROLE " + role + " LOGIN; -- or CREATE ROLE " + role + " LOGIN; and in the server's pg_hba.conf: hostssl " +
			database + " " + role + " all scram-sha-256"
	case "3D000":
		return "name an existing database in " + setting + ": " + psql(config) + " -l"
	case "42501":
		return "GRANT CONNECT ON DATABASE " + database + " TO " + role + ";"
	case "53300":
		if strings.Contains(refused.Message, "max_wal_senders") {
			return "end a walsender that nobody needs (SELECT pid, application_name, client_addr FROM pg_stat_replication), or ALTER SYSTEM SET max_wal_senders and restart the server"
		}
		return "raise max_connections, or the connection limit of the role or database: ALTER ROLE " + role + " CONNECTION LIMIT -1; ALTER DATABASE " + database + " CONNECTION LIMIT -1;"
	}
	return ""
}

// poolerRemedy is what to do where a pooler refuses a connection with so many words.
func poolerRemedy(words, setting string) string {
	switch {
	case setting != feedbackSetting:
		return "name the server itself in " + setting + ": poolers such as pgbouncer do not speak replication"
	case strings.Contains(words, "startup parameter"):
		return "name the server itself in " + setting + "; or a pooler with pool_mode = session, and, as pgbouncer calls it, ignore_startup_parameters = " +
			"row_security,lock_timeout,idle_in_transaction_session_timeout,idle_session_timeout"
	case strings.Contains(words, "no such database"), strings.Contains(words, "does not exist"):
		return "name in " + setting + " a database that the pooler knows (pgbouncer: section [databases] of its pgbouncer.ini)"
	case strings.Contains(words, "no more connections"):
		return "let the pooler take more (pgbouncer: max_client_conn)"
	}
	return ""
}

// NameThePrimary is what to do about a DSN that leads to a standby. Whom that follows, roles see that
// have pg_read_all_stats.
func NameThePrimary(setting string) string {
	return "name the primary in " + setting + " (or several hosts and target_session_attrs=primary); the standby knows it: SELECT sender_host, sender_port FROM pg_stat_wal_receiver;"
}

// psql is a command that asks the same server as the same role.
func psql(config *pgconn.Config) string {
	return fmt.Sprintf("psql -h %s -p %d -U %s", Word(config.Host), config.Port, Word(config.User))
}

// clockTolerance is how far clocks may differ without anybody noticing: trigger times have whole seconds.
const clockTolerance = time.Second

// clock compares the server's clock with this host's: campaigns begin and end by the latter.
func (p *postgres) clock(ctx context.Context, conn *pgx.Conn) Finding {
	before := p.sheet.Now()
	var there time.Time
	if err := conn.QueryRow(ctx, "SELECT clock_timestamp()", pgx.QueryExecModeSimpleProtocol).Scan(&there); err != nil {
		return Bad("ask for the time: "+err.Error(), "try again: tiffin doctor")
	}
	return skew(before, there, p.sheet.Now())
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
