package share

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"popfleet/playbooks/spec"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is a server over a directory of its own.
type node struct {
	dir    string
	secret []byte
	shared spec.Shared
	server *Server
}

func startNode(t *testing.T) *node {
	t.Helper()
	n := &node{dir: t.TempDir(), secret: bytes.Repeat([]byte{7}, 32)}
	places := []Place{{Whole: filepath.Join(n.dir, "%s"), Growing: filepath.Join(n.dir, "%s.part")}}
	var err error
	n.server, n.shared, err = Start(spec.Share{Version: 1, Secret: n.secret, Seconds: 60}, places, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.server.Close)
	return n
}

func content(size int) ([]byte, spec.Blob) {
	b := make([]byte, size)
	_, _ = rand.Read(b)
	sum := sha256.Sum256(b)
	return b, spec.Blob{SHA256: hex.EncodeToString(sum[:]), SizeBytes: int64(size)}
}

// peer is how the operator introduces n to b's receiver.
func (n *node) peer(b spec.Blob) spec.Peer {
	return spec.Peer{Node: "fsn-1", Addr: fmt.Sprintf("127.0.0.1:%d", n.shared.Port), Certificate: n.shared.Certificate,
		Receiver: "fsn-2", Token: spec.ShareToken(n.secret, b.SHA256, "fsn-2"), StallSec: 5}
}

func (n *node) put(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(n.dir, name), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func fetchAll(ctx context.Context, p spec.Peer, b spec.Blob) ([]byte, error) {
	r, err := Fetch(ctx, p, b)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func TestWholeBlobFromAnyOffset(t *testing.T) {
	n := startNode(t)
	data, b := content(3 << 20)
	n.put(t, b.SHA256, data)
	for _, offset := range []int64{0, 1, 1 << 20, b.SizeBytes - 1} {
		b.Offset = offset
		got, err := fetchAll(t.Context(), n.peer(b), b)
		if err != nil || !bytes.Equal(got, data[offset:]) {
			t.Errorf("from %d: %d bytes, %v", offset, len(got), err)
		}
	}
}

// TestGrowingBlob: a receiver reads along while the content still arrives, and gets all of it.
func TestGrowingBlob(t *testing.T) {
	n := startNode(t)
	data, b := content(1 << 20)
	part := filepath.Join(n.dir, b.SHA256+".part")
	f, err := os.Create(part)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	write := func(p []byte) {
		if _, err := f.Write(p); err != nil {
			t.Error(err)
		}
	}
	write(data[:1000])
	r, err := Fetch(t.Context(), n.peer(b), b)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	first := make([]byte, 1000)
	if _, err := io.ReadFull(r, first); err != nil {
		t.Fatal(err) // what is there came before the rest existed
	}
	write(data[1000:])
	if err := os.Rename(part, strings.TrimSuffix(part, ".part")); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(append(first, rest...), data) {
		t.Errorf("%d bytes, %v", len(rest), err)
	}
}

// TestDroppedBlobIsCut: what its receiver gave up ends in an error, never in a short blob.
func TestDroppedBlobIsCut(t *testing.T) {
	n := startNode(t)
	data, b := content(1 << 20)
	n.put(t, b.SHA256+".part", data[:5000])
	r, err := Fetch(t.Context(), n.peer(b), b)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := io.ReadFull(r, make([]byte, 5000)); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(n.dir, b.SHA256+".part")); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err == nil {
		t.Errorf("%d bytes and no error", len(got))
	}
}

func TestStrangersGetNothing(t *testing.T) {
	n := startNode(t)
	data, b := content(100)
	other, o := content(100)
	n.put(t, b.SHA256, data)
	n.put(t, o.SHA256, other)
	for name, change := range map[string]func(*spec.Peer){
		"no token":         func(p *spec.Peer) { p.Token = "" },
		"another's token":  func(p *spec.Peer) { p.Receiver = "fsn-3" },
		"another blob's":   func(p *spec.Peer) { p.Token = spec.ShareToken(n.secret, o.SHA256, "fsn-2") },
		"another secret's": func(p *spec.Peer) { p.Token = spec.ShareToken([]byte("guess"), b.SHA256, "fsn-2") },
		"wrong server":     func(p *spec.Peer) { p.Certificate = strings.Repeat("0", 64) },
		"no stall":         func(p *spec.Peer) { p.StallSec = 0 },
	} {
		p := n.peer(b)
		change(&p)
		if got, err := fetchAll(t.Context(), p, b); err == nil {
			t.Errorf("%s: got %d bytes", name, len(got))
		}
	}
}

func TestPeerThatIsGone(t *testing.T) {
	n := startNode(t)
	_, b := content(10)
	p := n.peer(b)
	n.server.Close()
	if _, err := fetchAll(t.Context(), p, b); err == nil {
		t.Error("no error")
	}
}

// TestSilentPeer: a peer that takes the connection and says nothing is given up after the stall.
func TestSilentPeer(t *testing.T) {
	silent := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "10")
		w.WriteHeader(http.StatusOK)
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	silent.StartTLS()
	defer silent.Close()
	_, b := content(10)
	p := spec.Peer{Node: "fsn-1", Addr: silent.Listener.Addr().String(), Certificate: fingerprint(silent.Certificate().Raw), StallSec: 1}
	_, err := fetchAll(t.Context(), p, b)
	if err == nil || !strings.Contains(err.Error(), "sent nothing for 1s") {
		t.Errorf("got %v", err)
	}
}

