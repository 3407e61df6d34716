package stream

import (
	"fmt"
	"strings"
)

// DifferenceKind says what is not as it should be.
type DifferenceKind string

// The kinds of differences. A record without a row is a missing row when the manifest has a
// place for it, else an extra record.
const (
	MissingRecord   DifferenceKind = "missing_record"
	ExtraRecord     DifferenceKind = "extra_record"
	DifferentRecord DifferenceKind = "different"
	DuplicateRecord DifferenceKind = "duplicate_record"
	MissingRow      DifferenceKind = "missing_row"
	ExtraRow        DifferenceKind = "extra_row"
	// WrongManifest is a row of tiffin.trigger that contradicts the feedback rows.
	WrongManifest   DifferenceKind = "manifest"
	MissingLetter   DifferenceKind = "missing_dead_letter"
	ExtraLetter     DifferenceKind = "extra_dead_letter"
	DifferentLetter DifferenceKind = "different_dead_letter"
	DuplicateLetter DifferenceKind = "duplicate_dead_letter"
)

// Difference is one delivery, or one message, in which the sinks do not agree.
type Difference struct {
	Kind DifferenceKind `json:"kind"`
	// Trigger is the campaign message, TOPIC/PARTITION/OFFSET; empty where nothing tells it.
	Trigger string `json:"trigger,omitempty"`
	// Client is nil where it is not about a single one, or nobody knows.
	Client *string `json:"client,omitempty"`
	// Row is the id of the feedback row, where there is one.
	Row int64 `json:"row,omitempty"`
	// Record is where the record lies: TOPIC/PARTITION/OFFSET.
	Record string `json:"record,omitempty"`
	// Fields are those in which record and row differ.
	Fields []string `json:"fields,omitempty"`
	// Times is how often a record came that should have come once.
	Times int64 `json:"times,omitempty"`
	// Harmless says that the delivery mode allows it: it is no reason for OK to be false.
	Harmless bool `json:"harmless,omitempty"`
	// Text is a sentence for a person.
	Text string `json:"text"`
}

// String is a line for a person.
func (d *Difference) String() string {
	var b strings.Builder
	b.WriteString(string(d.Kind))
	if d.Trigger != "" {
		b.WriteString(" " + d.Trigger)
	}
	if d.Client != nil {
		fmt.Fprintf(&b, " client %q", *d.Client)
	}
	return b.String() + ": " + d.Text
}
