// Package settings reads what an operator may set: one YAML file, overridden by the
// environment. One table of keys is the source of parsing, help texts, the README's table and
// masking. Every fault is found before any is reported; a value that holds a secret shows
// itself only through Reveal.
//
// Nothing here starts a goroutine. Settings are not changed after Load.
package settings

import (
	"fmt"
	"log/slog"
	"net/netip"
	"time"
)

// Settings are all that an operator sets, checked and with defaults filled in.
type Settings struct {
	Source   Source
	Setup    Setup
	Feedback Feedback
	Kafka    Kafka
	Delivery Delivery
	Index    Index
	HTTP     HTTP
	Tracing  Tracing
	Log      Log

	// Warnings are what Load found odd but not wrong, one sentence each.
	Warnings []string

	values map[string]string // what was set or defaulted, for printing; secrets masked
}

// Source is the database of the subscribers, which is only read.
type Source struct {
	DSN            DSN
	Table          Table
	Publication    string
	Slot           string
	Setup          string        // auto or never
	Fence          string        // flush, emit or off
	MaxStaleness   time.Duration // 0: wait for the source as long as it takes
	MaxRetainedWAL Bytes
	Failover       bool // the slot is one that standbys synchronise
}

// Setup is what slotsetup alone uses.
type Setup struct {
	DSN  DSN    // defaults to Source.DSN
	Role string // defaults to the user of Source.DSN
}

// Feedback is the database of the second sink.
type Feedback struct {
	DSN     DSN
	Table   Table
	Migrate bool
}

// Kafka is the broker and the topics.
type Kafka struct {
	Brokers    []string
	Group      string
	InstanceID string // empty: dynamic membership
	Input      string
	Output     string
	DeadLetter string
	Start      string // latest or earliest
	// SessionTimeout is at least a second: how long the group waits for a silent member.
	SessionTimeout time.Duration
	TLS            TLS
	SASL           SASL
}

// TLS is how the broker is trusted, and how it is to trust us. Files are PEM.
type TLS struct {
	Enabled  bool
	CAFile   string
	CertFile string
	KeyFile  string
}

// SASL is how we log in to the broker.
type SASL struct {
	Mechanism string // empty for none, else as Kafka spells it
	Username  string
	Password  Secret // as it was at the start, also when it came from kafka.sasl.password_file

	file string
}

// PasswordNow reads kafka.sasl.password_file anew; without one the password never changes.
func (s SASL) PasswordNow() (Secret, error) {
	if s.file == "" {
		return s.Password, nil
	}
	password, err := readPassword(s.file)
	if err != nil {
		return "", fmt.Errorf("%s %w", passwordFileKey, err)
	}
	return password, nil
}

// Delivery is the promise to the sinks.
type Delivery struct {
	Mode                  string // exactly_once or at_least_once
	MaxTransactionRecords int
}

// Index is the subscriber index.
type Index struct {
	Budget   Bytes  // of postings
	SpillDir string // empty: the system's for temporary files
}

// HTTP is the endpoint for probes and metrics.
type HTTP struct {
	Listen string // empty: none
}

// Tracing is where spans go.
type Tracing struct {
	Endpoint    string // empty: none
	SampleRatio Ratio
}

// Log is what is logged to stderr, and how.
type Log struct {
	Level  slog.Level
	Format string // text or json
}

// LogValue shows every key with its value, secrets masked.
func (s *Settings) LogValue() slog.Value {
	var attrs []slog.Attr
	for _, key := range Keys() {
		attrs = append(attrs, slog.String(key.Name, s.values[key.Name]))
	}
	return slog.GroupValue(attrs...)
}

// String shows every key with its value on a line of its own, secrets masked.
func (s *Settings) String() string {
	var text []byte
	for _, key := range Keys() {
		text = append(text, key.Name+": "+s.values[key.Name]+"\n"...)
	}
	return string(text)
}

// Loopback reports whether the endpoint can only be reached from this machine.
func (h HTTP) Loopback() bool {
	addr, err := netip.ParseAddrPort(h.Listen)
	return err == nil && addr.Addr().IsLoopback()
}
