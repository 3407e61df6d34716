package cdc

// pair is a subscription.
type pair struct{ restaurant, client int }

// book is what a table of subscriptions must hold: a plain map, and how often each pair is in
// it. What was done can be undone, as savepoints and rolled back transactions are.
type book struct {
	rows    map[int64]pair
	held    map[pair]int
	journal []entry
}

type entry struct {
	id    int64
	p     pair
	added bool
}

func newBook() *book { return &book{rows: map[int64]pair{}, held: map[pair]int{}} }

func (b *book) add(id int64, p pair) {
	b.rows[id] = p
	b.held[p]++
	b.journal = append(b.journal, entry{id, p, true})
}

func (b *book) remove(id int64) {
	p := b.rows[id]
	delete(b.rows, id)
	if b.held[p]--; b.held[p] == 0 {
		delete(b.held, p)
	}
	b.journal = append(b.journal, entry{id, p, false})
}

// undo goes back to when the journal was so long.
func (b *book) undo(to int) {
	for i := len(b.journal) - 1; i >= to; i-- {
		if e := b.journal[i]; e.added {
			b.remove(e.id)
		} else {
			b.add(e.id, e.p)
		}
	}
	b.journal = b.journal[:to]
}

// any gives a row, by chance since maps are walked so; id 0 when there is none.
func (b *book) any() (int64, pair) {
	for id, p := range b.rows {
		return id, p
	}
	return 0, pair{}
}
