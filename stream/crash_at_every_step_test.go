package stream

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
)

// How an effect fails.
const (
	diesBefore = "dies before" // the process ends; the effect did not happen
	diesAfter  = "dies after"  // the process ends; the effect happened
	unknown    = "unknown"     // the effect happened, its answer is lost, the process lives on
	stops      = "stops"       // the process is asked to stop before the effect, and does
)

// The process dies before and after every effect of the delivery path, every effect's answer
// is lost, and the process is asked to stop there, in turn: afterwards both sinks hold the
// same, exactly once. Three campaigns are on lanes, and a fourth waits for one.
func TestCrashAtEveryStepLeavesBothSinksEqual(t *testing.T) {
	t.Parallel()
	crashAtEvery(t, crashKind{}, nil, "claim", "begin", "deliver", "deliver large", "giveUp",
		"Produce", "EndTxn", "TxnOffsetCommit", "OffsetCommit", "InitProducerID")
}

// Brokers without transactions of version 2 (KIP-890) are told of every partition, and of the
// group, before it is in a transaction: two requests more.
func TestCrashOnOlderBrokersLeavesBothSinksEqual(t *testing.T) {
	t.Parallel()
	older := crashKind{older: true, only: []string{"AddPartitionsToTxn", "AddOffsetsToTxn", "TxnOffsetCommit", "EndTxn"}}
	crashAtEvery(t, older, nil, older.only...)
}

// On brokers that know no transactions, at least once: after a crash at any effect nothing is missing
// from either sink, and what comes again is the same to the byte.
func TestCrashAtLeastOnceLosesNothing(t *testing.T) {
	t.Parallel()
	crashAtEvery(t, crashKind{plain: true}, nil, "claim", "begin", "deliver", "deliver large", "giveUp", "Produce", "OffsetCommit")
}

// The recovery of a crash crashes too, at every effect of its own, in the same process and in
// another, which first ends what the dead one left.
func TestCrashInRecoveryLeavesBothSinksEqual(t *testing.T) {
	t.Parallel()
	recovering := []string{"claim", "InitProducerID", "TxnOffsetCommit", "EndTxn"}
	for _, c := range []struct {
		first crashPoint
		kind  crashKind
		must  []string
	}{
		{crashPoint{"deliver", 1, diesAfter}, crashKind{}, nil},
		{crashPoint{"deliver large", 1, diesAfter}, crashKind{only: recovering}, nil},
		{crashPoint{"EndTxn", 4, diesAfter}, crashKind{only: recovering}, nil},
		{crashPoint{"EndTxn", 2, diesBefore}, crashKind{successors: true, only: append(recovering, "endSessions")}, []string{"endSessions"}},
	} {
		t.Run(fmt.Sprintf("after %v", c.first), func(t *testing.T) {
			t.Parallel()
			crashAtEvery(t, c.kind, []crashPoint{c.first}, append(c.must, recovering...)...)
		})
	}
}

// crashAtEvery crashes at each effect of a life, in each way: of the first one, or of that which
// follows the crashes before. What must be among the effects is named.
func crashAtEvery(t *testing.T, kind crashKind, before []crashPoint, must ...string) {
	t.Helper()
	effects := kind.effects(t, before)
	points := kind.points(effects)
	taken := kind.take(t, before, points)
	t.Logf("%s: %d crash points, %d taken, all of them reached; effects: %v", t.Name(), len(points), taken, effects)
	for _, effect := range must {
		if effects[effect] == 0 {
			t.Errorf("%s was never an effect: the test does not see it", effect)
		}
	}
}

// points are each occurrence of each effect, in each way.
func (k crashKind) points(effects map[string]int) (points []crashPoint) {
	for _, effect := range slices.Sorted(maps.Keys(effects)) {
		for n := 1; n <= effects[effect]; n++ {
			for _, how := range k.ways() {
				points = append(points, crashPoint{effect, n, how})
			}
		}
	}
	return points
}

// take crashes at each of the points, after the crashes before; with the race detector at a
// sample of them. A point that does not come is a failure.
func (k crashKind) take(t *testing.T, before, points []crashPoint) (taken int) {
	t.Helper()
	for i, p := range points {
		if raceDetector && i%8 != 7 {
			continue
		}
		taken++
		if !k.reaches(t, append(slices.Clone(before), p)) {
			t.Errorf("%v: never reached", p)
		}
		if t.Failed() {
			t.FailNow() // the others would say the same
		}
	}
	return taken
}

// effects says how often each effect comes in a life that follows these crashes. Points are named by
// effect and occurrence, and that is not the same in every run: the clock is fake, but which of several
// goroutines that can go on goes first is the scheduler's choice, and with it what a poll holds,
// how many records share a request, and whether two small batches become one. What came in each
// of several runs is what must be reached.
func (k crashKind) effects(t *testing.T, before []crashPoint) map[string]int {
	t.Helper()
	var least map[string]int
	for runs := 0; runs < 5; {
		lives := crashRun(t, k, before...)
		if t.Failed() {
			t.FailNow()
		}
		life := len(before) + k.undisturbed()
		if len(lives) <= life {
			continue // one of the crashes before was not reached
		}
		runs++
		if least == nil {
			least = maps.Clone(lives[life])
		}
		for effect := range least {
			least[effect] = min(least[effect], lives[life][effect])
		}
	}
	maps.DeleteFunc(least, func(effect string, n int) bool { return n == 0 || !k.asks(effect) })
	return least
}

