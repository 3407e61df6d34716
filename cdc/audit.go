package cdc

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"example.com/tiffin/cache"
)

// Difference is one place where the index and the table disagree.
type Difference struct {
	Restaurant string `json:"restaurant"`
	// Client is empty when it is the number of rows that differs.
	Client string `json:"client,omitempty"`
	Text   string `json:"difference"`
}

// AuditReport is what an audit compared.
type AuditReport struct {
	// Slot is the replication slot that the index was built through.
	Slot string
	// Position is where table and index were compared.
	Position    cache.LSN
	Rows        int64 // of the table, those with a NULL left out
	Restaurants int64
	// Resident are the restaurants whose clients were compared; of the others, which are not
	// in memory, the number of rows. Of an audit of a running index.
	Resident    int64
	Differences int64
}

// Audit builds an index of its own, by a load and through a slot, and compares it with the
// table in one snapshot: every transaction that the snapshot sees is applied, and no other.
// The slot is cfg.Slot; while a daemon holds that, one of the audit's own, which is dropped
// at the end. found is called for every difference. The comparison sorts the table on the
// source server (work_mem, then its disk).
func Audit(ctx context.Context, cfg Config, budget int64, found func(Difference) error) (AuditReport, error) {
	return audit(ctx, cfg, budget, found, func(i Index) Index { return i })
}

// audit is Audit with a place for a test to spoil the index.
func audit(ctx context.Context, cfg Config, budget int64, found func(Difference) error, spoil func(Index) Index) (report AuditReport, err error) {
	cfg.Fence = FenceEmit // covers commits that are acknowledged before they are flushed, too
	conn, err := cfg.connect(ctx)
	if err != nil {
		return report, err
	}
	defer func() { hangUp(ctx, conn.PgConn()) }()
	if err := borrowSlot(ctx, &cfg, conn); err != nil {
		return report, err
	}
	report.Slot = cfg.Slot
	a := &auditor{cfg: cfg, conn: conn, found: found, report: &report}
	if err := a.build(budget, spoil); err != nil {
		return report, err
	}
	defer a.index.Close()
	defer a.source.Close()

	running, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- a.reader.Run(running) }()
	err = a.run(ctx, ended)
	stop()
	if gone := <-ended; err == nil {
		err = gone
	}
	return report, errors.Join(err, a.returnSlot(ctx))
}

// auditSuffix makes the name of the slot that an audit uses beside a running daemon.
const auditSuffix = "_audit"

// borrowSlot chooses the slot: the daemon's if nobody holds it.
func borrowSlot(ctx context.Context, cfg *Config, conn *pgx.Conn) error {
	slot, err := inspectSlot(ctx, conn, cfg.Slot)
	if err != nil {
		return err
	}
	if !slot.exists || slot.activePID != 0 {
		cfg.Slot += auditSuffix
		cfg.Setup, cfg.Failover = SetupAuto, false // of no use after the audit
	}
	return nil
}

// auditor compares one index with the table.
type auditor struct {
	cfg    Config
	conn   *pgx.Conn // its transaction holds the snapshot
	source *frozenSource
	index  *cache.Index
	freeze *freezer
	reader *Reader
	found  func(Difference) error
	report *AuditReport
}

func (a *auditor) build(budget int64, spoil func(Index) Index) error {
	source, err := NewSource(a.cfg)
	if err != nil {
		return err
	}
	a.source = &frozenSource{Source: source, cfg: &a.cfg}
	if a.index, err = cache.New(cache.Config{Budget: budget}, a.source); err != nil {
		source.Close()
		return err
	}
	a.freeze = &freezer{Index: spoil(a.index)}
	if a.reader, err = New(a.cfg, source, a.freeze); err != nil {
		source.Close()
		a.index.Close()
	}
	return err
}

func (a *auditor) run(ctx context.Context, ended chan error) error {
	if err := a.sync(ctx, ended); err != nil {
		return err
	}
	if err := a.takeSnapshot(ctx); err != nil {
		return err
	}
	// A fence raised now lies behind everything that the snapshot sees.
	mark, err := a.reader.Wait(ctx)
	if err != nil {
		return err
	}
	a.report.Position = mark.LSN
	if err := a.compare(ctx); err != nil {
		return err
	}
	return a.freeze.verdict()
}

// sync waits until the index follows the source.
func (a *auditor) sync(ctx context.Context, ended chan error) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if a.reader.state.isLoaded() && a.reader.state.inSync() {
			return nil
		}
		select {
		case <-tick.C:
		case err := <-ended:
			ended <- err // for whoever waits for the reader's end
			if err == nil {
				err = errors.New("the reader ended")
			}
			return err
		case <-ctx.Done():
			return fmt.Errorf("%w; %v", context.Cause(ctx), a.reader.Reasons())
		}
	}
}

// takeSnapshot begins the transaction that the table is read in. From then on the index
// takes no transaction that the snapshot does not see.
func (a *auditor) takeSnapshot(ctx context.Context) error {
	const tries = 200
	for range tries {
		frozen, err := a.begin(ctx)
		if err != nil || frozen {
			return err
		}
		// A transaction is applied that is not visible yet: its commit is being finished.
		if _, err := a.conn.Exec(ctx, "ROLLBACK"); err != nil {
			return err
		}
		if !pause(ctx, 50*time.Millisecond) {
			return context.Cause(ctx)
		}
	}
	return errInvisible
}

