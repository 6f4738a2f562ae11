package share

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"popfleet/playbooks/spec"
)

const (
	connectWithin = 5 * time.Second  // a node of the same PoP is milliseconds away; a firewall that drops is silent
	answerWithin  = 20 * time.Second // longer than a server waits for a file to appear
	slowest       = 16 << 10         // bytes a second; less, over a whole stall window, is not a transfer
	maxStallSec   = 600
)

// Fetch asks p for b from b.Offset on. The reader gives exactly the rest of the blob or an error, never a short end, and
// gives up a peer that sends nothing for a while, or next to nothing. Its bytes are not verified. The caller closes it.
func Fetch(ctx context.Context, p spec.Peer, b spec.Blob) (io.ReadCloser, error) {
	if p.StallSec < 1 || p.StallSec > maxStallSec {
		return nil, fmt.Errorf("peer %s: stall of %d s is out of bounds", p.Node, p.StallSec)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	transport := &http.Transport{
		DialContext:         (&net.Dialer{Timeout: connectWithin}).DialContext,
		TLSClientConfig:     pinned(p.Certificate),
		TLSHandshakeTimeout: connectWithin, ResponseHeaderTimeout: answerWithin, DisableKeepAlives: true, DisableCompression: true,
	}
	resp, err := transport.RoundTrip(request(ctx, p, b))
	if err != nil {
		cancel(nil)
		return nil, fmt.Errorf("peer %s: %w", p.Node, err)
	}
	if resp.StatusCode != http.StatusOK {
		cancel(nil)
		resp.Body.Close()
		return nil, fmt.Errorf("peer %s answers %s", p.Node, resp.Status)
	}
	r := &stream{body: resp.Body, left: b.SizeBytes - b.Offset, window: time.Duration(p.StallSec) * time.Second, peer: p.Node, ctx: ctx, cancel: cancel}
	r.since = time.Now()
	r.silence = time.AfterFunc(r.window, func() { cancel(fmt.Errorf("it sent nothing for %s", r.window)) })
	return r, nil
}

func request(ctx context.Context, p spec.Peer, b spec.Blob) *http.Request {
	q := url.Values{"offset": {strconv.FormatInt(b.Offset, 10)}, "size": {strconv.FormatInt(b.SizeBytes, 10)}}
	u := &url.URL{Scheme: "https", Host: p.Addr, Path: pathPrefix + b.SHA256, RawQuery: q.Encode()}
	r := (&http.Request{Method: http.MethodGet, URL: u, Host: "fleet", Header: http.Header{}}).WithContext(ctx)
	r.Header.Set("Authorization", "Bearer "+p.Token)
	r.Header.Set("Fleet-Node", p.Receiver)
	return r
}

// stream watches over one transfer. It is read by one goroutine.
type stream struct {
	body    io.ReadCloser
	left    int64
	peer    string
	ctx     context.Context // of the request: why it was given up
	cancel  context.CancelCauseFunc
	silence *time.Timer
	window  time.Duration
	since   time.Time // begin of the window
	got     int64     // in the window
}

func (s *stream) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	s.silence.Reset(s.window)
	n, err := s.body.Read(p[:min(int64(len(p)), s.left)])
	s.silence.Stop() // a reader that is busy elsewhere is no silence of the peer
	s.left, s.got = s.left-int64(n), s.got+int64(n)
	if s.left == 0 {
		return n, nil
	}
	if err == nil {
		err = s.tooSlow()
	}
	if err == nil {
		return n, nil
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if cause := context.Cause(s.ctx); cause != nil {
		err = cause
	}
	return n, fmt.Errorf("peer %s: %w", s.peer, err)
}

func (s *stream) tooSlow() error {
	took := time.Since(s.since)
	if took < s.window {
		return nil
	}
	if rate := int64(float64(s.got) / took.Seconds()); rate < slowest {
		return fmt.Errorf("it sends %d bytes a second", rate)
	}
	s.since, s.got = time.Now(), 0
	return nil
}

func (s *stream) Close() error {
	s.silence.Stop()
	s.cancel(nil)
	return s.body.Close()
}
