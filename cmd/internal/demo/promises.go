package demo

import "sync"

// promises are what freshness means, checked one by one: a client that subscribed before a campaign
// was published gets it, one that was removed before does not. Safe for concurrent use.
type promises struct {
	mu     sync.Mutex
	open   map[string]promise // campaign id -> promise
	kept   []promise          // newcomers who were served and have not left yet, oldest first
	counts tally
}

// promise is about one client of one campaign.
type promise struct {
	client, restaurant string
	served             bool // it must be served; else it must not
}

// tally is how the promises were kept so far.
type tally struct {
	subscribed int // clients that subscribed just before a campaign
	served     int // of these, served
	missed     int // of these, not served although the campaign's other clients were
	removed    int // clients removed just before a campaign
	stale      int // of these, served all the same
}

func newPromises() *promises { return &promises{open: map[string]promise{}} }

// make is called before the campaign is published.
func (p *promises) make(campaign string, about promise) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open[campaign] = about
	if about.served {
		p.counts.subscribed++
	} else {
		p.counts.removed++
	}
}

// withdraw is called when the campaign could not be published.
func (p *promises) withdraw(campaign string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open[campaign].served {
		p.counts.subscribed--
	} else {
		p.counts.removed--
	}
	delete(p.open, campaign)
}

// delivered is called for every record of the output topic. A promise that a client is not served
// stays open, as its record could still come.
func (p *promises) delivered(campaign, client string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	about, ok := p.open[campaign]
	if !ok || about.client != client {
		return
	}
	if about.served {
		p.counts.served++
		p.kept = append(p.kept, about)
	} else {
		p.counts.stale++
	}
	delete(p.open, campaign)
}

// leaver returns a client that may leave: the campaign that was to reach it has done so. To leave
// before would be a race with the daemon's reading of that campaign, which may go either way.
func (p *promises) leaver() (about promise, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.kept) == 0 {
		return promise{}, false
	}
	about = p.kept[0]
	p.kept = p.kept[1:]
	about.served = false
	return about, true
}

// tally is final once all records are read: who was not served by then was missed.
func (p *promises) tally() tally {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.counts
	for _, about := range p.open {
		if about.served {
			t.missed++
		}
	}
	return t
}
