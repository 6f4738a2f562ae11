package inventory

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one thing wrong with a fleet file, and where.
type Problem struct {
	File     string `json:"file"`
	Line     int    `json:"line"`   // from 1
	Column   int    `json:"column"` // from 1, in characters
	Field    string `json:"field"`  // pops[0].nodes[1].name; empty for the whole file
	Message  string `json:"message"`
	Expected string `json:"expected,omitempty"` // what would be right, or what to do
}

// String is the problem as one line: file:line:column: field: message; expected.
func (p Problem) String() string {
	s := fmt.Sprintf("%s:%d:%d: ", p.File, p.Line, p.Column)
	if p.Field != "" {
		s += p.Field + ": "
	}
	s += p.Message
	if p.Expected != "" {
		s += "; " + p.Expected
	}
	return s
}

// ErrInvalid is a fleet file that was refused; it lists every problem found, in the order of the file.
type ErrInvalid struct{ Problems []Problem }

// shownProblems bounds the message; beyond it a file is of another kind, not a fleet file with mistakes.
const shownProblems = 50

func (e *ErrInvalid) Error() string {
	var lines []string
	for _, p := range e.Problems[:min(len(e.Problems), shownProblems)] {
		lines = append(lines, p.String())
	}
	if more := len(e.Problems) - shownProblems; more > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(lines, "\n")
}

// report collects problems; at knows where each field of the file stands.
type report struct {
	file     string
	at       map[string]position
	problems []Problem
}

type position struct{ line, column int }

// add notes a problem of the field called field, at its place or, when the file does not mention it, its parent's.
func (r *report) add(field, message, expected string) {
	r.addAt(r.find(field), field, message, expected)
}

func (r *report) addAt(p position, field, message, expected string) {
	r.problems = append(r.problems, Problem{r.file, p.line, p.column, field, message, expected})
}

func (r *report) find(field string) position {
	for {
		if p, ok := r.at[field]; ok {
			return p
		}
		i := strings.LastIndexAny(field, ".[")
		if i < 0 {
			return position{1, 1}
		}
		field = field[:i]
	}
}

func (r *report) err() error {
	if len(r.problems) == 0 {
		return nil
	}
	slices.SortStableFunc(r.problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return &ErrInvalid{slices.Compact(r.problems)}
}

// nearest returns ", did you mean …?" when one of known is a typing slip away from got.
func nearest(got string, known []string) string {
	best, distance := "", 3
	for _, k := range known {
		if d := editDistance(got, k); d < distance && d < len(k) {
			best, distance = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("did you mean %s?", best)
}

// editDistance is Levenshtein's, over bytes; long inputs are cut, since only small distances matter.
func editDistance(a, b string) int {
	a, b = a[:min(len(a), 64)], b[:min(len(b), 64)]
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