func TestSpecIsChecked(t *testing.T) {
	secret := make([]byte, 32)
	for name, s := range map[string]spec.Share{
		"version": {Secret: secret, Seconds: 1}, "secret": {Version: 1, Seconds: 1}, "for ever": {Version: 1, Secret: secret},
		"port": {Version: 1, Secret: secret, Seconds: 1, Port: 70000},
	} {
		if v, _, err := Start(s, nil, slog.New(slog.DiscardHandler)); err == nil {
			v.Close()
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b := newBounded(l, 1)
	dial := func() net.Conn {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	first, second := dial(), dial()
	defer first.Close()
	defer second.Close()
	in, err := b.Accept()
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan net.Conn)
	go func() {
		c, err := b.Accept()
		if err == nil {
			defer c.Close()
		}
		accepted <- c
	}()
	// The second is closed by the server, which goes on to wait for a third.
	if _, err := second.Read(make([]byte, 1)); err == nil {
		t.Error("the second connection was kept")
	}
	in.Close()
	third := dial()
	defer third.Close()
	if c := <-accepted; c == nil {
		t.Error("no room after the first left")
	}
}

// FuzzAdmit: no request of a stranger is admitted, and none breaks the server.
func FuzzAdmit(f *testing.F) {
	_, b := content(10)
	f.Add("/blob/"+b.SHA256, "offset=0&size=10", "Bearer x", "fsn-2")
	f.Add("/blob/../../etc/shadow", "offset=-1&size=99999999999999999999", "", "")
	v := &Server{secret: make([]byte, 32), log: slog.New(slog.DiscardHandler)}
	f.Fuzz(func(t *testing.T, path, query, auth, who string) {
		r := &http.Request{Method: http.MethodGet, URL: &url.URL{Path: path, RawQuery: query}, Header: http.Header{"Authorization": {auth}, "Fleet-Node": {who}}}
		a, ok := v.admit(r)
		if ok && (len(a.digest) != 64 || a.offset < 0 || a.size < a.offset || auth != "Bearer "+spec.ShareToken(v.secret, a.digest, who)) {
			t.Fatalf("admitted %+v", a)
		}
	})
}

// TestSlowPeer: one that drips is given up, though it is never silent.
func TestSlowPeer(t *testing.T) {
	r := &stream{window: time.Second, since: time.Now().Add(-2 * time.Second), got: 1000}
	if err := r.tooSlow(); err == nil {
		t.Error("500 bytes a second are enough")
	}
	r = &stream{window: time.Second, since: time.Now().Add(-2 * time.Second), got: 1 << 20}
	if err := r.tooSlow(); err != nil {
		t.Error(err)
	}
}
