package stream

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"example.com/tiffin/internal/dsn"
)

// snapshot is one state of the feedback database, seen through three connections: one for
// questions, and two whose long answers are read side by side.
type snapshot struct {
	ask, ranges, rows *pgx.Conn
	table             string
}

func openSnapshot(ctx context.Context, v *Verification) (_ *snapshot, err error) {
	cfg, err := dsn.Parse(v.FeedbackDSN)
	if err != nil {
		return nil, &SettingError{err}
	}
	tune(cfg)
	s := &snapshot{table: v.FeedbackTable.Sanitize()}
	defer func() {
		if err != nil {
			s.close(ctx)
		}
	}()
	id := ""
	for _, conn := range []**pgx.Conn{&s.ask, &s.ranges, &s.rows} {
		if *conn, err = pgx.ConnectConfig(ctx, cfg); err != nil {
			return nil, err
		}
		if err = unbounded(ctx, *conn); err != nil {
			return nil, err
		}
		begin := `BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY`
		if id != "" {
			begin += `; SET TRANSACTION SNAPSHOT '` + id + `'` // the server's own text
		}
		if _, err = (*conn).PgConn().Exec(ctx, begin).ReadAll(); err != nil {
			return nil, fmt.Errorf("take a snapshot: %w", err)
		}
		if id == "" {
			if err = s.ask.QueryRow(ctx, `SELECT pg_export_snapshot()`).Scan(&id); err != nil {
				return nil, fmt.Errorf("export the snapshot: %w", err)
			}
		}
	}
	return s, nil
}

// unbounded has a session read for as long as it takes, whatever its role or database allows a statement or a
// transaction (the last only since PostgreSQL 17), and all rows or none.
func unbounded(ctx context.Context, conn *pgx.Conn) error {
	if err := settle(ctx, conn); err != nil {
		return err
	}
	_, err := conn.Exec(ctx, `SELECT set_config(name, '0', false) FROM pg_settings
		WHERE name IN ('statement_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout')`)
	if err != nil {
		return fmt.Errorf("set the session's timeouts: %w", err)
	}
	return nil
}

func (s *snapshot) close(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	for _, conn := range []*pgx.Conn{s.ask, s.ranges, s.rows} {
		if conn != nil {
			_ = conn.Close(ctx) // it only read
		}
	}
}

// ledger returns for each partition that the group has taken what the manifest begins with
// and where the ledger stands.
func (s *snapshot) ledger(ctx context.Context, k *KafkaConfig) (map[int32]judged, error) {
	rows, err := s.ask.Query(ctx, `
		SELECT p.partition, p.next_offset, coalesce((SELECT min(t.record_offset) FROM tiffin.trigger t
			WHERE t.consumer_group = p.consumer_group AND t.topic = p.topic AND t.partition = p.partition), p.next_offset)
		FROM tiffin.progress p WHERE p.consumer_group = $1 AND p.topic = $2`, k.Group, k.Input)
	if err != nil {
		return nil, fmt.Errorf("read the ledger: %w", err)
	}
	known := map[int32]judged{}
	var partition int32
	var span judged
	if _, err := pgx.ForEachRow(rows, []any{&partition, &span.to, &span.from}, func() error {
		span.from = min(span.from, span.to)
		known[partition] = span
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read the ledger: %w", err)
	}
	return known, nil
}

// offsetAt is the first message of a partition handled at t or later; nil for none.
func (s *snapshot) offsetAt(ctx context.Context, k *KafkaConfig, partition int32, t time.Time) (at *int64, err error) {
	err = s.ask.QueryRow(ctx, `SELECT min(record_offset) FROM tiffin.trigger
		WHERE consumer_group = $1 AND topic = $2 AND partition = $3 AND handled_at >= $4`, k.Group, k.Input, partition, t).Scan(&at)
	if err != nil {
		return nil, fmt.Errorf("look for %s in the manifest: %w", t.Format(time.RFC3339), err)
	}
	return at, nil
}

// inSpans is a condition on tiffin.trigger t: parameters 1 to 5 are those of spanParams.
const inSpans = `t.consumer_group = $1 AND t.topic = $2 AND EXISTS (SELECT FROM unnest($3::int4[], $4::int8[], $5::int8[]) AS w(partition, low, high)
	WHERE t.partition = w.partition AND t.record_offset >= w.low AND t.record_offset < w.high)`

func spanParams(k *KafkaConfig, spans map[int32]*judged) []any {
	var partitions []int32
	var from, to []int64
	for _, p := range slices.Sorted(maps.Keys(spans)) {
		partitions, from, to = append(partitions, p), append(from, spans[p].from), append(to, spans[p].to)
	}
	return []any{k.Group, k.Input, partitions, from, to}
}

// handled says when the messages of the spans were handled, and how many they are.
func (s *snapshot) handled(ctx context.Context, k *KafkaConfig, spans map[int32]*judged) (first, last *time.Time, n int64, err error) {
	err = s.ask.QueryRow(ctx, `SELECT min(handled_at), max(handled_at), count(*) FROM tiffin.trigger t WHERE `+inSpans,
		spanParams(k, spans)...).Scan(&first, &last, &n)
	if err != nil {
		return nil, nil, 0, fmt.Errorf("read the manifest: %w", err)
	}
	return first, last, n, nil
}
