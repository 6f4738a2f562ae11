package stream

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"popfleet/internal/mtls"
	"popfleet/replication/oplog"
)

// BenchmarkStream is entries of about 300 bytes a second from one node's log to another's, both on disk, over TLS on the
// loopback, all on this machine.
func BenchmarkStream(b *testing.B) {
	logs, _ := pairOf(b, benchIdentity(b), func(_ int, l *oplog.Log) Sink { return logSink{l} })
	fill(b, logs[0], b.N)
	for changed := logs[1].Changed(); logs[1].Vector()[1] < uint64(b.N); changed = logs[1].Changed() {
		<-changed
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "entries/s")
}

// BenchmarkServe leaves the receiver's disk out: what the stream itself can carry.
func BenchmarkServe(b *testing.B) {
	done, gate := make(chan struct{}), make(chan struct{})
	logs, _ := pairOf(b, benchIdentity(b), func(int, *oplog.Log) Sink {
		return &counter{last: uint64(b.N), gate: gate, done: done, seen: oplog.Vector{}}
	})
	fill(b, logs[0], b.N)
	b.ResetTimer()
	close(gate)
	<-done
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "entries/s")
}

// BenchmarkLag paces 12,500 entries a second, half of what a peer must carry, in groups of 25 each 2 ms, and tells how
// long after the origin's append had returned the other side's did.
func BenchmarkLag(b *testing.B) {
	var times arrivals
	logs, _ := pairOf(b, benchIdentity(b), func(_ int, l *oplog.Log) Sink { return &timed{logSink{l}, &times} })
	fill(b, logs[0], 1)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	b.ResetTimer()
	for seq := uint64(2); seq < uint64(b.N)+2; seq += 25 {
		<-tick.C
		if err := logs[0].Append(b.Context(), entries(1, seq, seq+24)...); err != nil {
			b.Fatal(err)
		}
		times.sent(seq + 24)
	}
	lags := times.wait(b)
	slices.Sort(lags)
	b.ReportMetric(float64(lags[len(lags)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(lags[len(lags)*99/100].Microseconds()), "p99-µs")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "entries/s")
}

func fill(b *testing.B, l *oplog.Log, n int) {
	b.Helper()
	for seq := uint64(1); seq <= uint64(n); seq += 1000 {
		if err := l.Append(b.Context(), entries(1, seq, min(seq+999, uint64(n)))...); err != nil {
			b.Fatal(err)
		}
	}
}

type counter struct {
	mu   sync.Mutex
	seen oplog.Vector
	last uint64
	gate chan struct{}
	done chan struct{}
}

func (c *counter) Apply(_ context.Context, _ string, entries []oplog.Entry) error {
	<-c.gate
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range entries {
		if e.Seq == c.seen[e.Origin]+1 {
			c.seen[e.Origin]++
		}
	}
	if c.seen[1] == c.last && entries[len(entries)-1].Seq == c.last {
		close(c.done)
	}
	return nil
}

func (c *counter) Durable() oplog.Vector {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen.Clone()
}

// arrivals are when the last entry of each group was sent and came.
type arrivals struct {
	mu         sync.Mutex
	left, came map[uint64]time.Time
}

func (a *arrivals) sent(seq uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.left == nil {
		a.left = map[uint64]time.Time{}
	}
	a.left[seq] = time.Now()
}

func (a *arrivals) arrived(entries []oplog.Entry) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.came == nil {
		a.came = map[uint64]time.Time{}
	}
	for _, e := range entries {
		a.came[e.Seq] = time.Now()
	}
}

func (a *arrivals) wait(b *testing.B) (lags []time.Duration) {
	deadline := time.Now().Add(30 * time.Second)
	for time.Now().Before(deadline) {
		a.mu.Lock()
		lags = lags[:0]
		for seq, left := range a.left {
			if came, ok := a.came[seq]; ok {
				lags = append(lags, max(0, came.Sub(left)))
			}
		}
		all := len(lags) == len(a.left)
		a.mu.Unlock()
		if all {
			return lags
		}
		time.Sleep(time.Millisecond) // a poll of a condition with a deadline
	}
	b.Fatal("not all came within 30 s")
	return nil
}

type timed struct {
	logSink
	times *arrivals
}

func (s *timed) Apply(ctx context.Context, from string, entries []oplog.Entry) error {
	err := s.logSink.Apply(ctx, from, entries)
	s.times.arrived(entries)
	return err
}

// benchIdentity signs each node's certificate by itself: mtlstest serves tests only.
func benchIdentity(b *testing.B) func(node string) *mtls.Identity {
	b.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	authority, err := x509.CreateCertificate(rand.Reader, ca, ca, &key.PublicKey, key)
	if err != nil {
		b.Fatal(err)
	}
	return func(node string) *mtls.Identity {
		leaf := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
			KeyUsage: x509.KeyUsageDigitalSignature, URIs: []*url.URL{{Scheme: mtls.Scheme, Host: "demo", Path: "/" + Service + "/" + node}}}
		der, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, key)
		if err != nil {
			b.Fatal(err)
		}
		id, err := mtls.Fixed(tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key},
			pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authority}))
		if err != nil {
			b.Fatal(err)
		}
		return id
	}
}
