package stream

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// mixupTimeout bounds the questions of one broker, mixupLimit those of all: a fault is to be
// named within 30 s of the start.
const (
	mixupTimeout = 2 * time.Second
	mixupLimit   = 4 * time.Second
)

// mixup finds out whether nothing works because one side speaks TLS or wants a login and the
// other does not. A broker just hangs up on such a client, as one that is stopping or a proxy
// without a broker behind it does, so the end of the connection alone proves nothing: each
// seed is tried the other way. nil means that nothing is proven.
func (k *KafkaConfig) mixup(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, mixupLimit)
	defer cancel()
	for _, address := range k.Brokers {
		if err := k.mixupAt(ctx, address); err != nil {
			return &SettingError{err}
		}
	}
	return nil
}

func (k *KafkaConfig) mixupAt(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, mixupTimeout)
	defer cancel()
	switch {
	case k.TLS.Enabled && speaksPlain(ctx, address):
		return fmt.Errorf("broker %s speaks no TLS on this port; fix: give a TLS port in kafka.brokers, or set kafka.tls.enabled: false", address)
	case !k.TLS.Enabled && speaksTLS(ctx, address):
		return fmt.Errorf("broker %s speaks only TLS on this port; fix: set kafka.tls.enabled: true", address)
	}
	if k.SASL.Mechanism != "" {
		return nil // the broker says so itself
	}
	if offered := k.login(ctx, address); len(offered) > 0 {
		return fmt.Errorf("broker %s wants a login (SASL); fix: set kafka.sasl.mechanism to one of %s, and kafka.sasl.username", address, strings.Join(offered, ", "))
	}
	return nil
}

// speaksPlain asks for the broker's API versions in the clear, the question that needs no
// login.
func speaksPlain(ctx context.Context, address string) bool {
	conn, err := dial(ctx, address)
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close() }()
	const id = 0x7469666d
	question := []byte{0, 0, 0, 10, 0, byte(kmsg.ApiVersions), 0, 0} // length, API, version 0
	question = binary.BigEndian.AppendUint32(question, id)
	question = append(question, 0xff, 0xff) // no client id
	if _, err := conn.Write(question); err != nil {
		return false
	}
	var answer [8]byte // length, id
	_, err = io.ReadFull(conn, answer[:])
	return err == nil && binary.BigEndian.Uint32(answer[4:]) == id
}

// speaksTLS only wants to know whether the other side shakes hands at all: nothing is sent
// over the connection. A refusal of our side of it is TLS, too.
func speaksTLS(ctx context.Context, address string) bool {
	conn, err := dial(ctx, address)
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close() }()
	//nolint:gosec // not verified, because not used
	err = tls.Client(conn, &tls.Config{InsecureSkipVerify: true}).HandshakeContext(ctx)
	_, alert := errors.AsType[tls.AlertError](err)
	refusal, is := errors.AsType[*net.OpError](err)
	return err == nil || alert || is && refusal.Op == "remote error"
}

func dial(ctx context.Context, address string) (net.Conn, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		err = conn.SetDeadline(deadline)
	}
	return conn, err
}

// login asks for the mechanisms that a broker offers; none where it wants no login.
func (k *KafkaConfig) login(ctx context.Context, address string) []string {
	opts, err := k.ClientOptions()
	if err != nil {
		return nil
	}
	cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(address))...)
	if err != nil {
		return nil
	}
	defer cl.Close()
	req := kmsg.NewPtrSASLHandshakeRequest()
	req.Mechanism = "none"
	resp, err := cl.SeedBrokers()[0].Request(ctx, req)
	if err != nil {
		return nil
	}
	handshake, ok := resp.(*kmsg.SASLHandshakeResponse)
	if !ok || !errors.Is(kerr.ErrorForCode(handshake.ErrorCode), kerr.UnsupportedSaslMechanism) {
		return nil
	}
	return handshake.SupportedMechanisms
}
