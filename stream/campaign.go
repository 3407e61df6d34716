package stream

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// Campaign is what a restaurant publishes. Times are Unix seconds, UTC.
type Campaign struct {
	RestaurantID string
	ID           string
	Content      string
	Owner        string
	OwnerContact string
	Start        int64
	End          int64
	Created      int64
}

// Active reports whether now, in Unix seconds, lies in the campaign's window, ends included.
func (c *Campaign) Active(now int64) bool { return c.Start <= now && now <= c.End }

// The reasons why a record is malformed, as the header `reason` and the metric label say them.
const (
	reasonTombstone    = "tombstone"
	reasonEmpty        = "empty"
	reasonUTF8         = "invalid_utf8"
	reasonBOM          = "byte_order_mark"
	reasonNotJSON      = "not_json"
	reasonNotObject    = "not_an_object"
	reasonMissingField = "missing_field"
	reasonNullField    = "null_field"
	reasonWrongType    = "wrong_type"
	reasonOutOfRange   = "out_of_range"
	reasonNotText      = "lone_surrogate"
	reasonNUL          = "nul_character"
	reasonTooLarge     = "too_large"
	reasonRefused      = "refused_by_table"
)

// reasons are all of them. A counter of each is there from the start: an alert sees a first event only
// as the increase of a counter.
func reasons() []string {
	return []string{
		reasonTombstone, reasonEmpty, reasonUTF8, reasonBOM, reasonNotJSON, reasonNotObject, reasonMissingField,
		reasonNullField, reasonWrongType, reasonOutOfRange, reasonNotText, reasonNUL, reasonTooLarge, reasonRefused,
	}
}

// MalformedError says why a record's value is no campaign. It is permanent: the same bytes
// give the same reason and sentence for ever.
type MalformedError struct {
	// Reason is one word of a small closed set, for headers and metrics.
	Reason string
	// Text is a sentence for a person.
	Text string
}

func (e *MalformedError) Error() string { return e.Text }

func malformed(reason, format string, args ...any) *MalformedError {
	return &MalformedError{Reason: reason, Text: fmt.Sprintf(format, args...)}
}

// fieldNames are the eight fields, in the order of the output record.
var fieldNames = [...]string{
	"restaurant_id", "adv_campaign_id", "adv_campaign_content", "adv_campaign_owner",
	"adv_campaign_owner_contact", "adv_campaign_datetime_start", "adv_campaign_datetime_end", "datetime_created",
}

// campaignDecoder reads record values. What it needs for that is kept from value to value. One
// goroutine at a time.
type campaignDecoder struct {
	json *jsontext.Decoder
	in   bytes.Buffer
	text []byte // of the value's five texts, one behind the other
}

// decode reads one record value. Names match exactly, of a repeated name the last counts,
// unknown fields are ignored. When the value is malformed the campaign still holds the texts
// that could be read, for the manifest.
func (d *campaignDecoder) decode(value []byte) (Campaign, *MalformedError) {
	var c Campaign
	if fault := checkBytes(value); fault != nil {
		return c, fault
	}
	fields, fault := d.splitObject(value)
	if fault != nil {
		return c, fault
	}
	var first *MalformedError
	keep := func(fault *MalformedError) {
		if first == nil {
			first = fault
		}
	}
	texts := [...]*string{&c.RestaurantID, &c.ID, &c.Content, &c.Owner, &c.OwnerContact}
	var ends [len(texts)]int
	d.text = d.text[:0]
	for i := range texts {
		keep(d.decodeText(fieldNames[i], fields[i]))
		ends[i] = len(d.text)
	}
	text, from := string(d.text), 0
	for i, into := range texts {
		*into, from = text[from:ends[i]], ends[i]
	}
	for i, into := range []*int64{&c.Start, &c.End, &c.Created} {
		keep(decodeTime(fieldNames[i+5], fields[i+5], into))
	}
	return c, first
}

func checkBytes(value []byte) *MalformedError {
	switch {
	case value == nil:
		return malformed(reasonTombstone, "the record has no value (a tombstone)")
	case len(value) == 0:
		return malformed(reasonEmpty, "the record's value is empty")
	case !utf8.Valid(value):
		return malformed(reasonUTF8, "the value is not valid UTF-8")
	case bytes.Contains(value, []byte("\ufeff")):
		return malformed(reasonBOM, "the value contains a byte order mark")
	}
	return nil
}

