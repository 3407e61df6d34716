package stream

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"io"
	"os"
	"sync"
)

// tallyKey is a campaign message, or its dead letter.
type tallyKey struct {
	partition int32
	letter    bool
	offset    int64
}

// sums are what both sides say of a message. All of it adds up: in whatever order and pieces
// the sides come, and however often what is balanced has been forgotten in between, equal sides
// end at nothing. a and b are the sums of two independent 64-bit hashes of each delivery (key
// and value), the row's added, the record's taken away: 128 bits that do not depend on order.
type sums struct {
	rows, records int64
	want          int64 // recipients that the manifest counts
	a, b          uint64
	// alien rows are not of the manifest's restaurant, campaign or time; overlaps are id ranges
	// that another message claims too.
	alien, overlaps int64
}

// balanced reports whether the sides agree so far.
func (s *sums) balanced() bool {
	return s.rows == s.records && s.rows == s.want && s.a == 0 && s.b == 0 && s.alien == 0 && s.overlaps == 0
}

func (s *sums) add(o *sums) {
	s.rows += o.rows
	s.records += o.records
	s.want += o.want
	s.a += o.a
	s.b += o.b
	s.alien += o.alien
	s.overlaps += o.overlaps
}

// tally gathers the sums of any number of messages in bounded memory: balanced ones are
// forgotten, and when too many stay open they go to temporary files. Safe for concurrent use.
type tally struct {
	limit int // messages in memory

	mu    sync.Mutex
	open  map[tallyKey]sums
	spill *spill
}

func newTally(limit int) *tally { return &tally{limit: limit, open: map[tallyKey]sums{}} }

// add takes a batch over; the map is empty afterwards.
func (t *tally) add(batch map[tallyKey]sums) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for k, s := range batch {
		had := t.open[k]
		had.add(&s)
		t.open[k] = had
	}
	clear(batch)
	if len(t.open) <= t.limit {
		return nil
	}
	t.forget()
	if len(t.open) <= t.limit/2 {
		return nil
	}
	return t.flush()
}

func (t *tally) forget() {
	for k, s := range t.open {
		if s.balanced() {
			delete(t.open, k)
		}
	}
}

func (t *tally) flush() error {
	if t.spill == nil {
		var err error
		if t.spill, err = newSpill(); err != nil {
			return err
		}
	}
	for k, s := range t.open {
		if err := t.spill.write(k, &s); err != nil {
			return err
		}
	}
	clear(t.open)
	return nil
}

// unbalanced calls each for the messages whose sides differ, and empties the tally.
func (t *tally) unbalanced(each func(tallyKey, sums) error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forget()
	tell := func() error {
		for k, s := range t.open {
			if s.balanced() {
				continue
			}
			if err := each(k, s); err != nil {
				return err
			}
		}
		clear(t.open)
		return nil
	}
	if t.spill == nil {
		return tell()
	}
	if err := t.flush(); err != nil {
		return err
	}
	for n := range t.spill.buckets {
		if err := t.spill.read(n, func(k tallyKey, s *sums) {
			had := t.open[k]
			had.add(s)
			t.open[k] = had
		}); err != nil {
			return err
		}
		if err := tell(); err != nil {
			return err
		}
	}
	return nil
}

func (t *tally) close() {
	if t.spill != nil {
		t.spill.close()
	}
}

// spillBuckets divides what is spilled, so that one bucket of 100 million messages has the
// size of what is kept in memory.
const spillBuckets = 256

// spill is the temporary files of a tally, by a hash of the message.
type spill struct {
	seed    maphash.Seed
	buckets [spillBuckets]*os.File
	writers [spillBuckets]*bufio.Writer
	size    [spillBuckets]int64
}

func newSpill() (*spill, error) {
	s := &spill{seed: maphash.MakeSeed()}
	for n := range s.buckets {
		f, err := os.CreateTemp("", "tiffin-verify-*")
		if err == nil {
			err = os.Remove(f.Name()) // gone with the process, however it ends
		}
		if err != nil {
			s.close()
			return nil, temporaryFault(err)
		}
		s.buckets[n], s.writers[n] = f, bufio.NewWriter(f)
	}
	return s, nil
}

func temporaryFault(err error) error {
	return fmt.Errorf("temporary file for the comparison: %w; %s", err, cmp.Or(filesRemedy(err), "set TMPDIR to where there is room"))
}

// spillEntry is the size of an entry: a key and the sums, little-endian.
const spillEntry = 16 + 7*8

func (s *spill) write(k tallyKey, v *sums) error {
	var e [spillEntry]byte
	binary.LittleEndian.PutUint32(e[0:], uint32(k.partition))
	if k.letter {
		e[4] = 1
	}
	binary.LittleEndian.PutUint64(e[8:], uint64(k.offset))
	for i, n := range []uint64{uint64(v.rows), uint64(v.records), uint64(v.want), v.a, v.b, uint64(v.alien), uint64(v.overlaps)} {
		binary.LittleEndian.PutUint64(e[16+8*i:], n)
	}
	n := maphash.Comparable(s.seed, k) % spillBuckets
	s.size[n]++
	if _, err := s.writers[n].Write(e[:]); err != nil {
		return temporaryFault(err)
	}
	return nil
}

func (s *spill) read(n int, each func(tallyKey, *sums)) error {
	fail := func(err error) error { return fmt.Errorf("read a temporary file of the comparison: %w", err) }
	if err := s.writers[n].Flush(); err != nil {
		return fail(err)
	}
	if _, err := s.buckets[n].Seek(0, io.SeekStart); err != nil {
		return fail(err)
	}
	from := bufio.NewReader(s.buckets[n])
	var e [spillEntry]byte
	for range s.size[n] {
		if _, err := io.ReadFull(from, e[:]); err != nil {
			return fail(err)
		}
		number := func(i int) uint64 { return binary.LittleEndian.Uint64(e[16+8*i:]) }
		each(tallyKey{int32(binary.LittleEndian.Uint32(e[0:])), e[4] == 1, int64(binary.LittleEndian.Uint64(e[8:]))}, &sums{
			rows: int64(number(0)), records: int64(number(1)), want: int64(number(2)),
			a: number(3), b: number(4), alien: int64(number(5)), overlaps: int64(number(6)),
		})
	}
	return nil
}

func (s *spill) close() {
	for _, f := range s.buckets {
		if f != nil {
			_ = f.Close() // it is removed already
		}
	}
}

// fingerprint hashes deliveries.
type fingerprint struct {
	one, two maphash.Seed
	buf      []byte
}

func newFingerprint(one, two maphash.Seed) *fingerprint { return &fingerprint{one: one, two: two} }

// of hashes a key and a value; a null key is not an empty one.
func (f *fingerprint) of(key, value []byte) (a, b uint64) {
	f.buf = binary.AppendUvarint(f.buf[:0], uint64(len(key))<<1)
	if key == nil {
		f.buf[0] |= 1
	}
	f.buf = append(append(f.buf, key...), value...)
	return maphash.Bytes(f.one, f.buf), maphash.Bytes(f.two, f.buf)
}
