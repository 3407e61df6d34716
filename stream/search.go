package stream

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// What a search reads at most. The manifest has no index but its key, and the feedback table may
// have none on client_id: both are searched from their newest end.
const (
	SearchedMessages int64 = 100_000   // of each partition of the input topic
	SearchedRows     int64 = 1_000_000 // of the feedback table, by id
	foundAtMost            = 20        // messages by either way
	clippedTo              = 300       // characters of an id in a list
)

// Findings are the messages that a search found, newest first, with their ids clipped to 300
// characters. Neither has more than 20.
type Findings struct {
	Campaign []Explanation `json:"campaign"` // whose campaign has the id
	Client   []Explanation `json:"client"`   // that went to the client with the id
	// Messages (of each partition) and Rows are how far back the search went.
	Messages int64 `json:"searched_messages"`
	Rows     int64 `json:"searched_rows"`
}

// listed are the columns of an Explanation in a list, of tiffin.trigger as t.
const listed = `t.topic || '/' || t.partition || '/' || t.record_offset, t.outcome, left(t.restaurant_id, $3), left(t.adv_campaign_id, $3),
	coalesce(t.trigger_datetime_created, 0), t.fence_lsn::text, t.stale, t.recipients, t.reason, left(t.error, $3), t.handled_at`

// newest are the messages handled last, $4 of each partition of the topic, found by the key.
const newest = `tiffin.progress p CROSS JOIN LATERAL (
	SELECT * FROM tiffin.trigger t WHERE t.consumer_group = p.consumer_group AND t.topic = p.topic AND t.partition = p.partition
	ORDER BY t.record_offset DESC LIMIT $4) t
	WHERE p.consumer_group = $1 AND p.topic = $2`

// Recent are the n messages of the topic that the group handled last, newest first, with ids
// clipped to 300 characters. It reads n rows of each partition.
func Recent(ctx context.Context, db Querier, group, topic string, n int) ([]Explanation, error) {
	list, err := explanations(ctx, db, "SELECT "+listed+" FROM "+newest+" ORDER BY t.handled_at DESC, t.partition, t.record_offset DESC LIMIT $4",
		group, topic, clippedTo, n)
	if err != nil {
		return nil, fmt.Errorf("read the newest of the manifest: %w", err)
	}
	return list, nil
}

// Search finds messages of the topic by the id of their campaign or of a client that they went
// to, as far back as Findings say. The caller bounds its time.
func Search(ctx context.Context, db Querier, group, topic string, feedback pgx.Identifier, id string) (Findings, error) {
	f := Findings{Messages: SearchedMessages, Rows: SearchedRows}
	var err error
	const ordered = " ORDER BY t.handled_at DESC, t.partition, t.record_offset DESC LIMIT $6"
	f.Campaign, err = explanations(ctx, db, "SELECT "+listed+" FROM "+newest+" AND t.adv_campaign_id = $5"+ordered,
		group, topic, clippedTo, SearchedMessages, id, foundAtMost)
	if err != nil {
		return f, fmt.Errorf("search the manifest for campaign %q: %w", id, err)
	}
	// The rows first, by id: with them few messages remain to be looked through. An index of the operator's may serve
	// the client's id as its column compares it, which may take others for equal.
	f.Client, err = explanations(ctx, db, `WITH got AS MATERIALIZED (
			SELECT f.id::int8 AS id, f.restaurant_id::text COLLATE "C" AS restaurant_id, f.adv_campaign_id::text COLLATE "C" AS adv_campaign_id,
				f.trigger_datetime_created FROM `+feedback.Sanitize()+` f
			WHERE f.id > (SELECT max(id) FROM `+feedback.Sanitize()+`) - $7::int8
				AND f.client_id = $5 AND f.client_id::text COLLATE "C" = $5 ORDER BY f.id DESC LIMIT $6)
		SELECT `+listed+` FROM `+newest+` AND EXISTS (
			SELECT FROM got WHERE (got.restaurant_id, got.adv_campaign_id, got.trigger_datetime_created) = (t.restaurant_id, t.adv_campaign_id, t.trigger_datetime_created) AND t.feedback_ids @> got.id)`+ordered,
		group, topic, clippedTo, SearchedMessages, id, foundAtMost, SearchedRows)
	if err != nil {
		return f, fmt.Errorf("search the feedback table for client %q: %w", id, err)
	}
	return f, nil
}

// Querier is what reads: a connection, or a transaction on one.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

func explanations(ctx context.Context, db Querier, sql string, args ...any) ([]Explanation, error) {
	rows, err := db.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.AppendRows([]Explanation{}, rows, func(row pgx.CollectableRow) (e Explanation, err error) {
		err = row.Scan(&e.Trigger, &e.Outcome, &e.RestaurantID, &e.CampaignID, &e.Joined, &e.FenceLSN, &e.Stale, &e.Recipients, &e.Reason, &e.Error, &e.Handled)
		return e, err
	})
}
