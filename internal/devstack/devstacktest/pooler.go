package devstacktest

import (
	"context"
	"net"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// PoolTransactions is a pooler in front of a server, which gives the session that was free last to whoever begins
// something; it speaks no more of the protocol than simple queries. It returns where it listens.
func PoolTransactions(t *testing.T, dsn string) string {
	t.Helper()
	from, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &transactionPool{dsn: dsn}
	var group sync.WaitGroup
	t.Cleanup(func() {
		_ = from.Close()
		group.Wait()
		for _, conn := range p.free {
			_ = conn.Close(context.WithoutCancel(t.Context()))
		}
	})
	group.Go(func() {
		for {
			client, err := from.Accept()
			if err != nil {
				return
			}
			group.Go(func() { p.serve(context.WithoutCancel(t.Context()), client) })
		}
	})
	return from.Addr().String()
}

type transactionPool struct {
	dsn  string
	mu   sync.Mutex
	free []*pgconn.PgConn
}

func (p *transactionPool) take(ctx context.Context) (*pgconn.PgConn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.free); n > 0 {
		conn := p.free[n-1]
		p.free = p.free[:n-1]
		return conn, nil
	}
	return pgconn.Connect(ctx, p.dsn)
}

func (p *transactionPool) give(conn *pgconn.PgConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free = append(p.free, conn)
}

// serve passes simple queries on.
func (p *transactionPool) serve(ctx context.Context, client net.Conn) {
	defer func() { _ = client.Close() }()
	b := pgproto3.NewBackend(client, client)
	if _, err := b.ReceiveStartupMessage(); err != nil {
		return
	}
	b.Send(&pgproto3.AuthenticationOk{})
	b.Send(&pgproto3.ParameterStatus{Name: "standard_conforming_strings", Value: "on"})
	b.Send(&pgproto3.ParameterStatus{Name: "client_encoding", Value: "UTF8"})
	b.Send(&pgproto3.BackendKeyData{ProcessID: 1, SecretKey: make([]byte, 4)})
	b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	var server *pgconn.PgConn
	for b.Flush() == nil {
		m, err := b.Receive()
		query, ok := m.(*pgproto3.Query)
		if err != nil || !ok {
			break
		}
		if server == nil {
			if server, err = p.take(ctx); err != nil {
				break
			}
		}
		server.Frontend().Send(query)
		if server.Frontend().Flush() != nil {
			break
		}
		for {
			answer, err := server.Frontend().Receive()
			if err != nil {
				return
			}
			b.Send(answer)
			if ready, ok := answer.(*pgproto3.ReadyForQuery); ok {
				if ready.TxStatus == 'I' {
					p.give(server)
					server = nil
				}
				break
			}
		}
	}
	if server != nil {
		_ = server.Close(ctx)
	}
}
