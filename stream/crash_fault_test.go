package stream

import (
	"context"
	"encoding/binary"
	"errors"
	"maps"
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

var errDead = errors.New("this process is dead")

// fault fails the n-th occurrence of an effect.
type fault struct {
	effect, how string
	n           int

	mu    sync.Mutex
	seen  map[string]int
	conns []net.Conn
	dead  bool
	died  context.Context //nolint:containedctx // ends with the process
	die   context.CancelFunc
	asked context.Context //nolint:containedctx // ends when the process is asked to stop
	ask   context.CancelFunc
}

func newFault() *fault {
	f := &fault{seen: map[string]int{}}
	f.revive(nil)
	return f
}

// on is called before and after an effect that is a call.
func (f *fault) on(effect string, before bool) error {
	f.mu.Lock()
	if f.dead {
		f.mu.Unlock()
		return errDead
	}
	if before {
		f.seen[effect]++
	}
	hit := effect == f.effect && f.seen[effect] == f.n
	f.mu.Unlock()
	switch {
	case hit && (before && f.how == diesBefore || !before && f.how == diesAfter):
		f.kill()
		return errDead
	case hit && before && f.how == stops:
		f.ask()
	case hit && !before && f.how == unknown:
		return errors.New("the answer is lost")
	}
	return nil
}

// hits says that this occurrence of the effect, which has begun, is the one whose answer does not come.
func (f *fault) hits(effect string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return effect == f.effect && f.seen[effect] == f.n && f.how != stops
}

// kill ends the process: nothing reaches anybody any more.
func (f *fault) kill() {
	f.mu.Lock()
	f.dead = true
	conns := f.conns
	f.conns = nil
	f.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
	}
	f.die()
}

// revive is a new process, to which the first of the points happens, if there is one.
func (f *fault) revive(points []crashPoint) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dead, f.effect = false, ""
	clear(f.seen)
	if len(points) > 0 {
		f.effect, f.n, f.how = points[0].effect, points[0].n, points[0].how
	}
	f.died, f.die = context.WithCancel(context.Background())
	f.asked, f.ask = context.WithCancel(context.Background())
}

// over says that this life was ended.
func (f *fault) over() bool { return f.isDead() || f.asked.Err() != nil }

func (f *fault) isDead() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dead
}

func (f *fault) track(c net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.conns = append(f.conns, c)
}

func (f *fault) counts() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.seen)
}

// faultConn sees every request that is an effect on the broker.
type faultConn struct {
	net.Conn
	fault *fault
	mu    sync.Mutex
	lose  bool // the next answer is lost
}

// kafkaEffects are the requests that change something on the broker.
var kafkaEffects = map[int16]string{
	int16(kmsg.Produce): "Produce", int16(kmsg.AddPartitionsToTxn): "AddPartitionsToTxn", int16(kmsg.AddOffsetsToTxn): "AddOffsetsToTxn",
	int16(kmsg.EndTxn): "EndTxn", int16(kmsg.TxnOffsetCommit): "TxnOffsetCommit", int16(kmsg.OffsetCommit): "OffsetCommit",
	int16(kmsg.InitProducerID): "InitProducerID", int16(kmsg.LeaveGroup): "LeaveGroup", int16(kmsg.JoinGroup): "JoinGroup",
}

// Write sees a whole request at a time: franz-go writes it in one piece.
func (c *faultConn) Write(p []byte) (int, error) {
	if len(p) < 6 {
		return c.Conn.Write(p)
	}
	effect, is := kafkaEffects[int16(binary.BigEndian.Uint16(p[4:]))]
	if !is {
		return c.Conn.Write(p)
	}
	if effect == "EndTxn" && c.fault.counts()[effect]%2 == 0 {
		<-time.After(time.Second) // of a fake clock: what does not wait for it overtakes
	}
	if err := c.fault.on(effect, true); err != nil {
		return 0, err
	}
	if c.fault.hits(effect) {
		c.mu.Lock()
		c.lose = true
		c.mu.Unlock()
	}
	return c.Conn.Write(p)
}

// Read loses the answer to the effect that is to fail: the connection breaks once it came.
func (c *faultConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	lose := c.lose
	c.lose = false
	c.mu.Unlock()
	if !lose || err != nil {
		return n, err
	}
	if c.fault.how == diesAfter {
		c.fault.kill()
	}
	_ = c.Close()
	return 0, errors.New("the answer is lost")
}
