package soak

import (
	"maps"
	"slices"
	"sort"
	"sync"
)

// change is how often a client's subscription came (positive) or went in one transaction.
type change struct {
	client string
	rows   int
}

// version is what one transaction did to a restaurant. Times are Unix microseconds.
type version struct {
	sent    int64  // before COMMIT was sent: nobody can have seen it earlier
	acked   int64  // after it was known to be committed
	lsn     uint64 // of the log's end after that: the commit lies below
	changes []change
}

// history is every committed transaction of the source table, restaurant by restaurant, in the
// order of the commits. One goroutine commits; the oracle reads afterwards.
type history struct {
	mu          sync.Mutex
	restaurants map[string][]version
	commits     int
}

func newHistory() *history { return &history{restaurants: map[string][]version{}} }

// add enters one transaction.
func (h *history) add(sent, acked int64, lsn uint64, changes map[string][]change) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.commits++
	for restaurant, list := range changes {
		h.restaurants[restaurant] = append(h.restaurants[restaurant], version{sent, acked, lsn, list})
	}
}

func (h *history) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.commits
}

// question is one campaign that was joined: who got it, and what is known about when.
type question struct {
	published  int64  // before the campaign was sent to the brokers, Unix microseconds
	fence      uint64 // position that the index had reached, 0 if the manifest knows none
	handled    int64  // when the transaction began that wrote the plan, Unix microseconds
	recipients []string
	verdict    *answer
}

// answer says whether the recipients were one of the admissible states. missing and extra are the
// differences to the nearest of them.
type answer struct {
	states         int // admissible
	exact          bool
	missing, extra []string
}

// span returns the admissible versions: the states after versions[lo-1] up to versions[hi-1], 0
// being the empty table.
func (q *question) span(versions []version) (lo, hi int) {
	// Commits follow each other, so both times ascend. Positions may step back when a crash takes
	// what was not flushed; a version's own bound still holds, so the last that the fence covers counts.
	lo = sort.Search(len(versions), func(i int) bool { return versions[i].acked > q.published })
	if q.fence != 0 {
		for i := lo; i < len(versions) && versions[i].sent <= q.handled; i++ {
			if versions[i].lsn <= q.fence {
				lo = i + 1
			}
		}
	}
	hi = sort.Search(len(versions), func(i int) bool { return versions[i].sent > q.handled })
	return lo, max(lo, hi)
}

// judge answers all questions about one restaurant. It walks through the versions once.
func (h *history) judge(restaurant string, questions []*question) {
	versions := h.restaurants[restaurant]
	slices.SortFunc(questions, func(a, b *question) int {
		la, _ := a.span(versions)
		lb, _ := b.span(versions)
		return la - lb
	})
	state, at := state{}, 0
	for _, q := range questions {
		lo, hi := q.span(versions)
		for ; at < lo; at++ {
			state.apply(versions[at])
		}
		q.verdict = compare(state, versions[lo:hi], q.recipients)
	}
}

// state is how many rows each client of one restaurant has.
type state map[string]int

func (s state) apply(v version) {
	for _, c := range v.changes {
		if s[c.client] += c.rows; s[c.client] == 0 {
			delete(s, c.client)
		}
	}
}

// compare looks for a state equal to the recipients: base, or base after some of the versions.
func compare(base state, versions []version, recipients []string) *answer {
	a := &answer{states: 1 + len(versions)}
	got := map[string]bool{}
	for _, r := range recipients {
		got[r] = true
	}
	s := maps.Clone(base)
	nearest := -1
	for i := range a.states {
		if i > 0 {
			s.apply(versions[i-1])
		}
		missing, extra := difference(s, got)
		if n := len(missing) + len(extra); nearest < 0 || n < nearest {
			nearest, a.missing, a.extra = n, missing, extra
		}
		if nearest == 0 {
			a.exact = true
			return a
		}
	}
	return a
}

func difference(s state, got map[string]bool) (missing, extra []string) {
	for client := range s {
		if !got[client] {
			missing = append(missing, client)
		}
	}
	for client := range got {
		if s[client] == 0 {
			extra = append(extra, client)
		}
	}
	return missing, extra
}
