package shares

import (
	"fmt"
	"io"
	"slices"
)

// Bounds. A threshold of one would be a copy of the key at every peer.
const (
	MinThreshold = 2
	MaxShares    = 16
)

// point is one share of a secret: the polynomials' values at x.
type point struct {
	x byte
	y []byte
}

// split cuts secret into n points, any t of which give it back; t−1 of them are independent of it (Shamir, How to share
// a secret, 1979): for every byte a polynomial of degree t−1 whose other coefficients are random.
func split(secret []byte, t, n int, random io.Reader) ([]point, error) {
	if t < MinThreshold || n < t || n > MaxShares {
		return nil, fmt.Errorf("%d of %d shares: want at least %d, of at most %d", t, n, MinThreshold, MaxShares)
	}
	points := make([]point, n)
	for i := range points {
		points[i] = point{x: byte(i + 1), y: make([]byte, len(secret))}
	}
	coefficients := make([]byte, t)
	for pos, b := range secret {
		coefficients[0] = b
		if _, err := io.ReadFull(random, coefficients[1:]); err != nil {
			return nil, fmt.Errorf("random coefficients: %w", err)
		}
		for _, p := range points {
			p.y[pos] = at(coefficients, p.x)
		}
	}
	clear(coefficients)
	return points, nil
}

// combine interpolates at 0. Fewer points than the threshold give bytes that mean nothing.
func combine(points []point) ([]byte, error) {
	if len(points) == 0 {
		return nil, fmt.Errorf("no shares")
	}
	out := make([]byte, len(points[0].y))
	for i, p := range points {
		if p.x == 0 || len(p.y) != len(out) || slices.ContainsFunc(points[:i], func(q point) bool { return q.x == p.x }) {
			return nil, fmt.Errorf("share %d is there twice, or is none", p.x)
		}
		l := byte(1)
		for j, q := range points {
			if j != i {
				l = mul(l, mul(q.x, inverse(q.x^p.x)))
			}
		}
		for pos, y := range p.y {
			out[pos] ^= mul(l, y)
		}
	}
	return out, nil
}
