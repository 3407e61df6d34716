package stream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// KafkaConfig names the cluster, the group and the topics.
type KafkaConfig struct {
	// Brokers are the seeds, host:port each.
	Brokers []string
	// Group is the consumer group, the identity of the ledger and the prefix of transactional ids.
	Group string
	// InstanceID is the static member id (KIP-345); empty for dynamic membership.
	InstanceID string
	// Process tells the processes of a group apart in transactional ids. It must survive a
	// restart, so that a new process fences the transactions of its predecessor: the slot's name.
	Process string

	Input, Output, DeadLetter string
	Start                     Start

	TLS  TLSConfig
	SASL SASLConfig

	// SessionTimeout is how long the group waits for a silent member; 0 means 45 s.
	SessionTimeout time.Duration
	// TransactionTimeout is when the brokers abort a transaction whose owner fell silent; 0
	// means a minute.
	TransactionTimeout time.Duration
	// Extra options of every client, such as metrics hooks.
	Options []kgo.Opt
}

// TLSConfig is the transport security of the Kafka connections. Verification is always on.
type TLSConfig struct {
	Enabled bool
	// CAFile holds the PEM certificates to trust; empty means the system's.
	CAFile string
	// CertFile and KeyFile are for mutual TLS: both or none.
	CertFile, KeyFile string
}

// SASLConfig authenticates the Kafka connections; an empty mechanism means none.
type SASLConfig struct {
	// Mechanism is SCRAM-SHA-512, SCRAM-SHA-256 or PLAIN.
	Mechanism          string
	Username, Password string
	// PasswordNow, if any, is asked at each login in place of Password: it may have changed. Several
	// connections may ask at once.
	PasswordNow func() (string, error)
}

func (k *KafkaConfig) setDefaults() {
	if k.Start == "" {
		k.Start = StartLatest
	}
	if k.SessionTimeout == 0 {
		k.SessionTimeout = 45 * time.Second
	}
	if k.TransactionTimeout == 0 {
		k.TransactionTimeout = transactionTimeout
	}
	if k.Process == "" {
		k.Process = "tiffin"
	}
}

func (k *KafkaConfig) validate() []error {
	var faults []error
	fault := func(text string, args ...any) { faults = append(faults, fmt.Errorf(text, args...)) }
	if len(k.Brokers) == 0 {
		fault("kafka: no brokers")
	}
	for _, n := range []struct{ what, value string }{
		{"group", k.Group}, {"input topic", k.Input}, {"output topic", k.Output}, {"dead-letter topic", k.DeadLetter},
	} {
		if n.value == "" {
			fault("kafka: no %s", n.what)
		}
	}
	if k.Input != "" && (k.Input == k.Output || k.Input == k.DeadLetter || k.Output == k.DeadLetter) {
		fault("kafka: input, output and dead-letter topics must be three")
	}
	if k.Start != StartLatest && k.Start != StartEarliest {
		fault("kafka start %q: want %s or %s", k.Start, StartLatest, StartEarliest)
	}
	if _, err := k.SASL.mechanism(); err != nil {
		faults = append(faults, err)
	}
	return faults
}

func (s SASLConfig) mechanism() (sasl.Mechanism, error) {
	hashed := func(context.Context) (scram.Auth, error) {
		password, err := s.password()
		return scram.Auth{User: s.Username, Pass: password}, err
	}
	switch s.Mechanism {
	case "":
		return nil, nil
	case "SCRAM-SHA-512":
		return scram.Sha512(hashed), nil
	case "SCRAM-SHA-256":
		return scram.Sha256(hashed), nil
	case "PLAIN":
		return plain.Plain(func(context.Context) (plain.Auth, error) {
			password, err := s.password()
			return plain.Auth{User: s.Username, Pass: password}, err
		}), nil
	}
	return nil, fmt.Errorf("sasl mechanism %q: want SCRAM-SHA-512, SCRAM-SHA-256 or PLAIN", s.Mechanism)
}

func (s SASLConfig) password() (string, error) {
	if s.PasswordNow == nil {
		return s.Password, nil
	}
	password, err := s.PasswordNow()
	if err != nil {
		return "", &SettingError{err}
	}
	return password, nil
}

func (t TLSConfig) config() (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read the CA file: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("CA file %s holds no PEM certificate", t.CAFile)
		}
	}
	if t.CertFile == "" && t.KeyFile == "" {
		return cfg, nil
	}
	if t.CertFile == "" || t.KeyFile == "" {
		return nil, errors.New("mutual TLS needs both a certificate file and a key file")
	}
	cert, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("load the client certificate: %w", err)
	}
	cfg.Certificates = []tls.Certificate{cert}
	return cfg, nil
}

const dialTimeout = 5 * time.Second

func (t TLSConfig) dial(ctx context.Context, network, address string) (net.Conn, error) {
	cfg, err := t.config()
	if err != nil {
		return nil, &SettingError{err}
	}
	dialer := tls.Dialer{NetDialer: &net.Dialer{Timeout: dialTimeout}, Config: cfg}
	return dialer.DialContext(ctx, network, address)
}

// ClientOptions are what every client of this cluster needs: seeds, transport security,
// authentication and the extra options. Certificates, keys and the password are read anew at each
// connection: some clients live as long as the process.
func (k *KafkaConfig) ClientOptions() ([]kgo.Opt, error) {
	opts := []kgo.Opt{
		kgo.SeedBrokers(k.Brokers...),
		kgo.ClientID("tiffin"),
		kgo.SoftwareNameAndVersion("tiffin", "1"),
		// Outages are the session's to judge: a client gives up on a request soon enough for
		// the reason to be seen.
		kgo.RetryTimeout(15 * time.Second),
		kgo.DialTimeout(dialTimeout), // without TLS
		kgo.MetadataMinAge(250 * time.Millisecond),
		kgo.WithCompressor(lz4Blocks{}),
	}
	if k.TLS.Enabled {
		if _, err := k.TLS.config(); err != nil {
			return nil, err
		}
		opts = append(opts, kgo.Dialer(k.TLS.dial))
	}
	mech, err := k.SASL.mechanism()
	if err != nil {
		return nil, err
	}
	if mech != nil {
		opts = append(opts, kgo.SASL(mech))
	}
	return append(opts, k.Options...), nil
}

func (k *KafkaConfig) newClient(extra ...kgo.Opt) (*kgo.Client, error) {
	opts, err := k.ClientOptions()
	if err != nil {
		return nil, &SettingError{err}
	}
	cl, err := kgo.NewClient(append(opts, extra...)...)
	if err != nil {
		return nil, &SettingError{fmt.Errorf("client: %w", err)}
	}
	return cl, nil
}
