package stream

import "testing"

// A plan counts under the claim that it was made under. Of two messages the first is dropped, because its batch goes
// out while the partition is another process's; when that has given it back, unhandled, the second is not
// taken for what comes next.
func TestPlansOfAnEarlierClaimAreDropped(t *testing.T) {
	t.Parallel()
	const partition = 3
	c := newClaims()
	earlier := &claim{partition: partition, epoch: 1, planned: 100}
	c.put(earlier)
	admitted := func(triggers ...*trigger) *batch {
		b := newBatch()
		for _, message := range triggers {
			b.add(message)
		}
		c.admit(b)
		return b
	}
	c.lose([]int32{partition})
	if b := admitted(&trigger{partition: partition, offset: 100, claim: earlier}); len(b.triggers) != 0 {
		t.Error("a message of a lost partition is delivered")
	}
	again := &claim{partition: partition, epoch: 3, planned: 100}
	c.put(again)
	b := admitted(
		&trigger{partition: partition, offset: 101, claim: earlier},
		&trigger{partition: partition, offset: 100, claim: again},
	)
	if len(b.triggers) != 1 || b.triggers[0].offset != 100 || len(b.advances) != 1 || b.advances[0].next != 101 {
		t.Errorf("%d messages move the partition %+v: want one, from 100 to 101", len(b.triggers), b.advances)
	}
}

// A batch that has lost its bulky campaign has nothing that the brokers must have taken before Postgres commits:
// the writer would wait for records that there are none of.
func TestWhatIsDroppedIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	c := newClaims()
	kept, lost := &claim{partition: 0}, &claim{partition: 1}
	c.put(kept)
	b := newBatch()
	b.add(&trigger{partition: 1, claim: lost, outcome: Delivered, bulky: true})
	b.add(&trigger{partition: 0, claim: kept, outcome: Inactive})
	c.admit(b)
	if len(b.triggers) != 1 || b.bulky {
		t.Errorf("%d messages are left, bulky: %t", len(b.triggers), b.bulky)
	}
}