func (a *auditor) begin(ctx context.Context) (frozen bool, err error) {
	a.freeze.mu.Lock()
	defer a.freeze.mu.Unlock()
	exported, snapshot, err := openSnapshot(ctx, a.conn)
	if err != nil {
		return false, err
	}
	a.index.Settle(snapshot)
	if a.index.Stats().Unsettled > 0 {
		return false, nil
	}
	a.freeze.at = &snapshot
	return true, a.source.freeze(ctx, exported, snapshot)
}

// compare reads the table restaurant by restaurant.
func (a *auditor) compare(ctx context.Context) error {
	indexed := maps.Collect(a.index.Restaurants())
	delete(indexed, string(nothing))
	rows, err := a.conn.Query(ctx, "SELECT "+columnRestaurant+"::text, array_agg("+columnClient+"::text) FROM "+a.reader.table.from()+
		" WHERE "+columnRestaurant+" IS NOT NULL AND "+columnClient+" IS NOT NULL GROUP BY 1")
	if err != nil {
		return fmt.Errorf("read table %s: %w", a.cfg.Table, err)
	}
	var restaurant string
	var clients []string
	_, err = pgx.ForEachRow(rows, []any{&restaurant, &clients}, func() error {
		a.report.Restaurants++
		a.report.Rows += int64(len(clients))
		held := indexed[restaurant]
		delete(indexed, restaurant)
		return a.compareOne(ctx, restaurant, clients, held)
	})
	if err != nil {
		return fmt.Errorf("compare with table %s: %w", a.cfg.Table, err)
	}
	for restaurant, rows := range indexed {
		if err := a.differ(restaurant, "", fmt.Sprintf("the index has %d rows, the table none", rows)); err != nil {
			return err
		}
	}
	return nil
}

func (a *auditor) compareOne(ctx context.Context, restaurant string, clients []string, held int64) error {
	if held != int64(len(clients)) {
		if err := a.differ(restaurant, "", fmt.Sprintf("the index has %d rows, the table %d", held, len(clients))); err != nil {
			return err
		}
	}
	recipients, err := a.index.Lookup(ctx, restaurant)
	if err != nil {
		return err
	}
	defer recipients.Release()
	slices.Sort(clients)
	clients = slices.Compact(clients)
	seen := 0
	for client := range recipients.Range(0, recipients.Len()) {
		if _, in := slices.BinarySearch(clients, string(client)); in {
			seen++
			continue
		}
		if err := a.differ(restaurant, string(client), "in the index, not in the table"); err != nil {
			return err
		}
	}
	if seen == len(clients) {
		return nil
	}
	indexed := map[string]bool{}
	for client := range recipients.Range(0, recipients.Len()) {
		indexed[string(client)] = true
	}
	for _, client := range clients {
		if indexed[client] {
			continue
		}
		if err := a.differ(restaurant, client, "in the table, not in the index"); err != nil {
			return err
		}
	}
	return nil
}

func (a *auditor) differ(restaurant, client, text string) error {
	a.report.Differences++
	return a.found(Difference{Restaurant: restaurant, Client: client, Text: text})
}

// returnSlot drops the slot that was made for the audit.
func (a *auditor) returnSlot(ctx context.Context) error {
	if !strings.HasSuffix(a.cfg.Slot, auditSuffix) {
		return nil
	}
	return removeSlot(ctx, &a.cfg)
}

// freezer passes transactions on to an index until a snapshot is taken; after that only
// those that the snapshot sees.
type freezer struct {
	Index

	mu      sync.Mutex
	at      *cache.Snapshot
	spoiled bool
}

// Apply implements Index.
func (f *freezer) Apply(t *cache.Txn, c cache.Commit) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.at != nil && !f.at.Sees(c.Xid) {
		t.Discard()
		return nil
	}
	return f.Index.Apply(t, c)
}

// BeginLoad implements Index. A load after the snapshot would bring later rows in.
func (f *freezer) BeginLoad(keyed bool) *cache.Load {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.spoiled = f.spoiled || f.at != nil
	return f.Index.BeginLoad(keyed)
}

func (f *freezer) verdict() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.spoiled {
		return errors.New("the index had to be rebuilt during the audit: run it again")
	}
	return nil
}

// frozenSource reads restaurants whose posting is not in memory in the audit's snapshot.
type frozenSource struct {
	*Source
	cfg *Config

	mu   sync.Mutex
	conn *pgx.Conn // shares the snapshot; nil before it is taken
	at   cache.Snapshot
}

func (s *frozenSource) freeze(ctx context.Context, exported string, at cache.Snapshot) error {
	conn, err := joinSnapshot(ctx, s.cfg, exported)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conn, s.at = conn, at
	return nil
}

// Close ends the connections.
func (s *frozenSource) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil {
		hangUp(context.Background(), s.conn.PgConn())
	}
	s.Source.Close()
}

// ReadRestaurant implements cache.Source.
func (s *frozenSource) ReadRestaurant(ctx context.Context, restaurant string, add func([]byte) error) (cache.Snapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == nil {
		return s.Source.ReadRestaurant(ctx, restaurant, add)
	}
	rows, err := s.conn.Query(ctx, *s.read.Load(), restaurant)
	if err != nil {
		return cache.Snapshot{}, err
	}
	defer rows.Close()
	for rows.Next() {
		if values := rows.RawValues(); values[0] == nil {
			if err := add(values[1]); err != nil {
				return cache.Snapshot{}, err
			}
		}
	}
	return s.at, rows.Err()
}
