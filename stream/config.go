package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"example.com/tiffin/internal/dsn"
)

// Mode says what a crash may cost.
type Mode string

// The delivery modes (delivery.mode).
const (
	// ExactlyOnce delivers records and offsets in Kafka transactions (KIP-98, KIP-447).
	ExactlyOnce Mode = "exactly_once"
	// AtLeastOnce is for brokers without transactions: after a crash records may come twice,
	// byte for byte the same, rows never.
	AtLeastOnce Mode = "at_least_once"
)

// Start says where a group without offsets begins (kafka.start).
type Start string

// The start positions of a new group.
const (
	StartLatest   Start = "latest"
	StartEarliest Start = "earliest"
)

// LedgerBehind says what to do when the group's committed offset is ahead of the ledger: the
// feedback database was restored from a backup, or belongs to another group.
type LedgerBehind string

// The choices for a ledger that lies behind the group's offset.
const (
	// LedgerStop names what was found and stops: the default.
	LedgerStop LedgerBehind = "stop"
	// LedgerSkip trusts Kafka: the missing rows stay missing.
	LedgerSkip LedgerBehind = "skip"
	// LedgerReplay trusts the ledger: the messages are handled again, their records come twice.
	LedgerReplay LedgerBehind = "replay"
)

// InputReset says what to do when the input topic is not the one that the ledger speaks of: it was
// deleted and created again, or ends before the ledger's position.
type InputReset string

// The choices for an input topic whose offsets began anew.
const (
	// InputStop names what was found and stops: the default.
	InputStop InputReset = "stop"
	// InputAnew sets the manifest of the lost offsets aside and handles what the topic holds.
	InputAnew InputReset = "anew"
)

// Config is all that an Engine needs to know. The zero value is not valid.
type Config struct {
	Kafka KafkaConfig

	// FeedbackDSN names the feedback database, as a URL or key=value; PG* variables fill in.
	FeedbackDSN string
	// Prepare readies the feedback database at the start of a session: migrates it, or checks
	// it. Nil means it is ready.
	Prepare func(ctx context.Context, conn *pgx.Conn) error
	// FeedbackTable is the table that takes the rows, schema first.
	FeedbackTable pgx.Identifier

	Mode Mode
	// MaxTransactionRecords bounds one Kafka transaction; a larger campaign takes several.
	MaxTransactionRecords int
	LedgerBehind          LedgerBehind
	InputReset            InputReset
	// UntilNow ends Run once every message that the input topic held at the start is handled.
	UntilNow bool

	Log *slog.Logger
	// Registerer receives the metrics; nil keeps them unregistered.
	Registerer prometheus.Registerer
	// Tracer receives a span for each message and its steps, and its context goes into the output
	// records; nil for neither.
	Tracer trace.Tracer
	// Now is the clock of trigger times and activity; nil means time.Now.
	Now func() time.Time
}

// Validate names every fault at once.
func (c *Config) Validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	faults = append(faults, c.Kafka.validate()...)
	if _, err := dsn.Parse(c.FeedbackDSN); err != nil {
		fault("feedback database: %w", err)
	}
	if len(c.FeedbackTable) == 0 {
		fault("feedback table: no name")
	}
	if c.Mode != ExactlyOnce && c.Mode != AtLeastOnce {
		fault("delivery mode %q: want %s or %s", c.Mode, ExactlyOnce, AtLeastOnce)
	}
	if c.MaxTransactionRecords < 1 {
		fault("max transaction records %d: want at least 1", c.MaxTransactionRecords)
	}
	switch c.LedgerBehind {
	case LedgerStop, LedgerSkip, LedgerReplay:
	default:
		fault("ledger behind %q: want %s, %s or %s", c.LedgerBehind, LedgerStop, LedgerSkip, LedgerReplay)
	}
	if c.InputReset != InputStop && c.InputReset != InputAnew {
		fault("input reset %q: want %s or %s", c.InputReset, InputStop, InputAnew)
	}
	if c.Log == nil {
		fault("no logger")
	}
	return errors.Join(faults...)
}

func (c *Config) setDefaults() {
	if c.Mode == "" {
		c.Mode = ExactlyOnce
	}
	if c.MaxTransactionRecords == 0 {
		c.MaxTransactionRecords = 50_000
	}
	if c.LedgerBehind == "" {
		c.LedgerBehind = LedgerStop
	}
	if c.InputReset == "" {
		c.InputReset = InputStop
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	c.Kafka.setDefaults()
}