// splitObject finds the raw values of the eight fields, which alias value. Raw, because a
// repeated name's earlier value does not count, whatever it holds.
func (d *campaignDecoder) splitObject(value []byte) (fields [len(fieldNames)]jsontext.Value, fault *MalformedError) {
	// Lone surrogates are legal in what is ignored (RFC 8259, section 8.2): the decoder lets
	// them pass and decodeText judges the fields that count. UTF-8 was checked before.
	d.in = *bytes.NewBuffer(value) // which is read in place
	if d.json == nil {
		d.json = new(jsontext.Decoder)
	}
	d.json.Reset(&d.in, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	dec := d.json
	notJSON := func(err error) *MalformedError {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return malformed(reasonNotJSON, "the value ends in the middle of the JSON text")
		}
		return malformed(reasonNotJSON, "the value is not JSON: %s", plainError(err))
	}
	if kind := dec.PeekKind(); kind != '{' {
		if err := dec.SkipValue(); err != nil {
			return fields, notJSON(err)
		}
		return fields, malformed(reasonNotObject, "the value is JSON, but not an object")
	}
	if _, err := dec.ReadToken(); err != nil {
		return fields, notJSON(err)
	}
	for dec.PeekKind() != '}' {
		name, err := dec.ReadToken()
		if err != nil {
			return fields, notJSON(err)
		}
		index := fieldIndex(name.String())
		raw, err := dec.ReadValue()
		if err != nil {
			return fields, notJSON(err)
		}
		if index >= 0 {
			fields[index] = raw
		}
	}
	if _, err := dec.ReadToken(); err != nil {
		return fields, notJSON(err)
	}
	if _, err := dec.ReadToken(); !errors.Is(err, io.EOF) {
		return fields, malformed(reasonNotJSON, "something follows the JSON object")
	}
	return fields, nil
}

func fieldIndex(name string) int {
	for i, known := range fieldNames {
		if name == known {
			return i
		}
	}
	return -1
}

// decodeText appends a field's text to those before.
func (d *campaignDecoder) decodeText(name string, raw jsontext.Value) *MalformedError {
	if fault := checkKind(name, raw, '"', "a string"); fault != nil {
		return fault
	}
	from := len(d.text)
	text, err := jsontext.AppendUnquote(d.text, raw)
	if err != nil {
		return malformed(reasonNotText, "field %q holds an escaped lone surrogate, which is not text", name)
	}
	if bytes.IndexByte(text[from:], 0) >= 0 {
		return malformed(reasonNUL, "field %q holds a NUL character, which Postgres text cannot hold", name)
	}
	d.text = text
	return nil
}

func decodeTime(name string, raw jsontext.Value, into *int64) *MalformedError {
	if fault := checkKind(name, raw, '0', "an integer (Unix seconds)"); fault != nil {
		return fault
	}
	if bytes.ContainsAny(raw, ".eE") {
		return malformed(reasonWrongType, "field %q is %s: want an integer without fraction or exponent", name, shorten(string(raw)))
	}
	n, err := strconv.ParseInt(string(raw), 10, 64)
	if err != nil {
		return malformed(reasonOutOfRange, "field %q is %s: outside the range of int64", name, shorten(string(raw)))
	}
	*into = n
	return nil
}

func checkKind(name string, raw jsontext.Value, want jsontext.Kind, what string) *MalformedError {
	switch {
	case raw == nil:
		return malformed(reasonMissingField, "field %q is missing", name)
	case raw.Kind() == 'n':
		return malformed(reasonNullField, "field %q is null", name)
	case raw.Kind() != want:
		return malformed(reasonWrongType, "field %q is %s: want %s", name, raw.Kind(), what)
	}
	return nil
}

// plainError keeps a decoder's message on one line of valid text: it goes into a record
// header and a text column.
func plainError(err error) string {
	text := strings.TrimPrefix(err.Error(), "jsontext: ")
	return strings.ReplaceAll(strings.ToValidUTF8(shorten(text), "?"), "\x00", "?")
}

// shorten cuts what a stranger wrote to a length that headers, logs and columns bear.
func shorten(text string) string {
	const limit = 200
	if len(text) <= limit {
		return text
	}
	cut := limit
	for !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + "…"
}
