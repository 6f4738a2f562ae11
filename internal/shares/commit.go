package shares

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Commitments is what a locked node knows of its peers' shares: public, in its per-node part. There are two generations
// while one follows the other.
type Commitments struct {
	Node        string
	Generations []Commitment
}

// Commitment says what the shares and the key of one generation have to be.
type Commitment struct {
	Generation int
	Threshold  int
	Key        string // SHA-256 of the key with node and generation, hex
	Shares     []Promise
}

// Promise is the digest of one peer's share.
type Promise struct {
	Index int
	Peer  string
	Sum   string
}

// Commit returns what may be public of a generation.
func (g Generation) Commit() Commitment {
	c := Commitment{Generation: g.Number, Threshold: g.Threshold, Key: keySum(g.Node, g.Number, g.Key)}
	for _, s := range g.Shares {
		c.Shares = append(c.Shares, Promise{s.Index, s.Peer, sum(s.Line)})
	}
	return c
}

// Peers are the nodes that any of the generations expects a share of.
func (c Commitments) Peers() []string {
	var out []string
	for _, g := range c.Generations {
		for _, s := range g.Shares {
			out = append(out, s.Peer)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Text is the file that the initramfs reads.
func (c Commitments) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "popfleet-peers 1 %s\n", c.Node)
	for _, g := range c.Generations {
		fmt.Fprintf(&b, "generation %d %d %s\n", g.Generation, g.Threshold, g.Key)
		for _, s := range g.Shares {
			fmt.Fprintf(&b, "share %d %d %s %s\n", g.Generation, s.Index, s.Peer, s.Sum)
		}
	}
	return b.String()
}

const (
	maxText        = 16 << 10
	maxGenerations = 2
)

// ParseCommitments reads what Text wrote, and nothing that a shell could read in another way: what it returns has
// exactly the text that was parsed.
func ParseCommitments(text string) (Commitments, error) {
	var c Commitments
	if len(text) > maxText {
		return c, errors.New("peers: too large")
	}
	for i, l := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		if err := c.line(strings.Split(l, " "), i == 0); err != nil {
			return Commitments{}, fmt.Errorf("peers: line %d: %w", i+1, err)
		}
	}
	if err := c.check(); err != nil {
		return Commitments{}, fmt.Errorf("peers: %w", err)
	}
	if c.Text() != text {
		return Commitments{}, errors.New("peers: not in the one form that is understood")
	}
	return c, nil
}

func (c *Commitments) line(f []string, first bool) error {
	switch {
	case first:
		if len(f) != 3 || f[0]+" "+f[1] != "popfleet-peers 1" || !validName(f[2]) {
			return errors.New("expected popfleet-peers 1 NODE")
		}
		c.Node = f[2]
	case len(f) == 4 && f[0] == "generation":
		n, err1 := number(f[1], maxGeneration)
		t, err2 := number(f[2], MaxShares)
		if err1 != nil || err2 != nil || !isSum(f[3]) {
			return errors.New("expected generation NUMBER THRESHOLD SHA256")
		}
		c.Generations = append(c.Generations, Commitment{Generation: n, Threshold: t, Key: f[3]})
	case len(f) == 5 && f[0] == "share" && len(c.Generations) > 0:
		g := &c.Generations[len(c.Generations)-1]
		n, err1 := number(f[1], maxGeneration)
		i, err2 := number(f[2], MaxShares)
		if err1 != nil || err2 != nil || n != g.Generation || i != len(g.Shares)+1 || !validName(f[3]) || !isSum(f[4]) {
			return errors.New("expected share GENERATION INDEX PEER SHA256")
		}
		g.Shares = append(g.Shares, Promise{i, f[3], f[4]})
	default:
		return errors.New("not understood")
	}
	return nil
}

func (c Commitments) check() error {
	if len(c.Generations) == 0 || len(c.Generations) > maxGenerations {
		return fmt.Errorf("%d generations, expected one or two", len(c.Generations))
	}
	for i, g := range c.Generations {
		var peers []string
		for _, s := range g.Shares {
			peers = append(peers, s.Peer)
		}
		if err := checkHead(c.Node, g.Generation, peers); err != nil {
			return err
		}
		if g.Threshold < MinThreshold || len(g.Shares) < g.Threshold {
			return fmt.Errorf("generation %d: %d of %d shares", g.Generation, g.Threshold, len(g.Shares))
		}
		if i > 0 && g.Generation <= c.Generations[i-1].Generation {
			return errors.New("generations do not grow")
		}
	}
	return nil
}

func isSum(s string) bool {
	return len(s) == 64 && !strings.ContainsFunc(s, func(c rune) bool { return !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f') })
}
