package scripted

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"popfleet/lab/faults"
	"popfleet/lab/wire"
)

// Passing content on from machine to machine, read from docs/protocols/exchange.md.

// keptContent is what a machine can pass on: what it received and found to be what its digest says.
type keptContent struct {
	mu   sync.Mutex
	data map[string][]byte
	lies bool
}

// maxKeptBytes bounds one blob that is kept.
const maxKeptBytes = 64 << 20

func (k *keptContent) put(digest string, data []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.data == nil {
		k.data = map[string][]byte{}
	}
	k.data[digest] = data
}

func (k *keptContent) get(digest string) ([]byte, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	data, ok := k.data[digest]
	if ok && k.lies {
		data = bytes.Clone(data)
		data[len(data)/2] ^= 1
	}
	return data, ok
}

// LieToPeers makes the machine pass on content with one bit turned over.
func (m *Machine) LieToPeers() {
	m.kept.mu.Lock()
	defer m.kept.mu.Unlock()
	m.kept.lies = true
}

// sharing is an open ear for other machines.
type sharing struct {
	m      *Machine
	owner  *exchange
	port   int
	secret []byte
	config *tls.Config
}

func (x *exchange) share(s shareSpec) (any, error) {
	if s.Version != 1 || s.Port < 1 || len(s.Secret) < 16 || s.Seconds < 1 {
		return nil, &remoteError{"bad_spec", "share spec: version, port, secret or seconds", ""}
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	t := x509.Certificate{SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, &t, &t, public, private)
	if err != nil {
		return nil, err
	}
	cert := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}
	x.m.mu.Lock()
	defer x.m.mu.Unlock()
	if x.bt.sharing != nil {
		return nil, &remoteError{"failed", fmt.Sprintf("listen on port %d: %v", s.Port, syscall.EADDRINUSE), ""}
	}
	x.bt.sharing = &sharing{m: x.m, owner: x, port: s.Port, secret: s.Secret,
		config: &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13}}
	sum := sha256.Sum256(der)
	return shared{s.Port, hex.EncodeToString(sum[:])}, nil
}

// unshare ends what this exchange opened.
func (x *exchange) unshare() {
	x.m.mu.Lock()
	defer x.m.mu.Unlock()
	if x.bt.sharing != nil && x.bt.sharing.owner == x {
		x.bt.sharing = nil
	}
}

// serve answers one request on one connection.
func (s *sharing) serve(c net.Conn) {
	_ = c.SetDeadline(time.Now().Add(patience)) // in memory: can't fail
	t := tls.Server(c, s.config)
	r, err := http.ReadRequest(bufio.NewReader(t))
	if err != nil {
		return
	}
	digest := strings.TrimPrefix(r.URL.Path, "/blob/")
	offset, err1 := strconv.ParseInt(r.URL.Query().Get("offset"), 10, 64)
	size, err2 := strconv.ParseInt(r.URL.Query().Get("size"), 10, 64)
	status, data := http.StatusForbidden, []byte(nil)
	if errors.Join(err1, err2) == nil && r.Header.Get("Authorization") == "Bearer "+token(s.secret, digest, r.Header.Get("Fleet-Node")) {
		if data, status = s.await(digest), http.StatusNotFound; data != nil {
			status = http.StatusOK
			data = data[min(offset, int64(len(data))):min(size, int64(len(data)))]
		}
	}
	if status == http.StatusOK {
		s.m.ledger.count(&s.m.ledger.passed, digest)
	}
	answer := http.Response{StatusCode: status, ProtoMajor: 1, ProtoMinor: 1, ContentLength: int64(len(data)), Body: io.NopCloser(bytes.NewReader(data)), Close: true}
	_ = answer.Write(t) // the receiver may be gone
	_ = t.Close()
}

// await gives what is on its way a moment to come.
func (s *sharing) await(digest string) []byte {
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		if data, ok := s.m.kept.get(digest); ok {
			return data
		}
		if !pause(s.owner.bt.ctx, 5*time.Millisecond) {
			break
		}
	}
	return nil
}

func token(secret []byte, digest, receiver string) string {
	h := hmac.New(sha256.New, secret)
	fmt.Fprintf(h, "popfleet share 1\n%s\n%s", digest, receiver)
	return hex.EncodeToString(h.Sum(nil))
}

// fetch asks the operator for blobs and takes them from him, or from the machine that he names.
func (x *exchange) fetch(blobs []blob) error {
	for round := 0; len(blobs) > 0; round++ {
		accept := []string{"peer"}
		if round > 4 {
			accept = nil
		}
		x.emit(event{Kind: "need", Blobs: blobs, Accept: accept})
		var again []blob
		for _, b := range blobs {
			retry, err := x.fetchOne(b)
			if err != nil {
				return err
			}
			if retry != nil {
				again = append(again, *retry)
			}
		}
		blobs = again
	}
	return nil
}

