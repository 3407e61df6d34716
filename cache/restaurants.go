package cache

import "iter"

// Restaurants yields every restaurant that has a row, with the number of its rows, in no
// order: for an audit. Each is read under its lock for a moment; what changes meanwhile may
// show or not. It yields nothing while no load is finished. Safe for concurrent use.
func (x *Index) Restaurants() iter.Seq2[string, int64] {
	return func(yield func(string, int64) bool) {
		st := x.serving.Load()
		if st == nil {
			return
		}
		var text []byte
		for n := range st.dir.len() {
			e := st.dir.entry(n)
			e.mu.Lock()
			rows := e.rows
			e.mu.Unlock()
			if rows == 0 {
				continue
			}
			text = st.restaurants.appendText(text[:0], n)
			if !yield(string(text), int64(rows)) {
				return
			}
		}
	}
}
