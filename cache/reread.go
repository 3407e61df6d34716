package cache

// Reread has what was read through so far read once more when it is asked for, and what is being
// read now when that has ended. It comes after the connection to the source was lost and before
// anything else is applied: a server that crashed takes back what was committed but not flushed,
// which a reading may hold, and gives out the xids again, which the reading's snapshot then
// sees. What was applied, and what was loaded, it must have flushed. Writer goroutine.
func (x *Index) Reread() {
	st := x.serving.Load()
	if st == nil {
		return
	}
	for n := range st.dir.len() {
		x.doubt(st.dir.entry(n), n)
	}
}

func (x *Index) doubt(e *entry, n uint32) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ticket != nil {
		e.ticket.again = true
	}
	if e.filled {
		e.disown()
		x.shelf.drop(n)
	}
}
