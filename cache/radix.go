package cache

import "slices"

// radixLeast is where a pass over 256 counters a byte costs less than comparing.
const radixLeast = 64

// sortNumbers sorts by bytes, the lowest first (LSD radix sort; Knuth, TAOCP 5.2.5), leaving out the bytes
// that all numbers share. It returns them, in the room of either argument, and the other one.
func sortNumbers[T uint32 | uint64](numbers, scratch []T) (sorted, room []T) {
	if len(numbers) < radixLeast {
		slices.Sort(numbers)
		return numbers, scratch
	}
	differ := T(0)
	for _, n := range numbers {
		differ |= n ^ numbers[0]
	}
	from, to := numbers, slices.Grow(scratch[:0], len(numbers))[:len(numbers)]
	for shift := 0; differ>>shift != 0; shift += 8 {
		if differ>>shift&255 == 0 {
			continue
		}
		var at [256]uint32
		for _, n := range from {
			at[n>>shift&255]++
		}
		sum := uint32(0)
		for i, n := range at {
			at[i], sum = sum, sum+n
		}
		for _, n := range from {
			b := n >> shift & 255
			to[at[b]] = n
			at[b]++
		}
		from, to = to, from
	}
	return from, to
}
