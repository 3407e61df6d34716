package cdc

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"example.com/tiffin/internal/dsn"
	"example.com/tiffin/internal/pulse"
)

// Setup says what the reader may create on the source database.
type Setup string

// The two answers of the setting source.setup.
const (
	SetupAuto  Setup = "auto"  // create the publication and the slot where missing and permitted
	SetupNever Setup = "never" // create nothing, and name the command that does
)

// FenceMode says how a fence learns the source's position.
type FenceMode string

// The modes of the setting source.fence.
const (
	FenceFlush FenceMode = "flush" // the flushed position: covers every synchronous commit
	FenceEmit  FenceMode = "emit"  // an emitted message: covers synchronous_commit=off as well
	FenceOff   FenceMode = "off"   // no fence: Wait returns at once
)

// Config is what New and NewSource need. The zero value of an optional field means its
// default.
type Config struct {
	// DSN of the source database: a URL or key=value; PG* variables fill what it lacks. DSNKey is the
	// setting that holds it, for fixes; empty: source.dsn.
	DSN, DSNKey string
	// Table is "schema.table", as the catalog spells it (case kept); a name with a dot or a
	// quote in it stands in double quotes.
	Table string
	// Publication and Slot belong to this process alone.
	Publication, Slot string
	Setup             Setup
	Fence             FenceMode
	// MaxStaleness is how old an index a fence may let pass while the source is
	// unreachable; 0 waits for as long as it takes.
	MaxStaleness time.Duration
	// MaxRetainedWAL, in bytes, is how much log the slot may hold back on the source before
	// it is given up and the index rebuilt; 0 is no bound.
	MaxRetainedWAL int64
	// Failover has the slot made one that standbys synchronise (PostgreSQL 17 or newer), and
	// an existing one changed to that. A failover loads the table again all the same.
	Failover bool
	// StatusInterval is how often the position is settled and reported, and the slot looked
	// at. Default 10 s, at most a third of the server's wal_sender_timeout.
	StatusInterval time.Duration
	// HoldLimit is how long a slot may be active elsewhere at the start before that is
	// final. Default 3 min: a dead predecessor's walsender lingers for wal_sender_timeout
	// (60 s by default).
	HoldLimit time.Duration
	// LoadConns is how many connections share the load of a table that is small beside the server's cache; a larger
	// one is read by one. Default 2.
	LoadConns int

	Log     *slog.Logger     // default: discards
	Metrics *Metrics         // nil: none
	Now     func() time.Time // default: time.Now
	Rand    func() float64   // in [0, 1), jitter of the backoff; default: math/rand/v2

	pulse      *pulse.Pulse // of a load; nil for one that nobody looks at
	rangePages int64        // of the table, for one COPY of a load; 0 means loadRange
	ownSlot    bool         // the slot is made for once, whatever Setup says, and goes with its connection
}

// makesSlots reports whether the slot may be made where it is missing, and again where it is of no use.
func (c *Config) makesSlots() bool { return c.Setup == SetupAuto || c.ownSlot }

// slotName is what Postgres accepts (ReplicationSlotValidateName in slot.c).
var slotName = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)

// Validate reports every fault of the settings at once, each with its setting's key.
func (c *Config) Validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if _, err := dsn.Parse(c.DSN); err != nil {
		fault("%s: %w", c.dsnKey(), err)
	}
	if _, err := parseTable(c.Table); err != nil {
		fault("source.table: %w", err)
	}
	if c.Publication == "" || len(c.Publication) > 63 {
		fault("source.publication: %q must have 1 to 63 bytes", c.Publication)
	}
	if !slotName.MatchString(c.Slot) {
		fault("source.slot: %q must have 1 to 63 lower-case letters, digits and underscores", c.Slot)
	}
	if c.Setup != "" && c.Setup != SetupAuto && c.Setup != SetupNever {
		fault("source.setup: %q must be auto or never", c.Setup)
	}
	if c.Fence != "" && c.Fence != FenceFlush && c.Fence != FenceEmit && c.Fence != FenceOff {
		fault("source.fence: %q must be flush, emit or off", c.Fence)
	}
	if c.MaxStaleness < 0 {
		fault("source.max_staleness: %s must not be negative", c.MaxStaleness)
	}
	if c.MaxRetainedWAL < 0 {
		fault("source.max_retained_wal: %d must not be negative", c.MaxRetainedWAL)
	}
	return errors.Join(faults...)
}

func (c Config) withDefaults() Config {
	c.Setup = or(c.Setup, SetupAuto)
	c.Fence = or(c.Fence, FenceFlush)
	c.StatusInterval = or(c.StatusInterval, 10*time.Second)
	c.HoldLimit = or(c.HoldLimit, 3*time.Minute)
	c.LoadConns = or(c.LoadConns, 2)
	c.rangePages = or(c.rangePages, loadRange)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Metrics == nil {
		c.Metrics = NewMetrics(nil)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Rand == nil {
		c.Rand = rand.Float64
	}
	return c
}

func or[T comparable](value, otherwise T) T {
	var zero T
	if value == zero {
		return otherwise
	}
	return value
}

// tableName is a table's schema and name as the catalog spells them.
type tableName struct{ schema, name string }

// parseTable reads "schema.table" or "table" (in public). Names are taken as they are; one
// that holds a dot or a quote stands in double quotes, as pgx.Identifier.Sanitize writes it.
func parseTable(text string) (tableName, error) {
	unfit := fmt.Errorf("%q is not schema.table", text)
	var names []string
	for rest := text; ; {
		m := namePart.FindStringSubmatch(rest)
		if m == nil {
			return tableName{}, unfit
		}
		name := m[2]
		if m[1] != "" {
			name = strings.ReplaceAll(m[1][1:len(m[1])-1], `""`, `"`)
		}
		names = append(names, name)
		if rest = rest[len(m[0]):]; rest == "" && m[3] == "" {
			break
		}
	}
	switch len(names) {
	case 1:
		return tableName{schema: "public", name: names[0]}, nil
	case 2:
		return tableName{schema: names[0], name: names[1]}, nil
	default:
		return tableName{}, unfit
	}
}

// namePart is a quoted or a plain name and what ends it.
var namePart = regexp.MustCompile(`^(?:("(?:[^"\x00]|"")+")|([^".\x00]+))(\.|$)`)

// String is the name as messages show it.
func (t tableName) String() string { return t.schema + "." + t.name }

// sql is the name quoted for a statement.
func (t tableName) sql() string { return pgx.Identifier{t.schema, t.name}.Sanitize() }

func quoted(name string) string { return pgx.Identifier{name}.Sanitize() }

// literal quotes a string for a statement (the standard_conforming_strings of every server
// since 9.1).
func literal(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }
