package harness

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/google/pprof/profile"
)

// Profile is a CPU profile of tiffin under measurement (pprof's format, compressed).
type Profile struct {
	Case string
	Data []byte
}

// Function is a line of a profile: the share of the samples, 0 to 1, in itself and in what it calls.
type Function struct {
	Name       string
	Flat, Full float64
}

// Top are the functions in which most samples were taken, most first.
func (p Profile) Top(most int) ([]Function, error) {
	parsed, err := profile.Parse(bytes.NewReader(p.Data))
	if err != nil {
		return nil, fmt.Errorf("read the profile of %s: %w", p.Case, err)
	}
	flat, full := map[string]float64{}, map[string]float64{}
	var total float64
	for _, s := range parsed.Sample {
		n := float64(s.Value[0])
		total += n
		seen := map[string]bool{}
		for depth, location := range s.Location {
			for inlined, line := range location.Line {
				name := line.Function.Name
				if depth == 0 && inlined == 0 {
					flat[name] += n
				}
				if !seen[name] { // a recursive function counts once
					seen[name] = true
					full[name] += n
				}
			}
		}
	}
	names := slices.SortedFunc(maps.Keys(flat), func(a, b string) int { return cmp.Or(cmp.Compare(flat[b], flat[a]), cmp.Compare(a, b)) })
	var top []Function
	for _, name := range names[:min(most, len(names))] {
		top = append(top, Function{Name: name, Flat: flat[name] / total, Full: full[name] / total})
	}
	return top, nil
}