// fetchOne returns the blob to ask for again when a peer did not deliver it.
func (x *exchange) fetchOne(b blob) (retry *blob, err error) {
	line, err := x.line()
	if err != nil {
		return nil, fmt.Errorf("blob header: %w", err)
	}
	var h blobHeader
	if err := json.Unmarshal(line, &h); err != nil || h.Blob != b.SHA256 || h.SizeBytes != b.SizeBytes || (h.Encoding == "peer") != (h.Peer != nil) {
		return nil, &remoteError{"bad_spec", fmt.Sprintf("blob header %.120q does not answer the need for %s (%d bytes)", line, b.SHA256, b.SizeBytes), ""}
	}
	if h.Peer == nil {
		x.m.ledger.count(&x.m.ledger.direct, b.SHA256)
		return nil, x.receive(x.in, b)
	}
	if b.Direct {
		return nil, &remoteError{"bad_spec", "a peer was named for a blob that was asked for without", ""}
	}
	if err := x.fromPeer(*h.Peer, b); err != nil {
		var wrong *remoteError
		b.Direct = errors.As(err, &wrong)
		x.emit(event{Kind: "log", Text: fmt.Sprintf("peer %s: %v", h.Peer.Node, err)})
		return &b, nil
	}
	return nil, nil
}

func (x *exchange) receive(from io.Reader, b blob) error {
	var kept bytes.Buffer
	h := sha256.New()
	into := io.Writer(h)
	if b.SizeBytes <= maxKeptBytes {
		kept.Grow(int(b.SizeBytes))
		into = io.MultiWriter(h, &kept)
	}
	n, err := io.CopyN(into, from, b.SizeBytes)
	if err != nil {
		return fmt.Errorf("blob %s: %d of %d bytes: %w", b.SHA256, n, b.SizeBytes, err)
	}
	x.emit(event{Kind: "progress", Step: "blobs", Done: n, Total: b.SizeBytes})
	if got := hex.EncodeToString(h.Sum(nil)); got != b.SHA256 {
		return &remoteError{"digest_mismatch", fmt.Sprintf("blob %s arrived as %s", b.SHA256, got), ""}
	}
	if b.SizeBytes <= maxKeptBytes {
		x.m.kept.put(b.SHA256, x.m.b.same(b.SHA256, kept.Bytes()))
	}
	return nil
}

func (x *exchange) fromPeer(p peer, b blob) error {
	ctx, cancel := context.WithTimeout(x.bt.ctx, time.Duration(p.StallSec)*time.Second)
	defer cancel()
	raw, err := x.m.dialPeer(ctx, p.Addr)
	if err != nil {
		return err
	}
	defer raw.Close()
	stop := context.AfterFunc(ctx, func() { wire.Cut(raw) })
	defer stop()
	c := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, VerifyConnection: func(s tls.ConnectionState) error {
		if sum := sha256.Sum256(s.PeerCertificates[0].Raw); hex.EncodeToString(sum[:]) != p.Certificate {
			return errors.New("another certificate than the operator named")
		}
		return nil
	}})
	r, err := http.NewRequest(http.MethodGet, fmt.Sprintf("https://fleet/blob/%s?offset=0&size=%d", b.SHA256, b.SizeBytes), nil)
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+p.Token)
	r.Header.Set("Fleet-Node", p.Receiver)
	if err := r.Write(c); err != nil {
		return err
	}
	answer, err := http.ReadResponse(bufio.NewReader(c), r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return errors.New(answer.Status)
	}
	return x.receive(answer.Body, b)
}

// dialPeer connects to another machine of the backend, through the network faults that are set for it.
func (m *Machine) dialPeer(ctx context.Context, addr string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, err
	}
	machines := m.b.Machines()
	i := slices.IndexFunc(machines, func(o *Machine) bool { return o.Address() == to.Addr() && !o.isDeleted() })
	if i < 0 {
		return nil, syscall.EHOSTUNREACH
	}
	o := machines[i].occasion(faults.Net)
	o.Port = to.Port()
	if f, struck := m.b.opt.Faults.Take(o); struck {
		if f.Kind == faults.Refuse {
			return nil, syscall.ECONNREFUSED
		}
		<-ctx.Done() // silent, or cut: nothing comes
		return nil, syscall.ETIMEDOUT
	}
	return machines[i].Dial(ctx, to.Port())
}

// same keeps one copy of equal contents for all machines.
func (b *Backend) same(digest string, data []byte) []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.content == nil {
		b.content = map[string][]byte{}
	}
	if have, ok := b.content[digest]; ok {
		return have
	}
	b.content[digest] = data
	return data
}

// PassedOn counts how often the machine passed a blob on to another.
func (l *Ledger) PassedOn() (n int) {
	l.do(func() {
		for _, c := range l.passed {
			n += c
		}
	})
	return n
}

// Direct counts the blobs that came from the operator himself.
func (l *Ledger) Direct() (n int) {
	l.do(func() {
		for _, c := range l.direct {
			n += c
		}
	})
	return n
}
