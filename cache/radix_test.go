package cache

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func TestNumbersAreSortedByEveryByte(t *testing.T) {
	t.Parallel()
	sortsEveryByte[uint32](t, 32)
	sortsEveryByte[uint64](t, 64)
}

func sortsEveryByte[T uint32 | uint64](t *testing.T, bits int) {
	t.Helper()
	rng := rand.New(rand.NewPCG(9, 0))
	var room []T
	for _, n := range []int{0, 1, radixLeast - 1, radixLeast, 5000} {
		for shift := range bits {
			numbers := make([]T, n)
			for i := range numbers {
				numbers[i] = T(rng.Uint64()) >> shift
			}
			want := slices.Sorted(slices.Values(numbers))
			if numbers, room = sortNumbers(numbers, room); !slices.Equal(numbers, want) {
				t.Fatalf("%d numbers of %d bits are not sorted", n, bits-shift)
			}
		}
	}
}