// asks reports whether to crash at an effect; with a real database only at its statements.
func (k crashKind) asks(effect string) bool {
	if k.database != nil {
		return !slices.Contains(slices.Collect(maps.Values(kafkaEffects)), effect)
	}
	return k.only == nil || slices.Contains(k.only, effect)
}

// reaches crashes at the points, each in a life of its own. In a run in which the goroutines are
// scheduled so that a point does not come (see effects) nothing is proved of it: another is made,
// up to mostRuns: a point that came in each of several runs, and then in none of so many, is one that
// cannot come any more.
func (k crashKind) reaches(t *testing.T, points []crashPoint) bool {
	t.Helper()
	for range mostRuns {
		lives := crashRun(t, k, points...)
		if t.Failed() {
			return true // it has been told
		}
		reached := 0
		for i, p := range points {
			if life := i + k.undisturbed(); life < len(lives) && lives[life][p.effect] >= p.n {
				reached++
			}
		}
		if reached == len(points) {
			return true
		}
	}
	return false
}

const mostRuns = 20

// crashPoint is where one life of the process ends, or loses an answer.
type crashPoint struct {
	effect string
	n      int
	how    string
}

func (p crashPoint) String() string { return fmt.Sprintf("%s %s number %d", p.how, p.effect, p.n) }

// crashKind is what surrounds the crashes.
type crashKind struct {
	older      bool // brokers without transactions of version 2
	plain      bool // brokers without any, and delivery at least once
	successors bool // each life is another process, to which the one before is dead
	// only, if any, are the effects to crash at.
	only []string
	// between, if any, happens after a first life that nothing disturbs.
	between func(*crashWorld, *testing.T)
	config  func(*Config) // of the lives after that
	// database, if any, is a real one.
	database *crashDatabase
}

// ways are how each effect fails. A real database is asked what is the statements' matter: to stop is not.
func (k crashKind) ways() []string {
	if k.database != nil {
		return []string{diesBefore, diesAfter, unknown}
	}
	return []string{diesBefore, diesAfter, unknown, stops}
}

func (k crashKind) undisturbed() int {
	if k.between != nil {
		return 1
	}
	return 0
}

// crashRun handles a small workload of every kind, failing one effect in each life of the
// process, and compares the sinks when one has come to its end. It returns how often each
// effect came in each life.
func crashRun(t *testing.T, kind crashKind, points ...crashPoint) (lives []map[string]int) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newCrashWorld(t, kind)
		defer w.close()
		if kind.older {
			w.downgrade(t)
		}
		if kind.database != nil {
			w.sink = kind.database.begin(t, w.fault)
		}
		left := points
		if kind.between != nil {
			left = append([]crashPoint{{}}, points...)
		}
		for life := 0; life == 0 || life == kind.undisturbed() || w.fault.over(); life++ {
			if life > 0 && life == kind.undisturbed() {
				kind.between(w, t)
			}
			w.life = life
			w.fault.revive(left)
			w.subscribe(t, life)
			left = left[min(1, len(left)):]
			w.run(t)
			lives = append(lives, w.fault.counts())
			w.sink.whole(t)
		}
		w.judge(t, points)
	})
	return lives
}

func (w *crashWorld) judge(t *testing.T, points []crashPoint) {
	t.Helper()
	rows, records := w.sink.lines(t), w.records(t)
	letters, comesAgain := w.count(t, "dead"), w.kind.plain && len(points) > 0
	if comesAgain {
		records, letters = slices.Compact(records), min(letters, w.letters) // what came again was the same
	}
	all := slices.Concat(rows, w.onlyRecords)
	slices.Sort(all)
	if len(all) != w.deliveries || !slices.Equal(all, records) {
		t.Errorf("%v: %d rows, %d records, want %d of each and the same\nonly rows: %.300q\nonly records: %.300q", points,
			len(all), len(records), w.deliveries, minus(all, records), minus(records, all))
	}
	if at, ledger := w.offsets(t), w.sink.next(t); !maps.Equal(at, ledger) {
		t.Errorf("%v: the group's offsets are %v, the ledger's %v", points, at, ledger)
	}
	if len(points) == 0 && w.interrupted > 0 {
		t.Errorf("undisturbed, the delivery was interrupted %d times", w.interrupted)
	}
	if letters != w.letters {
		t.Errorf("%v: %d dead letters, want %d", points, letters, w.letters)
	}
}

func minus(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(s string) bool { _, in := slices.BinarySearch(b, s); return in })
}
