package stream

import (
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
)

// envelope is the part of an output record's value that all deliveries of a trigger share:
// what stands before the client id and what stands behind it.
type envelope struct {
	head, tail []byte
}

// newEnvelope encodes a campaign compactly, in the contract's field order, escaping only what
// JSON requires (RFC 8785, section 3.2.2.2).
func newEnvelope(c *Campaign, now int64) envelope {
	var e envelope
	e.encode(c, now)
	return e
}

// encode makes the envelope that of another campaign, in the same memory.
func (e *envelope) encode(c *Campaign, now int64) {
	head := append(e.head[:0], `{"restaurant_id":`...)
	head = appendQuoted(head, c.RestaurantID)
	head = appendQuoted(append(head, `,"adv_campaign_id":`...), c.ID)
	head = appendQuoted(append(head, `,"adv_campaign_content":`...), c.Content)
	head = appendQuoted(append(head, `,"adv_campaign_owner":`...), c.Owner)
	head = appendQuoted(append(head, `,"adv_campaign_owner_contact":`...), c.OwnerContact)
	head = strconv.AppendInt(append(head, `,"adv_campaign_datetime_start":`...), c.Start, 10)
	head = strconv.AppendInt(append(head, `,"adv_campaign_datetime_end":`...), c.End, 10)
	head = strconv.AppendInt(append(head, `,"datetime_created":`...), c.Created, 10)
	head = append(head, `,"client_id":`...)
	tail := strconv.AppendInt(append(e.tail[:0], `,"trigger_datetime_created":`...), now, 10)
	e.head, e.tail = head, append(tail, '}')
}

// appendValue appends the value of the record for one client.
func (e *envelope) appendValue(dst, client []byte) []byte {
	dst = append(dst, e.head...)
	dst = appendQuoted(dst, client)
	return append(dst, e.tail...)
}

// maxValue bounds the size of a value for a client id of n bytes: a control character
// takes six.
func (e *envelope) maxValue(n int) int { return len(e.head) + len(e.tail) + 2 + 6*n }

// appendQuoted never fails here: a campaign's texts were checked to be valid UTF-8, and
// Postgres hands out nothing else.
func appendQuoted[T ~[]byte | ~string](dst []byte, text T) []byte {
	dst, _ = jsontext.AppendQuote(dst, text)
	return dst
}

// recordOverhead bounds what the record format v2 adds around key, value and headers: batch
// header (61) and a record's own varints and attributes.
const recordOverhead = 61 + 64

// recordSize bounds the uncompressed size of a record in a batch of its own.
func recordSize(key, value, headers int) int { return recordOverhead + key + value + headers }

// bound is a size that no record of the campaign passes, for a topic's name and a client id of so
// many bytes: a character of a text takes six at most, names, numbers and the header no more than
// the rest.
func (c *Campaign) bound(topic, client int) int {
	const rest = recordOverhead + 512
	return rest + topic + client + 6*(client+c.texts())
}

// texts is the length of the campaign's texts, in bytes.
func (c *Campaign) texts() int {
	return len(c.RestaurantID) + len(c.ID) + len(c.Content) + len(c.Owner) + len(c.OwnerContact)
}
