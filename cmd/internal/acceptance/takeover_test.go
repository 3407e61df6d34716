package acceptance

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// member starts one process of a group of several: each has a slot of its own.
func (w *world) member(n int) *process {
	w.t.Helper()
	own := *w
	slot := fmt.Sprintf("%.60s_%d", w.source.Slot, n)
	own.env = append(slices.Clone(w.env), "TIFFIN_SOURCE_SLOT="+slot)
	return own.start("run")
}

// handled waits until the group has committed all that the input topic holds.
func (w *world) handled() {
	w.t.Helper()
	adm := kadm.NewClient(w.cl)
	ends, err := adm.ListEndOffsets(w.t.Context(), w.topic.in)
	if err != nil {
		w.t.Fatal(err)
	}
	w.eventually("the group at the end of its input", func() bool {
		at, err := adm.FetchOffsets(kadm.RequireStable(w.t.Context()), w.group())
		if err != nil {
			return false
		}
		behind := false
		ends.Each(func(end kadm.ListedOffset) {
			o, ok := at.Lookup(end.Topic, end.Partition)
			behind = behind || end.Offset > 0 && (!ok || o.At < end.Offset)
		})
		return !behind
	})
}

func (w *world) group() string {
	for _, e := range w.env {
		if group, is := strings.CutPrefix(e, "TIFFIN_KAFKA_GROUP="); is {
			return group
		}
	}
	return ""
}

// A process is stopped in a backlog (SIGSTOP) until another has taken its partitions over and
// handled all of it. When it goes on it writes nothing of what it had in hand, says that it
// lost its place, and joins again.
func TestStoppedProcessWritesNothingWhenItGoesOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 4)
	w.env = append(w.env, "TIFFIN_DELIVERY_MAX_TRANSACTION_RECORDS=500", "TIFFIN_KAFKA_SESSION_TIMEOUT=3s")
	random := rand.New(rand.NewPCG(5, 6))
	of := w.subscribe(20_000, 60, random)
	members := []*process{w.member(0), w.member(1)}
	w.ready(members[0])
	w.ready(members[1])
	var all []*campaign
	for round, p := range members {
		messages := mixed(of, 600, random)
		before := w.count()
		w.publish(messages...)
		all = append(all, messages...)
		w.eventually("progress", func() bool { return w.count() > before+2000 })
		p.signal(t, syscall.SIGSTOP)
		noted := len(p.log.String())
		w.handled() // by the other
		p.signal(t, syscall.SIGCONT)
		w.eventually("the process noticing", func() bool { return strings.Contains(p.log.String()[noted:], "delivery interrupted") })
		w.ready(p)
		t.Logf("round %d: %s", round, firstLine(p.log.String()[noted:], "delivery interrupted"))
	}
	last := mixed(of, 100, random)
	w.publish(last...)
	all = append(all, last...)
	w.handled()
	for _, p := range members {
		w.stop(p)
	}
	w.wantBoth(all)
	if n := len(w.read(w.topic.dead)); n != malformedOf(all) {
		t.Errorf("%d dead letters: want %d", n, malformedOf(all))
	}
}

func (p *process) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

func firstLine(text, phrase string) string {
	for line := range strings.Lines(text) {
		if strings.Contains(line, phrase) {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

// Three processes are restarted one after the other while campaigns come in: all of them go
// on being delivered, once, and none waits for a dead member's time-out.
func TestRollingRestartUnderLoad(t *testing.T) {
	t.Parallel()
	const partitions, longest = 6, 30 * time.Second // below the session timeout of 45 s
	w := newWorld(t, partitions)
	of := w.subscribe(2_000, 20, rand.New(rand.NewPCG(7, 8)))
	var members []*process
	for n := range 3 {
		members = append(members, w.member(n))
	}
	for _, p := range members {
		w.ready(p)
	}
	load := w.load(of, partitions)
	for n, p := range members {
		w.eventually("deliveries", func() bool { return w.count() > 0 })
		w.stop(p)
		members[n] = w.member(n)
		w.ready(members[n])
	}
	messages := load()
	w.handled()
	for _, p := range members {
		w.stop(p)
	}
	w.wantBoth(messages)
	published := map[string]time.Time{}
	for _, m := range messages {
		published[fmt.Sprintf("%s/%d/%d", w.topic.in, m.partition, m.offset)] = m.at
	}
	var waited time.Duration
	for _, r := range w.read(w.topic.out) {
		waited = max(waited, r.Timestamp.Sub(published[string(r.Headers[0].Value)]))
	}
	t.Logf("%d campaigns; the longest waited %s", len(messages), waited.Round(time.Millisecond))
	if waited > longest {
		t.Errorf("a campaign waited %s: want %s at most", waited, longest)
	}
}

// load publishes a campaign every 20 ms until it is told to stop, and then returns them all.
func (w *world) load(of map[string][]string, partitions int32) (stop func() []*campaign) {
	var restaurants []string
	for r := range of {
		restaurants = append(restaurants, r)
	}
	slices.Sort(restaurants)
	done, result := make(chan struct{}), make(chan []*campaign, 1)
	go func() {
		var all []*campaign
		defer func() { result <- all }()
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-done:
				return
			}
			now := time.Now()
			restaurant := restaurants[len(all)%len(restaurants)]
			m := message(restaurant, fmt.Sprint(len(all)), "x", now.Unix()-1000, now.Unix()+100_000, of[restaurant])
			m.partition, m.at = int32(len(all))%partitions, now
			record := &kgo.Record{Partition: m.partition, Value: m.value}
			if err := w.cl.ProduceSync(w.t.Context(), record).FirstErr(); err != nil {
				w.t.Errorf("publish: %v", err)
				return
			}
			m.offset = record.Offset
			all = append(all, m)
		}
	}()
	return func() []*campaign { close(done); return <-result }
}
