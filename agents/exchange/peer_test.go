package exchange

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"popfleet/agents/share"
	"popfleet/playbooks/spec"
)

// passer is a node that passes content on; what lies under a digest is the test's affair.
type passer struct {
	dir    string
	shared spec.Shared
	secret []byte
}

func newPasser(t *testing.T) *passer {
	t.Helper()
	p := &passer{dir: t.TempDir(), secret: make([]byte, 32)}
	v, shared, err := share.Start(spec.Share{Version: 1, Secret: p.secret, Seconds: 60},
		[]share.Place{{Whole: filepath.Join(p.dir, "%s")}}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	p.shared = shared
	return p
}

func (p *passer) put(t *testing.T, digest, data string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(p.dir, digest), []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
}

// names is the header that sends a receiver to the peer.
func (p *passer) names(b spec.Blob) spec.BlobHeader {
	return spec.BlobHeader{Blob: b.SHA256, SizeBytes: b.SizeBytes, Encoding: spec.EncodingPeer, Peer: &spec.Peer{Node: "fsn-1",
		Addr: fmt.Sprintf("127.0.0.1:%d", p.shared.Port), Certificate: p.shared.Certificate, Receiver: "fsn-2",
		Token: spec.ShareToken(p.secret, b.SHA256, "fsn-2"), StallSec: 5}}
}

// talk serves one fetch request; answer writes what the operator says to each need.
func talk(t *testing.T, h Handler, answer func(in io.Writer, need spec.Event)) (last spec.Event, needs []spec.Event) {
	t.Helper()
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := Serve(t.Context(), inR, outW, map[string]Handler{"fetch": h}, slog.New(slog.DiscardHandler))
		outW.Close()
		done <- err
	}()
	fmt.Fprintln(inW, `{"v":1,"id":1,"op":"fetch"}`)
	lines := bufio.NewScanner(outR)
	for lines.Scan() {
		var e spec.Event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		switch e.Kind {
		case spec.KindNeed:
			needs = append(needs, e)
			answer(inW, e)
		case spec.KindResult, spec.KindError:
			last = e
			inW.Close()
		}
	}
	if err := <-done; err != nil {
		t.Errorf("Serve: %v", err)
	}
	return last, needs
}

func header(in io.Writer, h spec.BlobHeader) {
	line, _ := json.Marshal(h)
	in.Write(append(line, '\n'))
}

// direct sends the rest of a blob over the operator's own stream.
func direct(in io.Writer, b spec.Blob, content string) {
	header(in, spec.BlobHeader{Blob: b.SHA256, SizeBytes: b.SizeBytes})
	io.WriteString(in, content[b.Offset:])
}

// storing refuses what is not what its digest says, as apply does.
func storing(contents []string, stored *[]string) Handler {
	return func(ctx context.Context, _ json.RawMessage, s Session) (any, error) {
		var blobs []spec.Blob
		for _, c := range contents {
			blobs = append(blobs, spec.Blob{SHA256: sha(c), SizeBytes: int64(len(c))})
		}
		return nil, s.Fetch(ctx, blobs, func(b spec.Blob, r io.Reader) error {
			data, err := io.ReadAll(r)
			if err == nil && sha(string(data)) != b.SHA256 {
				err = wrongDigest(b, sha(string(data)))
			}
			if err == nil {
				*stored = append(*stored, string(data))
			}
			return err
		})
	}
}

var (
	big   = strings.Repeat("all of the image ", 50_000)
	small = "a binary"
)

func TestPeerDelivers(t *testing.T) {
	p := newPasser(t)
	p.put(t, sha(big), big)
	p.put(t, sha(small), small)
	var stored []string
	last, needs := talk(t, storing([]string{small, big}, &stored), func(in io.Writer, need spec.Event) {
		for _, b := range need.Blobs {
			header(in, p.names(b))
		}
	})
	if last.Kind != spec.KindResult || len(needs) != 1 || strings.Join(stored, "") != small+big {
		t.Errorf("%+v, %d needs, stored %d", last, len(needs), len(stored))
	}
}

