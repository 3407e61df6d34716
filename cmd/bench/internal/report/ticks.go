package report

import (
	"math"
	"slices"
	"strconv"

	"github.com/dustin/go-humanize"

	"example.com/tiffin/cmd/bench/internal/harness"
)

// yTicks are round values on the y axis.
func yTicks(kind harness.Kind, y axis) (ticks []float64) {
	if kind == harness.Percentiles {
		for power := y.from; power <= y.to; power++ {
			ticks = append(ticks, math.Pow(10, power))
		}
		return ticks
	}
	return evenTicks(y.from, y.to)
}

// xTicks are round values, percentiles, or, where there are few, the values themselves.
func xTicks(kind harness.Kind, x axis, points [][2]float64) (ticks []float64) {
	switch kind {
	case harness.Percentiles:
		for _, p := range []float64{0, 50, 90, 99, 99.9, 99.99} {
			if at := rarity(p); at >= x.from && at <= x.to {
				ticks = append(ticks, p)
			}
		}
	case harness.Logarithmic:
		for _, p := range points {
			if !slices.Contains(ticks, p[0]) {
				ticks = append(ticks, p[0])
			}
		}
	default:
		ticks = evenTicks(x.from, x.to)
	}
	return ticks
}

// evenTicks are four to nine multiples of 1, 2 or 5 times a power of ten.
func evenTicks(from, to float64) (ticks []float64) {
	if to <= from {
		return []float64{from}
	}
	step := math.Pow(10, math.Floor(math.Log10(to-from)))
	for _, part := range []float64{1, 0.5, 0.2} {
		if (to-from)/(step*part) >= 4 {
			step *= part
			break
		}
	}
	for v := math.Ceil(from/step) * step; v <= to; v += step {
		ticks = append(ticks, v)
	}
	return ticks
}

// quantity writes a tick in what the axis shows.
func quantity(axis string, v float64) string {
	switch axis {
	case "seconds":
		if v == 0 {
			return "0"
		}
		return harness.Seconds.Format(v)
	case "bytes":
		return humanize.Bytes(uint64(max(v, 0)))
	case "subscriptions":
		return humanize.Comma(int64(v))
	default:
		return strconv.FormatFloat(v, 'g', 5, 64)
	}
}
