package remote

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/crypto/ssh"

	"popfleet/playbooks/spec"
)

// needy plays an agent that asks for blobs, need after need, and tells what answered each.
func needy(t *testing.T, needs ...[]spec.Blob) func(string, ssh.Channel) uint32 {
	return func(_ string, ch ssh.Channel) uint32 {
		fmt.Fprintln(ch, "HAVE")
		in := bufio.NewReader(ch)
		line, _ := in.ReadBytes('\n')
		var r spec.Request
		_ = json.Unmarshal(line, &r)
		var answers []string
		emit := func(e spec.Event) {
			e.V, e.ID = 1, r.ID
			b, _ := json.Marshal(e)
			_, _ = ch.Write(append(b, '\n'))
		}
		for _, need := range needs {
			emit(spec.Event{Kind: spec.KindNeed, Blobs: need, Accept: []string{spec.EncodingZstd, spec.EncodingPeer}})
			for _, b := range need {
				answers = append(answers, readAnswer(t, in, b))
			}
		}
		data, _ := json.Marshal(answers)
		emit(spec.Event{Kind: spec.KindResult, Data: data})
		_, _ = in.ReadBytes('\n')
		return 0
	}
}

// readAnswer says what came for one blob: a peer's name, or the content.
func readAnswer(t *testing.T, in *bufio.Reader, b spec.Blob) string {
	line, err := in.ReadBytes('\n')
	var h spec.BlobHeader
	if err != nil || json.Unmarshal(line, &h) != nil {
		return fmt.Sprintf("no header: %v", err)
	}
	if h.Encoding == spec.EncodingPeer {
		return "from " + h.Peer.Node
	}
	wire := h.SizeBytes - b.Offset
	if h.Encoding == spec.EncodingZstd {
		wire = h.WireBytes
	}
	data := make([]byte, wire)
	if _, err := io.ReadFull(in, data); err != nil {
		return err.Error()
	}
	if h.Encoding == spec.EncodingZstd {
		z, err := zstd.NewReader(bytes.NewReader(data))
		if err != nil {
			t.Error(err)
			return ""
		}
		defer z.Close()
		data, _ = io.ReadAll(z)
		return "packed " + string(data[:10])
	}
	return string(data)
}

// introducer names fsn-1 for one digest, and remembers what went over the link.
type introducer struct {
	has   string
	heard []string
}

func (i *introducer) Peer(_ context.Context, b spec.Blob) *spec.Peer {
	if b.SHA256 == i.has && !b.Direct {
		return &spec.Peer{Node: "fsn-1"}
	}
	i.heard = append(i.heard, b.SHA256)
	return nil
}

func (i *introducer) Sending(b spec.Blob) { i.heard = append(i.heard, "sending "+b.SHA256) }

func TestPeersAnswer(t *testing.T) {
	a := agentFile(t)
	s, target, _ := setup(t)
	many := strings.Repeat("many times ", 1000)
	s.run = needy(t,
		[]spec.Blob{{SHA256: "a", SizeBytes: 3}, {SHA256: "b", SizeBytes: 6}, {SHA256: "many", SizeBytes: int64(len(many))}},
		[]spec.Blob{{SHA256: "b", SizeBytes: 6, Offset: 4}},
		[]spec.Blob{{SHA256: "a", SizeBytes: 3, Direct: true}})
	c, err := Connect(t.Context(), s, target)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	x, err := c.Exchange(t.Context(), a, nil)
	if err != nil {
		t.Fatal(err)
	}
	var packs Packs
	defer packs.Close()
	peers := &introducer{has: "a"}
	var got []string
	err = x.Do(t.Context(), Call{Op: spec.OpApply, Result: &got, Peers: peers, Packs: &packs,
		Blobs: blobText{"a": "abc", "b": "defghi", "many": many}})
	if want := []string{"from fsn-1", "defghi", "packed many times", "hi", "abc"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v, want %v", got, err, want)
	}
	want := []string{"b", "many", "b", "a"}
	if !slices.Equal(peers.heard, want) {
		t.Errorf("peers heard %v", peers.heard)
	}
}

// once is content that can be opened a single time.
type once struct {
	text  string
	opens int
}

func (o *once) Open(string) (io.ReadCloser, int64, error) {
	if o.opens++; o.opens > 1 {
		return nil, 0, errors.New("opened again")
	}
	return io.NopCloser(strings.NewReader(o.text)), int64(len(o.text)), nil
}

func TestPackedOnceForAll(t *testing.T) {
	var p Packs
	defer p.Close()
	text := &once{text: strings.Repeat("all alike ", 10_000)}
	for range 3 {
		r, err := p.packed("x", text)
		if err != nil || r == nil {
			t.Fatal(r, err)
		}
		z, err := zstd.NewReader(r)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(z)
		z.Close()
		if err != nil || string(got) != text.text {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	}
	if r, err := p.packed("y", &once{text: "short"}); r != nil || err != nil {
		t.Errorf("what gains nothing was packed: %v, %v", r, err)
	}
}

// TestSideEndsAlone: a side exchange that is given up takes nothing with it.
func TestSideEndsAlone(t *testing.T) {
	a := agentFile(t)
	s, target, _ := setup(t)
	var hangs atomic.Bool
	answers := fakeAgent(true, 0)
	s.run = func(command string, ch ssh.Channel) uint32 {
		if hangs.Load() {
			<-t.Context().Done()
			return 0
		}
		return answers(command, ch)
	}
	c, err := Connect(t.Context(), s, target)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	x, err := c.Exchange(t.Context(), a, nil)
	if err != nil {
		t.Fatal(err)
	}
	hangs.Store(true)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if side, err := c.Side(ctx, a); err == nil {
		side.Close()
		t.Error("a machine that says nothing gave a side exchange")
	}
	hangs.Store(false)
	side, err := c.Side(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	defer side.Close()
	for _, e := range []*Exchange{side, x} {
		if err := e.Do(t.Context(), Call{Op: spec.OpFacts}); err != nil {
			t.Error(err)
		}
	}
}
