package settings

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Fault is one thing wrong with the settings.
type Fault struct {
	Key     string // empty when the file as a whole is meant
	Where   string // file:line or variable that holds the value; empty when there is none
	Problem string // what is wrong and what to do; never holds a secret
}

// String returns the fault as one line.
func (f Fault) String() string {
	switch {
	case f.Key == "":
		return f.Where + ": " + f.Problem
	case f.Where == "":
		return f.Key + ": " + f.Problem
	default:
		return f.Key + " (" + f.Where + "): " + f.Problem
	}
}

// Faults is everything wrong with the settings at once.
type Faults struct {
	List []Fault
	// Log is how to tell them, as far as it was understood.
	Log Log
}

// Error lists the faults, one a line, in the order of their keys.
func (f *Faults) Error() string {
	list := slices.SortedStableFunc(slices.Values(f.List), func(a, b Fault) int { return cmp.Compare(a.Key, b.Key) })
	lines := make([]string, 0, len(list)+1)
	noun := "faults"
	if len(list) == 1 {
		noun = "fault"
	}
	lines = append(lines, fmt.Sprintf("%d %s in the settings:", len(list), noun))
	for _, fault := range list {
		lines = append(lines, "  "+fault.String())
	}
	return strings.Join(lines, "\n")
}

func (f *Faults) add(key, where, format string, args ...any) {
	f.List = append(f.List, Fault{Key: key, Where: where, Problem: fmt.Sprintf(format, args...)})
}

// didYouMean names the candidate nearest to a misspelt name, or nothing if none is near.
func didYouMean(name string, candidates []string) string {
	best, distance := "", min(len(name)/3+1, 5) // more than four edits make another word
	for _, candidate := range candidates {
		if d := editDistance(name, candidate); d < distance {
			best, distance = candidate, d
		}
	}
	if best == "" {
		return ""
	}
	return ": did you mean " + best + "?"
}

// editDistance is Levenshtein's: insertions, deletions and substitutions of a byte.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			substitution := diagonal
			if a[i] != b[j] {
				substitution++
			}
			diagonal = row[j+1]
			row[j+1] = min(substitution, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
