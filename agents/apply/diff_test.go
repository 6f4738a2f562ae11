package apply

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func TestUnified(t *testing.T) {
	before := "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\nk\nl\n"
	after := "a\nB\nc\nd\ne\nf\ng\nh\ni\nj\nk\nl\nm\n"
	want := "--- /x\n+++ /x\n@@ -1,5 +1,5 @@\n a\n-b\n+B\n c\n d\n e\n@@ -10,3 +10,4 @@\n j\n k\n l\n+m"
	if got := unified("/x", before, after); got != want {
		t.Fatalf("got\n%s\nwant\n%s", got, want)
	}
	if got := unified("/x", "", "one\n"); got != "--- /x\n+++ /x\n@@ -0,0 +1,1 @@\n+one" {
		t.Fatalf("new file: %s", got)
	}
	if got := unified("/x", "\xff", "one"); !strings.Contains(got, "binary content, 1 → 3 bytes") {
		t.Fatalf("binary: %s", got)
	}
}

// Whatever the texts are, the edits rebuild both of them.
func TestEditsRebuildBothSides(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	text := func() []string {
		out := make([]string, rng.IntN(30))
		for i := range out {
			out[i] = string(rune('a' + rng.IntN(4)))
		}
		return out
	}
	for range 500 {
		a, b := text(), text()
		var gotA, gotB []string
		for _, e := range edits(a, b) {
			if e.op != '+' {
				gotA = append(gotA, e.line)
			}
			if e.op != '-' {
				gotB = append(gotB, e.line)
			}
		}
		if !slices.Equal(a, gotA) || !slices.Equal(b, gotB) {
			t.Fatalf("%v %v: rebuilt %v %v", a, b, gotA, gotB)
		}
	}
}
