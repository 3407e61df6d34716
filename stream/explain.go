package stream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Explanation is what the manifest knows of one campaign message, and, where the brokers were asked,
// how much of it is out (GroupOffsets.Tell).
type Explanation struct {
	Trigger      string    `json:"trigger"`
	Outcome      Outcome   `json:"outcome"`
	RestaurantID *string   `json:"restaurant_id"`
	CampaignID   *string   `json:"adv_campaign_id"`
	Joined       int64     `json:"trigger_datetime_created"` // Unix seconds
	FenceLSN     *string   `json:"fence_lsn"`
	Stale        bool      `json:"stale"`
	Recipients   int64     `json:"recipients"`
	Reason       *string   `json:"reason,omitempty"`
	Error        *string   `json:"error,omitempty"`
	Handled      time.Time `json:"handled_at"`
	// Sent is how many of its records, or whether its dead letter, are committed in Kafka; nil where
	// nobody has asked. UnderWay says that they are not all yet: the outcome is decided and its rows
	// are written, the rest is on its way or will be recovered.
	Sent     *int64 `json:"records_sent,omitempty"`
	UnderWay bool   `json:"under_way,omitempty"`
	// Client is set when one was asked for.
	Client *ClientAnswer `json:"client,omitempty"`
}

// Records is how many records the message makes, its dead letter included.
func (e *Explanation) Records() int64 {
	if e.Outcome == Malformed {
		return 1
	}
	return e.Recipients
}

// ClientAnswer says whether one client got the message, and why.
type ClientAnswer struct {
	ID  string `json:"id"`
	Got bool   `json:"got"`
	// Cause is Why as a word, one of Cause's.
	Cause Cause  `json:"cause"`
	Why   string `json:"why"`
}

// Cause is why a client got a message or not.
type Cause string

// The values of Cause.
const (
	CauseSubscribed    Cause = "subscribed" // it got it
	CauseInactive      Cause = "inactive"
	CauseMalformed     Cause = "malformed"
	CauseNoSubscribers Cause = "no_subscribers"
	CauseStale         Cause = "stale" // not subscribed in an index that may have been old
	CauseNotSubscribed Cause = "not_subscribed"
)

// ErrUnknownTrigger says that the manifest has no such message.
var ErrUnknownTrigger = errors.New("the manifest does not know this message")

// ParseTrigger reads TOPIC/PARTITION/OFFSET. A topic's name cannot hold a slash.
func ParseTrigger(text string) (topic string, partition int32, offset int64, err error) {
	parts := strings.Split(text, "/")
	fault := fmt.Errorf("%q: want TOPIC/PARTITION/OFFSET", text)
	if len(parts) != 3 || parts[0] == "" {
		return "", 0, 0, fault
	}
	p, err := strconv.ParseInt(parts[1], 10, 32)
	if err != nil || p < 0 {
		return "", 0, 0, fault
	}
	if offset, err = strconv.ParseInt(parts[2], 10, 64); err != nil || offset < 0 {
		return "", 0, 0, fault
	}
	return parts[0], int32(p), offset, nil
}

// Explain answers from the manifest what became of a campaign message; client is nil when
// only the message is asked for. It reads. The error wraps ErrUnknownTrigger when the group
// has not handled the message.
func Explain(ctx context.Context, conn *pgx.Conn, group, trigger string, feedback pgx.Identifier, client *string) (Explanation, error) {
	e := Explanation{Trigger: trigger}
	topic, partition, offset, err := ParseTrigger(trigger)
	if err != nil {
		return e, err
	}
	err = conn.QueryRow(ctx, `
		SELECT outcome, restaurant_id, adv_campaign_id, coalesce(trigger_datetime_created, 0), fence_lsn::text, stale, recipients, reason, error, handled_at
		FROM tiffin.trigger WHERE consumer_group = $1 AND topic = $2 AND partition = $3 AND record_offset = $4`,
		group, topic, partition, offset).Scan(&e.Outcome, &e.RestaurantID, &e.CampaignID, &e.Joined, &e.FenceLSN, &e.Stale,
		&e.Recipients, &e.Reason, &e.Error, &e.Handled)
	if errors.Is(err, pgx.ErrNoRows) {
		return e, fmt.Errorf("%s, group %s: %w: not handled yet, or before this group began", trigger, group, ErrUnknownTrigger)
	}
	if err != nil {
		return e, fmt.Errorf("read the manifest of %s: %w", trigger, err)
	}
	if client == nil {
		return e, nil
	}
	var id *int64
	err = conn.QueryRow(ctx, `
		SELECT (SELECT f.id::int8 FROM unnest(t.feedback_ids) AS run, LATERAL (
			SELECT id FROM `+feedback.Sanitize()+` WHERE id >= lower(run) AND id < upper(run) AND client_id::text COLLATE "C" = $5
			AND restaurant_id::text COLLATE "C" = t.restaurant_id AND adv_campaign_id::text COLLATE "C" = t.adv_campaign_id AND trigger_datetime_created = t.trigger_datetime_created) AS f LIMIT 1)
		FROM tiffin.trigger t WHERE consumer_group = $1 AND topic = $2 AND partition = $3 AND record_offset = $4`,
		group, topic, partition, offset, *client).Scan(&id)
	if err != nil {
		return e, fmt.Errorf("read the feedback rows of %s: %w", trigger, err)
	}
	cause, why := e.why(id)
	e.Client = &ClientAnswer{ID: *client, Got: id != nil, Cause: cause, Why: why}
	return e, nil
}

// why is the answer to "why did this client get it, or not?".
func (e *Explanation) why(row *int64) (Cause, string) {
	at := time.Unix(e.Joined, 0).UTC().Format(time.RFC3339)
	state := "as of " + at
	if e.FenceLSN != nil {
		state = "as of position " + *e.FenceLSN + " of the source database or later, at " + at
	}
	switch {
	case row != nil:
		return CauseSubscribed, fmt.Sprintf("subscribed %s; row %d of the feedback table", state, *row)
	case e.Outcome == Inactive:
		return CauseInactive, "nobody got it: the campaign was not active at " + at
	case e.Outcome == Malformed:
		return CauseMalformed, "nobody got it: the message is malformed and went to the dead-letter topic"
	case e.Outcome == NoSubscribers:
		return CauseNoSubscribers, "nobody got it: the restaurant had no subscribers " + state
	case e.Stale:
		return CauseStale, "not subscribed in an index that could not be brought up to date (source.max_staleness) at " + at
	default:
		return CauseNotSubscribed, "not subscribed " + state + " (or its feedback row was deleted since)"
	}
}
