package soak

import (
	"fmt"
	"slices"
)

// mostTold bounds how many differences are told word for word.
const mostTold = 40

// verdict counts the differences by kind, and tells the first of them.
type verdict struct {
	lost, twiceN, staleN, differing, disorder int
	told                                      []string

	messages, delivered, deliveries, letters int
	sharp                                    int // messages for which only one state was admissible
}

func (v *verdict) ok() bool { return v.lost+v.twiceN+v.staleN+v.differing+v.disorder == 0 }

func (v *verdict) tell(n *int, kind, format string, args ...any) {
	*n++
	if len(v.told) < mostTold {
		v.told = append(v.told, kind+": "+fmt.Sprintf(format, args...))
	}
}

func (v *verdict) lose(format string, args ...any) { v.tell(&v.lost, "LOST", format, args...) }
func (v *verdict) twice(format string, args ...any) {
	v.tell(&v.twiceN, "TWICE", format, args...)
}

func (v *verdict) stale(format string, args ...any) {
	v.tell(&v.staleN, "STALE", format, args...)
}

func (v *verdict) differ(format string, args ...any) {
	v.tell(&v.differing, "DIFFERENT", format, args...)
}

func (v *verdict) order(format string, args ...any) {
	v.tell(&v.disorder, "ORDER", format, args...)
}

// judge holds every message's rows, records and outcome against each other and the history.
func (e *evidence) judge(h *history) {
	v := e.verdict
	questions := map[string][]*question{}
	asked := map[*question]place{}
	for at, m := range e.messages {
		v.messages++
		if !m.handled {
			v.lose("%v (campaign %d) was not handled", at, m.number)
			continue
		}
		e.judgeSinks(at, m)
		if !e.judgeOutcome(at, m) {
			continue
		}
		q := &question{published: m.published, fence: m.fence, handled: m.began, recipients: m.rows}
		questions[m.Restaurant] = append(questions[m.Restaurant], q)
		asked[q] = at
	}
	for restaurant, list := range questions {
		h.judge(restaurant, list)
		for _, q := range list {
			e.judgeState(asked[q], e.messages[asked[q]], q)
		}
	}
}

// judgeSinks wants the same clients in rows and records, each once, and as many as the manifest says.
func (e *evidence) judgeSinks(at place, m *message) {
	v := e.verdict
	slices.Sort(m.rows)
	slices.Sort(m.records)
	v.deliveries += len(m.rows)
	v.letters += m.letters
	for sink, clients := range map[string][]string{"rows": m.rows, "records": m.records} {
		for i := 1; i < len(clients); i++ {
			if clients[i] == clients[i-1] {
				v.twice("%v: client %q is twice among the %s", at, clients[i], sink)
			}
		}
		if missing := without(m.rows, m.records); len(missing) > 0 && sink == "records" {
			v.lose("%v: %d of %d rows have no record, client %q for one", at, len(missing), len(m.rows), missing[0])
		}
		if missing := without(m.records, m.rows); len(missing) > 0 && sink == "rows" {
			v.lose("%v: %d of %d records have no row, client %q for one", at, len(missing), len(m.records), missing[0])
		}
	}
	if m.recipients != int64(len(m.rows)) {
		v.differ("%v: the manifest says %d recipients, the table has %d rows", at, m.recipients, len(m.rows))
	}
	want := 0
	if m.malformed {
		want = 1
	}
	switch {
	case m.letters < want:
		v.lose("%v: its dead letter is missing", at)
	case m.letters > want:
		v.twice("%v: %d dead letters, want %d", at, m.letters, want)
	}
}

// without returns what of a (sorted) is not in b (sorted).
func without(a, b []string) (missing []string) {
	for _, x := range a {
		if _, ok := slices.BinarySearch(b, x); !ok {
			missing = append(missing, x)
		}
	}
	return missing
}

// judgeOutcome wants the outcome that the message and the time of its join give. It reports whether
// the recipients are still to be judged.
func (e *evidence) judgeOutcome(at place, m *message) bool {
	want := "delivered"
	switch {
	case m.malformed:
		want = "malformed"
	case m.now < m.Start || m.now > m.End:
		want = "inactive"
	case len(m.rows) == 0:
		want = "no_subscribers"
	}
	if m.outcome != want {
		e.verdict.differ("%v (campaign %d): outcome %s, want %s (time %d, active %d to %d, %d rows)", at, m.number, m.outcome, want, m.now, m.Start, m.End, len(m.rows))
	}
	if m.outcome == "delivered" {
		e.verdict.delivered++
	}
	// The second of the join lies between publication and the transaction that wrote the plan.
	if m.now < m.published/1e6 || m.now > m.began/1e6 {
		e.verdict.stale("%v: joined at %d, but published at %d µs and handled at %d µs", at, m.now, m.published, m.began)
	}
	if want == "malformed" || want == "inactive" {
		if len(m.rows) > 0 {
			e.verdict.differ("%v: %s, but %d rows", at, want, len(m.rows))
		}
		return false
	}
	return true
}

// judgeState wants the recipients to be one admissible state of the table.
func (e *evidence) judgeState(at place, m *message, q *question) {
	if q.verdict.states == 1 {
		e.verdict.sharp++
	}
	if q.verdict.exact {
		return
	}
	e.verdict.stale("%v (campaign %d, restaurant %s, fence %X, published %d, handled %d): its %d recipients are none of %d admissible states; to the nearest %d are missing %.300q, %d too many %.300q",
		at, m.number, m.Restaurant, m.fence, q.published, q.handled, len(q.recipients), q.verdict.states,
		len(q.verdict.missing), q.verdict.missing, len(q.verdict.extra), q.verdict.extra)
}
