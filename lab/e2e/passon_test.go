package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"popfleet/internal/dial"
	"popfleet/inventory"
	"popfleet/lab/faults"
	"popfleet/lab/inprocess"
	"popfleet/lab/scripted"
	"popfleet/playbooks/spec"
	"popfleet/provision/lifecycle"
	"popfleet/provision/remote"
)

// meter counts what the operator sends: what crosses his uplink.
type meter struct {
	dial.Dialer
	sent atomic.Int64
}

func (m *meter) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	c, err := m.Dialer.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return metered{c, m}, nil
}

type metered struct {
	net.Conn
	m *meter
}

func (c metered) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.m.sent.Add(int64(n))
	return n, err
}

// noise is content that does not compress, the same for the same seed.
func noise(seed uint64, size int) string {
	b := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{byte(seed)}).Read(b)
	return string(b)
}

func blobOf(content string) spec.Blob {
	return spec.Blob{SHA256: digest(content), SizeBytes: int64(len(content))}
}

const (
	testImage   = 4 << 20
	testRelease = 1 << 20 // of two binaries each
)

// carrying gives the world an image and a release of a size that can be told from the rest.
func (w *world) carrying() (m *meter, payload int64) {
	image := noise(1, testImage)
	blobs := texts{digest(image): image}
	w.deps.Image = func(context.Context) (lifecycle.Image, error) {
		return lifecycle.Image{Blob: blobOf(image), Blobs: blobs}, nil
	}
	w.deps.Compiler = &heavyCompiler{binaries: []string{noise(2, testRelease), noise(3, testRelease)}}
	m = &meter{Dialer: w.deps.Dial}
	w.deps.Dial = m
	return m, testImage + 2*testRelease
}

// heavyCompiler gives every node a release of these binaries.
type heavyCompiler struct{ binaries []string }

func (c *heavyCompiler) Compile(_ context.Context, node string) (spec.Node, remote.Blobs, error) {
	blobs, r := texts{}, &spec.Release{}
	for i, b := range c.binaries {
		blobs[digest(b)] = b
		r.Files = append(r.Files, spec.ReleaseFile{Path: fmt.Sprintf("bin/b%d", i), Mode: 0o755, SHA256: digest(b), SizeBytes: int64(len(b))})
	}
	r.Digest = r.ManifestDigest()
	return spec.Node{Version: 1, Name: node, Release: r}, blobs, nil
}

// direct counts the blobs that a node was sent by the operator himself.
func (w *world) direct(t *testing.T, node string) int {
	return w.lab.Machine(t, node).Ledger().Direct()
}

// steady are machines that need about as long for what they do as for starting, so that those of a PoP overlap.
var steady = scripted.Timing{BootRescue: 50 * time.Millisecond, BootDisk: 50 * time.Millisecond, BootSystem: 50 * time.Millisecond, Step: 50 * time.Millisecond}

// TestOneCopyAcrossTheUplink: image and release reach a PoP of five once; without neighbours every node costs all of it.
func TestOneCopyAcrossTheUplink(t *testing.T) {
	const nodes = 5
	measure := func(pop func(i int) string) (perPoP float64, direct, passed int) {
		w := newWorld(t, inprocess.Options{Timing: steady}, nodes)
		for i := range w.nodes {
			w.nodes[i].PoP = pop(i)
		}
		m, payload := w.carrying()
		w.serving(t, w.up(t))
		w.exactlyOnce(t)
		for _, n := range w.nodes {
			direct += w.direct(t, n.Name)
			passed += w.lab.Machine(t, n.Name).Ledger().PassedOn()
		}
		return float64(m.sent.Load()) / float64(payload), direct, passed
	}
	alone, direct, passed := measure(func(i int) string { return fmt.Sprintf("pop%d", i) })
	t.Logf("5 nodes, each alone in its PoP: %.2f × image and release over the uplink, %d blobs from the operator, %d passed on", alone, direct, passed)
	if direct != 3*nodes || passed != 0 {
		t.Errorf("%d blobs from the operator, %d passed on", direct, passed)
	}
	together, direct, passed := measure(func(int) string { return "fsn" })
	t.Logf("5 nodes in one PoP: %.2f × over the uplink, %d blobs from the operator, %d passed on", together, direct, passed)
	if direct != 3 || passed != 3*(nodes-1) || together > 1.3 {
		t.Errorf("%.2f × over the uplink, %d blobs from the operator, %d passed on", together, direct, passed)
	}
}

// TestPeerTrouble: whatever a node does that should pass content on, all come up, and nothing false is kept.
func TestPeerTrouble(t *testing.T) {
	for name, c := range map[string]struct {
		fault faults.Fault
		lies  bool
		says  string
	}{
		"lies":    {lies: true, says: "something else than"},
		"refuses": {fault: faults.Fault{Kind: faults.Refuse, Port: spec.SharePort}, says: "did not pass on"},
		"silent":  {fault: faults.Fault{Kind: faults.Silent, Port: spec.SharePort}, says: "did not pass on"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, inprocess.Options{Timing: steady}, 3)
			w.carrying()
			if c.fault.Kind != "" {
				w.lab.Faults.MustAdd(c.fault)
			}
			w.deps.Rent = func(ctx context.Context, node string) error {
				err := w.rent(ctx, node)
				if m, ok := w.lab.Machines.Labelled(node); ok && c.lies {
					m.LieToPeers()
				}
				return err
			}
			w.serving(t, w.up(t))
			w.exactlyOnce(t)
			var all strings.Builder
			direct := 0
			for _, n := range w.nodes {
				all.WriteString(w.story(n.Name))
				direct += w.direct(t, n.Name)
			}
			if !strings.Contains(all.String(), c.says) {
				t.Errorf("nobody was told that a peer %s:\n%s", name, all.String())
			}
			t.Logf("%d of 9 blobs came from the operator", direct)
		})
	}
}

// TestPeerDiesWhilePassing: the first node of a PoP loses its power with others hanging on it; they come up all the same.
func TestPeerDiesWhilePassing(t *testing.T) {
	w := newWorld(t, inprocess.Options{}, 4)
	w.carrying()
	w.lab.Faults.MustAdd(faults.Fault{Kind: faults.SpontaneousBoot, Step: "image", Times: 1})
	w.serving(t, w.up(t))
}

// TestNewcomerIsServedByItsPoP: a node that joins takes image and release from those that serve.
func TestNewcomerIsServedByItsPoP(t *testing.T) {
	w := newWorld(t, inprocess.Options{}, 2)
	w.carrying()
	w.serving(t, w.up(t))
	w.nodes = append(w.nodes, lifecycle.Node{Name: "fsn-9", PoP: "fsn",
		Machine: inventory.Machine{Provider: "hetznercloud", ServerType: "cx23", Location: "fsn1"}})
	w.serving(t, w.up(t))
	if n := w.direct(t, "fsn-9"); n != 0 {
		t.Errorf("the operator sent the newcomer %d blobs\n%s", n, w.story("fsn-9"))
	}
}
