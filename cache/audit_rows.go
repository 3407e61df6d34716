package cache

// AuditRow is what an index takes a row id for at one moment.
type AuditRow struct {
	Known              bool // false: it has no row of this id
	Restaurant, Client string
	before             []applied
}

// Covers reports whether a snapshot sees all that was applied when the index was asked.
func (r *AuditRow) Covers(s Snapshot) bool { return allSeen(r.before, s) }

// Same reports whether two answers are of the same row.
func (r *AuditRow) Same(other *AuditRow) bool {
	return r.Known == other.Known && r.Restaurant == other.Restaurant && r.Client == other.Client
}

// Has reports whether the index takes a row id for this pair: a wrong one would make the removal of the
// row that of another. What was applied meanwhile makes a difference, too. Of an index that keeps no
// ids it says true.
func (a *Audit) Has(id int64, restaurant, client []byte) bool {
	if !a.st.keyed {
		return true
	}
	p, known := a.st.ids.get(id)
	return known && a.is(a.st.restaurants, p.restaurant, restaurant) && a.is(a.st.clients, p.client, client)
}

func (a *Audit) is(texts *dictionary, number uint32, text []byte) bool {
	a.row = texts.appendText(a.row[:0], number)
	return string(a.row) == string(text)
}

// Row asks what the index takes a row id for.
func (a *Audit) Row(id int64) AuditRow {
	var r AuditRow
	var p pair
	if p, r.Known = a.st.ids.get(id); r.Known {
		r.Restaurant = string(a.st.restaurants.appendText(nil, p.restaurant))
		r.Client = string(a.st.clients.appendText(nil, p.client))
	}
	r.before = a.index.unsettled.list()
	return r
}
