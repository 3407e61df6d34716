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

	"example.com/tiffin/internal/checkup"
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
		if d, found := k.disagreement(ctx, address); found {
			return &SettingError{fmt.Errorf("%s; fix: %s", d.Text, d.Fix)}
		}
	}
	return nil
}

// disagreement is what one side of a connection speaks and the other does not.
func (k *KafkaConfig) disagreement(ctx context.Context, address string) (checkup.Finding, bool) {
	ctx, cancel := context.WithTimeout(ctx, mixupTimeout)
	defer cancel()
	if d, found := k.aboutTLS(ctx, address); found {
		return d, true
	}
	if k.SASL.Mechanism != "" {
		return checkup.Finding{}, false // the broker says so itself
	}
	return k.aboutLogin(ctx, address)
}

func (k *KafkaConfig) aboutTLS(ctx context.Context, address string) (checkup.Finding, bool) {
	switch {
	case k.TLS.Enabled && speaksPlain(ctx, address):
		return checkup.Bad("broker "+address+" speaks no TLS on this port", "give a TLS port in kafka.brokers, or set kafka.tls.enabled: false"), true
	case !k.TLS.Enabled && speaksTLS(ctx, address):
		return checkup.Bad("broker "+address+" speaks only TLS on this port", "set kafka.tls.enabled: true"), true
	}
	return checkup.Finding{}, false
}

func (k *KafkaConfig) aboutLogin(ctx context.Context, address string) (checkup.Finding, bool) {
	offered := k.mechanisms(ctx, address)
	if len(offered) == 0 {
		return checkup.Finding{}, false
	}
	return checkup.Bad("broker "+address+" wants a login (SASL)", logins(offered)+", with kafka.sasl.username"), true
}

// logins names the mechanisms that a broker offers, the first of them as the setting.
func logins(offered []string) string {
	fix := "set kafka.sasl.mechanism: " + offered[0]
	if len(offered) > 1 {
		fix += " (or " + strings.Join(offered[1:], ", ") + ")"
	}
	return fix
}

// speaksPlain asks for the broker's API versions in the clear, the question that needs no
// login.
func speaksPlain(ctx context.Context, address string) bool {
	conn, err := dial(ctx, address)
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close() }()
	return askVersions(conn) == nil
}

func askVersions(conn net.Conn) error {
	const id = 0x7469666d
	question := []byte{0, 0, 0, 10, 0, byte(kmsg.ApiVersions), 0, 0} // length, API, version 0
	question = binary.BigEndian.AppendUint32(question, id)
	question = append(question, 0xff, 0xff) // no client id
	if _, err := conn.Write(question); err != nil {
		return err
	}
	var answer [8]byte // length, id
	_, err := io.ReadFull(conn, answer[:])
	if err == nil && binary.BigEndian.Uint32(answer[4:]) != id {
		return errors.New("that is no answer of a broker")
	}
	return err
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

// mechanisms are those that a broker offers for a login; none where it wants none.
func (k *KafkaConfig) mechanisms(ctx context.Context, address string) []string {
	anonymous := *k
	anonymous.SASL = SASLConfig{}
	opts, err := anonymous.ClientOptions()
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
