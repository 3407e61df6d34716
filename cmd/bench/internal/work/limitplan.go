package work

import (
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/tiffin/cmd/bench/internal/testbed"
)

// span is campaigns from up to to, and of a campaign that is larger than a batch the recipients
// first up to last.
type span struct{ from, to, first, last int }

// limitPlan is what the limit knows before the clock runs: who gets what, and everything that is
// the same for all deliveries of a campaign, encoded.
type limitPlan struct {
	trigger int64
	heads   [][]byte // of the records' values, before the client id
	tails   [][]byte
	headers []kgo.RecordHeader // one of each campaign: its trigger, as tiffin writes it
	rows    [][]byte           // of a campaign that is copied: its row in COPY's binary format, before the client id
	shared  [][][]byte         // of one that is inserted: its columns in binary format
	clients []string           // of all campaigns, one after the other
	starts  []int              // of each campaign's clients, and the end
	batches []span

	manifest [][]byte // of each campaign its row of the manifest, encoded; nil: there is none
}

// planLimit merges campaigns into batches, unless each is to go alone.
func planLimit(w *Workload, lane *testbed.Lane, campaigns int, alone bool) (*limitPlan, error) {
	p := &limitPlan{trigger: time.Now().Unix(), starts: []int{0}}
	for n := range campaigns {
		head, tail, err := w.envelope(n, p.trigger)
		if err != nil {
			return nil, err
		}
		p.heads, p.tails = append(p.heads, head), append(p.tails, tail)
		trigger := fmt.Sprintf("%s/%d/%d", lane.Input, n%w.Partitions, n/w.Partitions)
		p.headers = append(p.headers, kgo.RecordHeader{Key: "trigger", Value: []byte(trigger)})
		p.clients = append(p.clients, w.Recipients(n)...)
		p.starts = append(p.starts, len(p.clients))
	}
	most := min(limitBatch, (len(p.clients)+leastBatches-1)/leastBatches)
	for from := 0; from < campaigns; {
		if alone {
			p.batches = append(p.batches, span{from, from + 1, 0, p.fanout(from)})
			from++
			continue
		}
		from = p.addBatch(from, campaigns, most)
	}
	p.encodeRows(w)
	return p, nil
}

// encodeRows encodes each campaign's columns as its batch will want them.
func (p *limitPlan) encodeRows(w *Workload) {
	p.rows, p.shared = make([][]byte, len(p.heads)), make([][][]byte, len(p.heads))
	for _, b := range p.batches {
		copied := p.copied(b)
		for n := b.from; n < b.to; n++ {
			if columns := sharedColumns(w.Campaign(n)); copied {
				p.rows[n] = copyRow(columns)
			} else {
				p.shared[n] = columns
			}
		}
	}
}

// limitCopyBelow is the average fan-out of a batch below which one COPY of the batch gives more than
// a statement a campaign. A batch of one campaign never pays for COPY's round trips.
const limitCopyBelow = 100

func (p *limitPlan) copied(b span) bool {
	campaigns := b.to - b.from
	return campaigns > 1 && p.starts[b.to]-p.starts[b.from] < campaigns*limitCopyBelow
}

// addBatch takes campaigns until they are a batch, or cuts one that is more, and returns the next.
func (p *limitPlan) addBatch(from, campaigns, most int) int {
	if fanout := p.fanout(from); fanout > most {
		for first := 0; first < fanout; first += most {
			p.batches = append(p.batches, span{from, from + 1, first, min(first+most, fanout)})
		}
		return from + 1
	}
	to, rows := from, 0
	for to < campaigns && (to == from || rows+p.fanout(to) <= most) {
		rows += p.fanout(to)
		to++
	}
	p.batches = append(p.batches, span{from, to, 0, most})
	return to
}

func (p *limitPlan) fanout(n int) int { return p.starts[n+1] - p.starts[n] }

// recipients are the clients of campaign n that belong to a batch.
func (p *limitPlan) recipients(n int, b span) []string {
	list := p.clients[p.starts[n]:p.starts[n+1]]
	return list[min(b.first, len(list)):min(b.last, len(list))]
}

// size is a batch's number of deliveries, and of the bytes of their values.
func (p *limitPlan) size(b span) (deliveries, bytes int) {
	for n := b.from; n < b.to; n++ {
		count := len(p.recipients(n, b))
		deliveries += count
		bytes += count * (len(p.heads[n]) + len(p.tails[n]))
		for _, client := range p.recipients(n, b) {
			bytes += len(client)
		}
	}
	return deliveries, bytes
}
