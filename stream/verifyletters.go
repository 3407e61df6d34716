package stream

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// examineLetters compares the dead letters of malformed messages with the manifest.
func (v *verifier) examineLetters(ctx context.Context, some []*suspect, since *time.Time) error {
	at := map[tallyKey]*suspect{}
	for _, s := range some {
		if s.key.letter {
			at[s.key] = s
		}
	}
	if len(at) == 0 {
		return nil
	}
	letters, err := v.again(ctx, v.letters, since)
	if err != nil {
		return err
	}
	names := triggerNames{prefix: []byte(v.Kafka.Input + "/")}
	err = v.read(ctx, letters, func(r *kgo.Record) error {
		partition, offset, ours := names.of(r)
		if s := at[tallyKey{partition: partition, offset: offset, letter: true}]; ours && s != nil {
			s.told++
			if len(s.letters) < 2 {
				s.letters = append(s.letters, string(lastHeader(r, "reason")))
				s.letterAts = append(s.letterAts, triggerID(letters.topic, r.Partition, r.Offset))
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, s := range some {
		if d := v.judgeLetter(s); d != nil {
			if err := v.say(*d); err != nil {
				return err
			}
		}
	}
	return nil
}

func (v *verifier) judgeLetter(s *suspect) *Difference {
	d := &Difference{Trigger: s.key.trigger(v.Kafka.Input), Times: s.told}
	wanted := s.known && s.outcome == Malformed
	switch {
	case !s.key.letter:
		return nil
	case wanted && s.told == 0:
		d.Kind, d.Text = MissingLetter, fmt.Sprintf("the message is malformed (%s), topic %s has no dead letter of it", s.reason, v.Kafka.DeadLetter)
		if span := v.spans[s.key.partition]; span.held >= 0 && s.key.offset >= span.held {
			d.Text += fmt.Sprintf(" yet: group %s stands at %d; `tiffin run` sends it", v.Kafka.Group, span.held)
		}
		return d
	case s.told == 0:
		return nil
	}
	d.Record = s.letterAts[len(s.letterAts)-1]
	switch {
	case !s.known:
		d.Kind, d.Text = ExtraLetter, d.Record+" names a message that the ledger does not know"
	case !wanted:
		d.Kind, d.Text = ExtraLetter, fmt.Sprintf("%s is a dead letter of a message with outcome %s", d.Record, s.outcome)
	case slices.ContainsFunc(s.letters, func(reason string) bool { return reason != s.reason }):
		d.Kind, d.Text = DifferentLetter, fmt.Sprintf("reason %q in dead letter %s, %q in the manifest", s.letters[len(s.letters)-1], d.Record, s.reason)
	default:
		d.Kind, d.Text = DuplicateLetter, fmt.Sprintf("%d dead letters of one message, one of them %s", s.told, d.Record)
	}
	return d
}
