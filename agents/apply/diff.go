package apply

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

const (
	maxDiffCells = 4 << 20 // of the table; beyond it the middle is shown as replaced
	maxDiffBytes = 32 << 10
	context3     = 3 // unchanged lines around a change, as diff -u
)

// edit is one line of a diff: ' ' kept, '-' gone, '+' new.
type edit struct {
	op   byte
	line string
}

// unified is the difference of two texts as `diff -u` prints it, bounded.
func unified(name, before, after string) string {
	if !utf8.ValidString(before) || !utf8.ValidString(after) {
		return fmt.Sprintf("binary content, %d → %d bytes", len(before), len(after))
	}
	var b strings.Builder
	fmt.Fprintf(&b, "--- %s\n+++ %s\n", name, name)
	writeHunks(&b, edits(lines(before), lines(after)))
	if b.Len() > maxDiffBytes {
		return strings.ToValidUTF8(b.String()[:maxDiffBytes], "") + "\n(the rest is left out)"
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func lines(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(s, "\n"), "\n")
}

// edits is a shortest way from a to b: common ends are kept, between them the longest common subsequence.
func edits(a, b []string) []edit {
	head := 0
	for head < len(a) && head < len(b) && a[head] == b[head] {
		head++
	}
	tail := 0
	for tail < len(a)-head && tail < len(b)-head && a[len(a)-1-tail] == b[len(b)-1-tail] {
		tail++
	}
	var out []edit
	out = appendAll(out, ' ', a[:head])
	out = append(out, middle(a[head:len(a)-tail], b[head:len(b)-tail])...)
	return appendAll(out, ' ', a[len(a)-tail:])
}

func appendAll(out []edit, op byte, ls []string) []edit {
	for _, l := range ls {
		out = append(out, edit{op, l})
	}
	return out
}

func middle(a, b []string) []edit {
	if len(a)*len(b) > maxDiffCells {
		return appendAll(appendAll(nil, '-', a), '+', b)
	}
	common := lcs(a, b)
	var out []edit
	i, k := 0, 0
	for i < len(a) || k < len(b) {
		switch {
		case i < len(a) && k < len(b) && a[i] == b[k]:
			out = append(out, edit{' ', a[i]})
			i, k = i+1, k+1
		case k == len(b) || i < len(a) && common[i+1][k] >= common[i][k+1]:
			out = append(out, edit{'-', a[i]})
			i++
		default:
			out = append(out, edit{'+', b[k]})
			k++
		}
	}
	return out
}

// lcs[i][k] is the length of the longest common subsequence of a[i:] and b[k:].
func lcs(a, b []string) [][]int32 {
	t := make([][]int32, len(a)+1)
	for i := range t {
		t[i] = make([]int32, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for k := len(b) - 1; k >= 0; k-- {
			if a[i] == b[k] {
				t[i][k] = t[i+1][k+1] + 1
			} else {
				t[i][k] = max(t[i+1][k], t[i][k+1])
			}
		}
	}
	return t
}

// writeHunks prints the edits with context, leaving out long runs of kept lines.
func writeHunks(b *strings.Builder, es []edit) {
	oldLine, newLine := 1, 1
	for at := 0; at < len(es); {
		from, to := nextHunk(es, at)
		if from == to {
			return
		}
		oldLine, newLine = advance(es[at:from], oldLine, newLine)
		oldEnd, newEnd := advance(es[from:to], oldLine, newLine)
		fmt.Fprintf(b, "@@ -%d,%d +%d,%d @@\n", hunkStart(oldLine, oldEnd), oldEnd-oldLine, hunkStart(newLine, newEnd), newEnd-newLine)
		for _, e := range es[from:to] {
			fmt.Fprintf(b, "%c%s\n", e.op, e.line)
		}
		oldLine, newLine, at = oldEnd, newEnd, to
	}
}

// hunkStart is a hunk's first line; an empty side is named by the line before it, as diff -u does.
func hunkStart(from, to int) int {
	if from == to {
		return from - 1
	}
	return from
}

func advance(es []edit, oldLine, newLine int) (int, int) {
	for _, e := range es {
		if e.op != '+' {
			oldLine++
		}
		if e.op != '-' {
			newLine++
		}
	}
	return oldLine, newLine
}

// nextHunk is the next run of edits from index at, with context, joined with following ones that are near.
func nextHunk(es []edit, at int) (from, to int) {
	first := at
	for first < len(es) && es[first].op == ' ' {
		first++
	}
	if first == len(es) {
		return 0, 0
	}
	last := first
	for i := first; i < len(es) && i <= last+2*context3; i++ {
		if es[i].op != ' ' {
			last = i
		}
	}
	return max(at, first-context3), min(len(es), last+1+context3)
}
