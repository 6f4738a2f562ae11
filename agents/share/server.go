package share

import (
	"context"
	"crypto/hmac"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"popfleet/playbooks/spec"
)

const (
	maxReceivers   = 48               // at a time; a PoP is smaller
	maxConnections = 2 * maxReceivers // strangers may connect, and are turned away
	appearWithin   = 10 * time.Second // what the operator said is coming may not be in its file yet
	growWithin     = 60 * time.Second // silence of what is still being received
	writeWithin    = 30 * time.Second // for a receiver to take a piece
	followEvery    = 20 * time.Millisecond
	maxShareSec    = 12 * 3600
	minSecret      = 16 // bytes
	maxBlobBytes   = 8 << 30
)

// Server listens until Close.
type Server struct {
	places []Place
	secret []byte
	log    *slog.Logger
	slots  chan struct{}
	http   *http.Server
	limit  *time.Timer
	served sync.WaitGroup
}

// Start listens as s says. The caller closes the server.
func Start(s spec.Share, places []Place, log *slog.Logger) (*Server, spec.Shared, error) {
	if err := check(s); err != nil {
		return nil, spec.Shared{}, err
	}
	cert, name, err := oneTimeCertificate()
	if err != nil {
		return nil, spec.Shared{}, err
	}
	l, err := net.Listen("tcp", net.JoinHostPort("", strconv.Itoa(s.Port)))
	if err != nil {
		return nil, spec.Shared{}, fmt.Errorf("pass content on: %w", err)
	}
	v := &Server{places: places, secret: s.Secret, log: log, slots: make(chan struct{}, maxReceivers)}
	v.http = &http.Server{
		Handler: v, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 10 * time.Second, MaxHeaderBytes: 8 << 10,
		ErrorLog:     slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){}, // HTTP/1.1: one stream a connection is all there is
	}
	config := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13}
	v.served.Go(func() { _ = v.http.Serve(tls.NewListener(newBounded(l, maxConnections), config)) }) // ends by Close
	v.limit = time.AfterFunc(time.Duration(s.Seconds)*time.Second, func() { _ = v.http.Close() })
	return v, spec.Shared{Port: l.Addr().(*net.TCPAddr).Port, Certificate: name}, nil
}

func check(s spec.Share) error {
	bad := ""
	switch {
	case s.Version != 1:
		bad = "version must be 1"
	case len(s.Secret) < minSecret:
		bad = "the secret is too short"
	case s.Port < 0 || s.Port > 65535:
		bad = "port is out of bounds"
	case s.Seconds < 1 || s.Seconds > maxShareSec:
		bad = fmt.Sprintf("seconds must be 1 to %d", maxShareSec)
	}
	if bad != "" {
		return &spec.Error{Code: spec.CodeBadSpec, Message: "share spec: " + bad}
	}
	return nil
}

// Close cuts what is under way and waits for it.
func (v *Server) Close() {
	v.limit.Stop()
	_ = v.http.Close() // nothing is left to do about it
	v.served.Wait()
}

// asked is one request, taken apart and believed to come from whom the operator sent.
type asked struct {
	digest string
	offset int64
	size   int64
	who    string
}

const pathPrefix = "/blob/"

// ServeHTTP answers GET /blob/<sha256>?offset=N&size=N with the bytes from offset to size.
func (v *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a, ok := v.admit(r)
	if !ok {
		http.Error(w, "no", http.StatusForbidden)
		return
	}
	select {
	case v.slots <- struct{}{}:
		defer func() { <-v.slots }()
	default:
		http.Error(w, "busy", http.StatusServiceUnavailable)
		return
	}
	f, growing, err := v.open(r.Context(), a.digest)
	if err != nil {
		http.Error(w, "not here", http.StatusNotFound)
		return
	}
	defer f.Close()
	v.log.Info("passing on", "blob", a.digest[:12], "to", a.who, "offset", a.offset)
	w.Header().Set("Content-Length", strconv.FormatInt(a.size-a.offset, 10))
	if err := send(r.Context(), w, f, a, growing); err != nil {
		v.log.Info("passing on ended early", "blob", a.digest[:12], "to", a.who, "error", err)
		panic(http.ErrAbortHandler) // the receiver must see a cut, not an end
	}
}

// admit parses a request of a stranger; it is nobody until its token fits.
func (v *Server) admit(r *http.Request) (asked, bool) {
	a := asked{digest: strings.TrimPrefix(r.URL.Path, pathPrefix), who: r.Header.Get("Fleet-Node")}
	raw, err := hex.DecodeString(a.digest)
	if err != nil || len(raw) != 32 || a.digest != strings.ToLower(a.digest) || r.Method != http.MethodGet || len(r.URL.RawQuery) > 100 {
		return a, false
	}
	q := r.URL.Query()
	var errs [2]error
	a.offset, errs[0] = strconv.ParseInt(q.Get("offset"), 10, 64)
	a.size, errs[1] = strconv.ParseInt(q.Get("size"), 10, 64)
	if errors.Join(errs[:]...) != nil || a.offset < 0 || a.size < a.offset || a.size > maxBlobBytes {
		return a, false
	}
	want := spec.ShareToken(v.secret, a.digest, a.who)
	token, isBearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	return a, isBearer && hmac.Equal([]byte(token), []byte(want))
}

// open finds a blob, waiting a little for one that is on its way.
func (v *Server) open(ctx context.Context, digest string) (f *os.File, growing bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, appearWithin)
	defer cancel()
	for {
		for _, p := range v.places {
			if f, err = os.Open(fmt.Sprintf(p.Whole, digest)); err == nil {
				return f, false, nil
			}
			if p.Growing == "" {
				continue
			}
			if f, err := os.Open(fmt.Sprintf(p.Growing, digest)); err == nil {
				return f, true, nil
			}
		}
		if werr := pause(ctx); werr != nil {
			return nil, false, err
		}
	}
}

// send copies from a file that may still be growing.
func send(ctx context.Context, w http.ResponseWriter, f *os.File, a asked, growing bool) error {
	if _, err := f.Seek(a.offset, io.SeekStart); err != nil {
		return err
	}
	control := http.NewResponseController(w)
	buf := make([]byte, 128<<10)
	grown := time.Now()
	for left := a.size - a.offset; left > 0; {
		n, err := f.Read(buf[:min(int64(len(buf)), left)])
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if n == 0 {
			if err := mayGrow(f, growing, grown); err != nil {
				return err
			}
			if err := pause(ctx); err != nil {
				return err
			}
			continue
		}
		grown, left = time.Now(), left-int64(n)
		if err := control.SetWriteDeadline(grown.Add(writeWithin)); err != nil {
			return err
		}
		if _, err := w.Write(buf[:n]); err != nil {
			return err
		}
		if growing {
			_ = control.Flush() // the receiver unpacks meanwhile
		}
	}
	return nil
}

func mayGrow(f *os.File, growing bool, since time.Time) error {
	switch {
	case !growing:
		return io.ErrUnexpectedEOF
	case unlinked(f):
		return errors.New("what was being received was dropped")
	case time.Since(since) > growWithin:
		return errors.New("nothing more is being received")
	}
	return nil
}

func pause(ctx context.Context) error {
	t := time.NewTimer(followEvery)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
