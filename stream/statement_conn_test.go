package stream

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5/pgconn"
)

// statementConn is a connection to Postgres whose statements are effects: it reads along which
// (protocol 3.0, the manual's "Message Formats"), and can stop between any two of them, also when
// they are written in one piece.
type statementConn struct {
	net.Conn
	fault *fault
	names map[string]string // of prepared statements: what they do

	mu      sync.Mutex
	begun   bool   // the startup message, which has no type, is behind us
	sending []byte // of a message that is not complete
	coming  []byte // likewise
	bound   string // what the portal does
	sent    int    // statements
	done    int    // statements that the server has ended
	// last, if any, is the statement whose answer will not come: the connection ends with it.
	last int
}

func dialStatements(f *fault, dial pgconn.DialFunc) pgconn.DialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if f.isDead() {
			return nil, errDead
		}
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		c := &statementConn{Conn: conn, fault: f, names: map[string]string{}}
		f.track(c)
		return c, nil
	}
}

// Write passes whole messages on, one at a time.
func (c *statementConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sending = append(c.sending, p...)
	for {
		m := c.message()
		if m == nil {
			return len(p), nil
		}
		if c.last > 0 {
			continue // the process is as good as dead: nothing more leaves it
		}
		if err := c.pass(m); err != nil {
			return 0, err
		}
	}
}

// message takes the next complete message off what is to be sent.
func (c *statementConn) message() []byte {
	head := 1
	if !c.begun {
		head = 0
	}
	if len(c.sending) < head+4 {
		return nil
	}
	size := head + int(binary.BigEndian.Uint32(c.sending[head:]))
	if len(c.sending) < size {
		return nil
	}
	m := c.sending[:size:size]
	c.sending = c.sending[size:]
	return m
}

func (c *statementConn) pass(m []byte) error {
	if !c.begun {
		c.begun = true
		_, err := c.Conn.Write(m)
		return err
	}
	what := c.statement(m[0], m[5:])
	if what == "" {
		_, err := c.Conn.Write(m)
		return err
	}
	if err := c.fault.on(what, true); err != nil {
		return err
	}
	c.sent += statementsIn(m)
	if c.fault.hits(what) {
		c.last = c.sent
		m = append(m, 'H', 0, 0, 0, 4) // Flush: the server answers what it has
	}
	_, err := c.Conn.Write(m)
	return err
}

// statement says what a message has the server do; empty for what only prepares that.
func (c *statementConn) statement(kind byte, body []byte) string {
	text := func() string {
		s, rest, _ := bytes.Cut(body, []byte{0})
		body = rest
		return string(s)
	}
	switch kind {
	case 'P':
		name, sql := text(), text()
		c.names[name] = c.describe(name, sql)
	case 'B':
		text() // the portal: always the unnamed
		c.bound = c.names[text()]
	case 'E':
		return c.bound
	case 'Q': // several statements are what the last one does
		statements := strings.Split(text(), "; ")
		return c.describe("", statements[len(statements)-1])
	case 'c':
		return "CopyDone"
	}
	return ""
}

// statementsIn counts what a message has the server answer one by one.
func statementsIn(m []byte) int {
	if m[0] == 'Q' {
		return 1 + strings.Count(string(m[5:]), "; ")
	}
	return 1
}

// describe names a statement: our own as they are named, the ledger's by what is in them.
func (c *statementConn) describe(name, sql string) string {
	for phrase, what := range map[string]string{
		"SET epoch = epoch + 1": "claim", "SET owner = ''": "give up", "INSERT INTO tiffin.progress": "enter", "pg_terminate_backend": "end sessions",
		"SELECT DISTINCT owner": "owners", "SELECT DISTINCT consumer_group": "other groups", "SELECT partition, next_offset": "positions",
		"pg_advisory_lock_shared": "mark", "-- ping": "ping", "set_config": "set_config", "pg_get_serial_sequence": "find sequence", "FROM tiffin.trigger\n": "read manifest",
	} {
		if strings.Contains(sql, phrase) {
			return what
		}
	}
	if name != "" && !strings.HasPrefix(name, "stmtcache_") {
		return name
	}
	first, _, _ := strings.Cut(strings.TrimSpace(sql), " ")
	return first
}

// Read passes the answers on, up to the one that is to be lost.
func (c *statementConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.follow(p[:n])
	if err != nil || c.last == 0 || c.done < c.last {
		return n, err
	}
	if c.fault.how == diesAfter {
		c.fault.kill()
	}
	_ = c.Close()
	return 0, errors.New("the answer is lost")
}

// follow counts the statements that have ended.
func (c *statementConn) follow(p []byte) {
	c.coming = append(c.coming, p...)
	for len(c.coming) >= 5 {
		size := 1 + int(binary.BigEndian.Uint32(c.coming[1:]))
		if len(c.coming) < size {
			return
		}
		switch c.coming[0] {
		case 'C', 'G', 'I', 'E': // CommandComplete, CopyInResponse, EmptyQueryResponse, ErrorResponse
			c.done++
		case 'Z': // ReadyForQuery: also behind what an error had it skip
			c.done = c.sent
		}
		c.coming = c.coming[size:]
	}
}
