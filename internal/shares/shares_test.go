package shares

import (
	"bytes"
	"fmt"
	mrand "math/rand/v2"
	"strings"
	"testing"
)

func TestField(t *testing.T) {
	// FIPS-197, 4.2: {57}·{83} = {c1}, {57}·{13} = {fe}.
	if mul(0x57, 0x83) != 0xc1 || mul(0x57, 0x13) != 0xfe {
		t.Fatalf("%x %x", mul(0x57, 0x83), mul(0x57, 0x13))
	}
	for a := range 256 {
		if a > 0 && mul(byte(a), inverse(byte(a))) != 1 {
			t.Errorf("%d has no inverse", a)
		}
		for b := range 256 {
			if mul(byte(a), byte(b)) != mul(byte(b), byte(a)) {
				t.Fatalf("%d·%d", a, b)
			}
		}
	}
}

func seeded(n uint64) *mrand.ChaCha8 { return mrand.NewChaCha8([32]byte{byte(n), byte(n >> 8), 7}) }

var five = []string{"a-1", "b-1", "c-1", "d-1", "e-1"}

// TestEveryQuorumOpensAndNoSmallerOne: all subsets of five, for every threshold.
func TestEveryQuorumOpensAndNoSmallerOne(t *testing.T) {
	for threshold := 2; threshold <= 5; threshold++ {
		g, err := New("n-1", 3, threshold, five, seeded(uint64(threshold)))
		if err != nil {
			t.Fatal(err)
		}
		c := g.Commit()
		for set := range 1 << 5 {
			var lines []string
			var points []point
			for i, s := range g.Shares {
				if set>>i&1 == 1 {
					lines = append(lines, s.Line)
					_, p, err := parseShare(s.Line)
					if err != nil {
						t.Fatal(err)
					}
					points = append(points, p)
				}
			}
			key, err := Combine(c, "n-1", lines)
			if (err == nil) != (len(lines) >= threshold) || err == nil && key != g.Key {
				t.Errorf("%d of 5, shares %05b: %v", threshold, set, err)
			}
			if len(points) > 0 && len(points) < threshold {
				if raw, err := combine(points); err != nil || fmt.Sprintf("%x", raw) == g.Key {
					t.Errorf("%d of 5, shares %05b make the key", threshold, set)
				}
			}
		}
	}
}

// TestFewerSharesSayNothing is exhaustive over one byte: for every secret, all choices of the random coefficients give
// every pair of values of t−1 shares exactly once. What t−1 peers see has the same distribution whatever the secret is.
func TestFewerSharesSayNothing(t *testing.T) {
	for _, x := range []byte{1, 2, 16} { // 2 of n: one share
		for secret := range 256 {
			var seen [256]int
			for r := range 256 {
				seen[at([]byte{byte(secret), byte(r)}, x)]++
			}
			for y, n := range seen {
				if n != 1 {
					t.Fatalf("2 of n, x=%d: secret %d makes %d %d times", x, secret, y, n)
				}
			}
		}
	}
	for _, secret := range []byte{0, 1, 0x5a, 255} { // 3 of n: two shares
		var seen [1 << 16]uint8
		for r := range 1 << 16 {
			c := []byte{secret, byte(r), byte(r >> 8)}
			seen[int(at(c, 1))<<8|int(at(c, 5))]++
		}
		for pair, n := range seen {
			if n != 1 {
				t.Fatalf("3 of n: secret %d makes the pair %04x %d times", secret, pair, n)
			}
		}
	}
}

// TestSplitUsesFreshRandomnessForEveryByte: the property above needs each byte's coefficients to be its own.
func TestSplitUsesFreshRandomnessForEveryByte(t *testing.T) {
	var read bytes.Buffer
	for i := range 3 * 32 {
		read.WriteByte(byte(i*37 + 11))
	}
	if _, err := split(make([]byte, 32), 4, 5, &read); err != nil || read.Len() != 0 {
		t.Errorf("%v, %d random bytes left", err, read.Len())
	}
}

func TestNewRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		node      string
		number    int
		threshold int
		peers     []string
	}{
		"a threshold of one": {"n-1", 1, 1, five},
		"too few peers":      {"n-1", 1, 3, five[:2]},
		"no peers":           {"n-1", 1, 2, nil},
		"itself":             {"a-1", 1, 2, five},
		"a peer twice":       {"n-1", 1, 2, []string{"a-1", "a-1", "b-1"}},
		"generation 0":       {"n-1", 0, 2, five},
		"shell in a name":    {"n-1", 1, 2, []string{"a-1", "$(b)"}},
		"too many":           {"n-1", 1, 2, strings.Fields(strings.Repeat("x ", 17))},
	} {
		if _, err := New(c.node, c.number, c.threshold, c.peers, nil); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestSharesOfTwoCuttingsDoNotMix(t *testing.T) {
	old, _ := New("n-1", 1, 2, five, seeded(1))
	now, _ := New("n-1", 2, 2, five, seeded(2))
	other, _ := New("m-1", 2, 2, five, seeded(3))
	for name, lines := range map[string][]string{
		"an older one":   {now.Shares[0].Line, old.Shares[1].Line},
		"another node's": {now.Shares[0].Line, other.Shares[1].Line},
		"one twice":      {now.Shares[0].Line, now.Shares[0].Line},
		"only one":       {now.Shares[0].Line},
		"none":           nil,
		"garbage":        {now.Shares[0].Line, "popfleet-share 1 n-1 2 2 zz"},
	} {
		if _, err := Combine(now.Commit(), "n-1", lines); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestCommitmentsHoldNoSecret(t *testing.T) {
	g, _ := New("n-1", 2, 2, five, nil)
	text := Commitments{Node: "n-1", Generations: []Commitment{g.Commit()}}.Text()
	if strings.Contains(text, g.Key) {
		t.Error("the key is in it")
	}
	for _, s := range g.Shares {
		if strings.Contains(text, s.Line[strings.LastIndexByte(s.Line, ' ')+1:]) {
			t.Errorf("share %d is in it", s.Index)
		}
	}
}

func TestCommitmentsAreRefused(t *testing.T) {
	g, _ := New("n-1", 2, 2, five[:2], seeded(1))
	good := Commitments{Node: "n-1", Generations: []Commitment{g.Commit()}}.Text()
	if _, err := ParseCommitments(good); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"empty":             "",
		"no generation":     "popfleet-peers 1 n-1\n",
		"threshold 1":       strings.Replace(good, "generation 2 2", "generation 2 1", 1),
		"more than it has":  strings.Replace(good, "generation 2 2", "generation 2 3", 1),
		"a peer is it":      strings.Replace(good, "a-1", "n-1", 1),
		"same peer twice":   strings.Replace(good, "a-1", "b-1", 1),
		"two blanks":        strings.Replace(good, "share ", "share  ", 1),
		"no end of line":    strings.TrimSuffix(good, "\n"),
		"another version":   strings.Replace(good, "peers 1", "peers 2", 1),
		"a generation more": good + strings.SplitN(good, "\n", 2)[1],
		"shell":             strings.Replace(good, "a-1", "`a`", 1),
	} {
		if _, err := ParseCommitments(text); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func FuzzParseShare(f *testing.F) {
	g, _ := New("n-1", 7, 2, five, seeded(9))
	f.Add(g.Shares[0].Line)
	f.Add("popfleet-share 1 n-1 7 1 ")
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		h, p, err := parseShare(text)
		if err == nil && line(h.Node, h.Generation, p) != text {
			t.Errorf("%q is read as %q", text, line(h.Node, h.Generation, p))
		}
	})
}

func FuzzParseCommitments(f *testing.F) {
	g, _ := New("n-1", 7, 2, five, seeded(9))
	f.Add(Commitments{Node: "n-1", Generations: []Commitment{g.Commit()}}.Text())
	f.Add("popfleet-peers 1 n-1\ngeneration 1 2 00\nshare 1 1 a 00\n")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseCommitments(text)
		if err == nil && c.Text() != text {
			t.Errorf("%q", text)
		}
	})
}
