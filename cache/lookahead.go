package cache

// lookahead finds the postings of the next restaurants that a transaction changes, many at once:
// entry, posting and clients lie all over the memory, and reading one of them after the other
// takes longer than changing them. The writer's own.
type lookahead struct {
	n, next     int
	restaurants [aheadMax]uint32
	entries     [aheadMax]*entry
	postings    [aheadMax]*posting // nil where there was none
	touched     uint32             // so that the reads are not left out
}

const (
	aheadMax = 64
	// aheadLeast changes are worth it.
	aheadLeast = 8
	// aheadClients of a posting are read ahead, 16 to a cache line of 64 bytes: 1 KiB.
	aheadClients   = 256
	clientsPerLine = 16
)

// look takes the restaurants of the next changes.
func (a *lookahead) look(dir *directory, changes []uint64) {
	a.n, a.next = 0, 0
	if len(changes) < aheadLeast {
		return
	}
	for _, ch := range changes {
		r := restaurant(ch)
		if a.n > 0 && a.restaurants[a.n-1] == r {
			continue
		}
		if a.n == aheadMax {
			break
		}
		a.restaurants[a.n], a.entries[a.n] = r, dir.entry(r)
		a.n++
	}
	for _, e := range a.entries[:a.n] {
		a.touched += e.rows // which only the writer changes
	}
	for i, e := range a.entries[:a.n] {
		e.mu.Lock()
		a.postings[i] = e.near.Value()
		e.mu.Unlock()
	}
	// The clients of a posting, too, only the writer changes.
	for _, p := range a.postings[:a.n] {
		if p != nil {
			a.touched += uint32(len(p.small))
		}
	}
	for _, p := range a.postings[:a.n] {
		if p != nil {
			a.touched += uint32(p.cost) // the second of its cache lines
			for at := 0; at < min(len(p.small), aheadClients); at += clientsPerLine {
				a.touched += p.small[at]
			}
		}
	}
}

// posting returns what was found for the next restaurant if it is r. It may have been replaced
// since: then its generation is not the entry's.
func (a *lookahead) posting(r uint32) *posting {
	if a.next == a.n || a.restaurants[a.next] != r {
		return nil
	}
	p := a.postings[a.next]
	a.postings[a.next] = nil
	a.next++
	return p
}

// done says that the next look is due.
func (a *lookahead) done() bool { return a.next == a.n }

// forget lets go of what was not asked for.
func (a *lookahead) forget() {
	clear(a.postings[a.next:a.n])
	a.n, a.next = 0, 0
}