// TestPeerBreaksOff: the rest of the last blob comes from the operator, and nobody starts over.
func TestPeerBreaksOff(t *testing.T) {
	p := newPasser(t)
	p.put(t, sha(big), big[:300_000])
	var stored []string
	last, needs := talk(t, storing([]string{big}, &stored), func(in io.Writer, need spec.Event) {
		if need.Blobs[0].Offset == 0 {
			header(in, p.names(need.Blobs[0]))
			return
		}
		direct(in, need.Blobs[0], big)
	})
	if last.Kind != spec.KindResult || len(stored) != 1 || stored[0] != big {
		t.Fatalf("%+v, stored %d", last, len(stored))
	}
	if len(needs) != 2 || needs[1].Blobs[0].Offset == 0 || needs[1].Blobs[0].Direct {
		t.Errorf("needs: %+v", needs)
	}
}

// TestPeerLacksTheFirst: a blob that is not the last is asked for again as a whole, after the others.
func TestPeerLacksTheFirst(t *testing.T) {
	p := newPasser(t)
	p.put(t, sha(small), small[:3])
	var stored []string
	last, needs := talk(t, storing([]string{small, big}, &stored), func(in io.Writer, need spec.Event) {
		if len(need.Blobs) == 2 {
			header(in, p.names(need.Blobs[0]))
			direct(in, need.Blobs[1], big)
			return
		}
		direct(in, need.Blobs[0], small)
	})
	if last.Kind != spec.KindResult || len(needs) != 2 || strings.Join(stored, "") != big+small {
		t.Errorf("%+v, %d needs, stored %d", last, len(needs), len(stored))
	}
}

// TestPeerLies: nothing but the blob's own content is ever stored, and the operator is asked to send it himself.
func TestPeerLies(t *testing.T) {
	p := newPasser(t)
	p.put(t, sha(small), "a bInary")
	var stored []string
	last, needs := talk(t, storing([]string{small}, &stored), func(in io.Writer, need spec.Event) {
		if !need.Blobs[0].Direct {
			header(in, p.names(need.Blobs[0]))
			return
		}
		direct(in, need.Blobs[0], small)
	})
	if last.Kind != spec.KindResult || len(needs) != 2 || len(stored) != 1 || stored[0] != small {
		t.Errorf("%+v, %d needs, stored %q", last, len(needs), stored)
	}
}

// TestPeerLiesToAStreamer: who took the bytes as they came hears of it, and its next fetch is the operator's own.
func TestPeerLiesToAStreamer(t *testing.T) {
	p := newPasser(t)
	p.put(t, sha(small), "a bInary")
	b := spec.Blob{SHA256: sha(small), SizeBytes: int64(len(small))}
	var first error
	streamer := func(ctx context.Context, _ json.RawMessage, s Session) (any, error) {
		var taken bytes.Buffer
		take := func(_ spec.Blob, r io.Reader) error { taken.Reset(); _, err := io.Copy(&taken, r); return err }
		first = s.Fetch(ctx, []spec.Blob{b}, take)
		err := s.Fetch(ctx, []spec.Blob{b}, take)
		return taken.String(), err
	}
	last, needs := talk(t, streamer, func(in io.Writer, need spec.Event) {
		if !need.Blobs[0].Direct {
			header(in, p.names(b))
			return
		}
		direct(in, need.Blobs[0], small)
	})
	if first == nil || !strings.Contains(first.Error(), "passed on by fsn-1") {
		t.Errorf("the lie was told as %v", first)
	}
	if last.Kind != spec.KindResult || string(last.Data) != `"a binary"` || len(needs) != 2 {
		t.Errorf("%+v %s, %d needs", last, last.Data, len(needs))
	}
}

// TestNoEndOfPeers: an operator that names dead peers for ever is asked without them in the end.
func TestNoEndOfPeers(t *testing.T) {
	p := newPasser(t)
	p.put(t, sha(small), "")
	var stored []string
	last, needs := talk(t, storing([]string{small}, &stored), func(in io.Writer, need spec.Event) {
		if strings.Contains(strings.Join(need.Accept, " "), spec.EncodingPeer) {
			header(in, p.names(need.Blobs[0]))
			return
		}
		direct(in, need.Blobs[0], small)
	})
	if last.Kind != spec.KindResult || len(needs) != maxRounds+1 || len(stored) != 1 {
		t.Errorf("%+v, %d needs, stored %d", last, len(needs), len(stored))
	}
}
