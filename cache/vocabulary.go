package cache

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// LSN is a position in the source database's write-ahead log, in bytes.
type LSN uint64

// String returns the position as Postgres prints it: two hexadecimal halves.
func (l LSN) String() string { return fmt.Sprintf("%X/%X", uint64(l)>>32, uint32(l)) }

// ParseLSN reads a position as Postgres prints it, "16/B374D848".
func ParseLSN(text string) (LSN, error) {
	hi, lo, ok := strings.Cut(text, "/")
	if !ok {
		return 0, fmt.Errorf("position %q: want two hexadecimal numbers and a slash", text)
	}
	h, err := strconv.ParseUint(hi, 16, 32)
	if err != nil {
		return 0, fmt.Errorf("position %q: %w", text, err)
	}
	l, err := strconv.ParseUint(lo, 16, 32)
	if err != nil {
		return 0, fmt.Errorf("position %q: %w", text, err)
	}
	return LSN(h<<32 | l), nil
}

// Mark is what a passed fence proves: the index holds every transaction that the source
// database had acknowledged when the fence was raised.
type Mark struct {
	// LSN is the source's position when the fence was raised; 0 when the fence is off.
	LSN LSN
	// Stale says that the source could not be asked and that the operator allowed an index
	// of bounded age instead (source.max_staleness).
	Stale bool
}

// Snapshot says which transactions a row set read from the source contains. It is a
// pg_snapshot (src/backend/utils/adt/xid8funcs.c): xids have 64 bits, epoch included.
type Snapshot struct {
	// Xmin is the lowest xid still in progress: all below are visible (or rolled back).
	Xmin uint64
	// Xmax is the first xid not yet assigned: it and all above are invisible.
	Xmax uint64
	// InProgress are the xids in [Xmin, Xmax) that had not ended, ascending.
	InProgress []uint64
}

// ParseSnapshot reads the text form of pg_snapshot, "xmin:xmax:xip,xip,…".
func ParseSnapshot(text string) (Snapshot, error) {
	parts := strings.Split(text, ":")
	if len(parts) != 3 {
		return Snapshot{}, fmt.Errorf("snapshot %q: want xmin:xmax:xip_list", text)
	}
	var s Snapshot
	var err error
	if s.Xmin, err = strconv.ParseUint(parts[0], 10, 64); err != nil {
		return Snapshot{}, fmt.Errorf("snapshot %q: xmin: %w", text, err)
	}
	if s.Xmax, err = strconv.ParseUint(parts[1], 10, 64); err != nil {
		return Snapshot{}, fmt.Errorf("snapshot %q: xmax: %w", text, err)
	}
	if parts[2] == "" {
		return s, nil
	}
	for field := range strings.SplitSeq(parts[2], ",") {
		xid, err := strconv.ParseUint(field, 10, 64)
		if err != nil {
			return Snapshot{}, fmt.Errorf("snapshot %q: xip: %w", text, err)
		}
		s.InProgress = append(s.InProgress, xid)
	}
	slices.Sort(s.InProgress)
	return s, nil
}

// Sees reports whether the effects of the committed top-level transaction xid are in the
// snapshot. A transaction that the write-ahead log shows as committed may still be invisible:
// Postgres ends it in shared memory only after its commit record is flushed (and, with
// synchronous replication, acknowledged).
func (s Snapshot) Sees(xid uint64) bool {
	if xid < s.Xmin {
		return true
	}
	if xid >= s.Xmax {
		return false
	}
	_, running := slices.BinarySearch(s.InProgress, xid)
	return !running
}
