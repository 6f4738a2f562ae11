package daemon

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"

	"popfleet/agents/daemon/spool"
	"popfleet/internal/mtls"
)

// Pace is how fast a link goes on.
type Pace struct {
	FirstPause  time.Duration // after a failure; doubled up to MaxPause, each ±50 %
	MaxPause    time.Duration
	ReplayPause time.Duration // between batches of what a controller missed
	Timeout     time.Duration // of one exchange
}

func (p Pace) orDefault() Pace {
	set := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	set(&p.FirstPause, time.Second)
	set(&p.MaxPause, time.Minute)
	set(&p.ReplayPause, time.Second)
	set(&p.Timeout, 30*time.Second)
	return p
}

// Bounds of one batch. A controller takes 4 MiB and 1000 reports.
const (
	batchReports  = 60
	batchRawBytes = 3 << 20
	maxReplyBytes = 64 << 10
)

// link gives one controller what the spool has for it.
type link struct {
	address string
	spool   *spool.Spool
	log     *slog.Logger
	pace    Pace
	http    *http.Client
	woken   chan struct{}

	mu       sync.Mutex
	err      error     // why the newest exchange failed
	told     bool      // the first exchange's outcome was logged
	since    time.Time // of the present state
	acked    time.Time // newest success; zero: never
	ackedSeq uint64
	wanted   time.Duration
	refused  uint64 // reports the controller will not have
}

func newLink(address, fleet string, id *mtls.Identity, s *spool.Spool, log *slog.Logger, pace Pace) *link {
	tlsConfig := id.ClientAllow(func(n mtls.Name) error {
		if n.Fleet == fleet && n.Service == "controller" {
			return nil
		}
		return &mtls.PeerError{Want: "a controller of fleet " + fleet, Got: n.String()}
	})
	return &link{address: address, spool: s, log: log, pace: pace, woken: make(chan struct{}, 1), since: time.Now(),
		http: &http.Client{Timeout: pace.Timeout, Transport: &http.Transport{
			DialContext:     (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
			TLSClientConfig: tlsConfig, TLSHandshakeTimeout: 10 * time.Second, DisableCompression: true,
			MaxIdleConns: 1, MaxConnsPerHost: 1, IdleConnTimeout: 2 * time.Minute,
			ReadBufferSize: 4 << 10, WriteBufferSize: 4 << 10,
		}}}
}

// wake tells the link that there is something new; it never blocks.
func (l *link) wake() {
	select {
	case l.woken <- struct{}{}:
	default:
	}
}

// run sends until ctx ends: what is new at once, what was missed at a measured pace, and after failures with growing
// pauses that nothing cuts short.
func (l *link) run(ctx context.Context) {
	defer l.http.CloseIdleConnections()
	pause, limit := l.pace.FirstPause, batchReports
	for ctx.Err() == nil {
		batch := l.spool.Take(l.address, limit, batchRawBytes)
		if len(batch) == 0 {
			select {
			case <-ctx.Done():
			case <-l.woken:
			}
			continue
		}
		err := l.send(ctx, batch)
		if ctx.Err() != nil {
			return
		}
		limit = l.settle(batch, err, limit)
		l.note(err)
		if err == nil {
			pause = l.pace.FirstPause
			if left, _ := l.spool.Pending(l.address); left > 0 {
				wait(ctx, l.pace.ReplayPause, l.woken)
			}
			continue
		}
		wait(ctx, pause/2+rand.N(pause), nil)
		pause = min(2*pause, l.pace.MaxPause)
	}
}

// settle takes off the spool what the controller has. One that refuses a batch as malformed gets single reports, and
// loses those it refuses alone: a report nobody can read must not stop all others for ever. It returns the size of the
// next batch.
func (l *link) settle(batch []spool.Record, err error, limit int) int {
	refused := isRefusal(err)
	switch {
	case refused && len(batch) > 1:
		return 1
	case err != nil && !refused:
		return limit
	}
	if refused {
		l.log.Error("controller refuses a report; it is dropped", "controller", l.address, "error", err)
		l.mu.Lock()
		l.refused++
		l.mu.Unlock()
	}
	if err := l.spool.Done(l.address, batch); err != nil {
		l.log.Warn("spool could not be saved", "error", err)
	}
	return min(2*limit, batchReports)
}

// statusError is an answer other than 200.
type statusError struct {
	code int
	text string
}

func (e *statusError) Error() string {
	return fmt.Sprintf("answered %d %s: %s", e.code, http.StatusText(e.code), e.text)
}

func isRefusal(err error) bool {
	e, ok := err.(*statusError)
	return ok && (e.code == http.StatusBadRequest || e.code == http.StatusRequestEntityTooLarge || e.code == http.StatusUnprocessableEntity)
}

// reply is what a controller answers.
type reply struct {
	AckedSeq uint64    `json:"acked_seq"`
	Time     time.Time `json:"time"`
	Interval string    `json:"interval"`
}

func (l *link) send(ctx context.Context, batch []spool.Record) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+l.address+"/v1/reports", bytes.NewReader(body(batch)))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Content-Encoding", "gzip")
	res, err := l.http.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxReplyBytes))
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		return &statusError{res.StatusCode, firstLine(answer)}
	}
	var r reply
	if err := json.Unmarshal(answer, &r); err != nil {
		return fmt.Errorf("the answer: %w", err)
	}
	l.succeeded(r)
	return nil
}

func firstLine(b []byte) string {
	line, _, _ := bytes.Cut(bytes.TrimSpace(b), []byte("\n"))
	return string(line[:min(len(line), 200)])
}

// body is a gzip JSON array of the reports. Each record is a gzip member of its own, and members one after the other
// are one stream (RFC 1952, 2.2): nothing is unpacked to be sent.
func body(batch []spool.Record) []byte {
	var b bytes.Buffer
	pack := gzip.NewWriter(&b)
	for i, r := range batch {
		sep := ","
		if i == 0 {
			sep = "["
		}
		punctuation(pack, &b, sep)
		b.Write(r.Payload)
	}
	punctuation(pack, &b, "]")
	return b.Bytes()
}

// punctuation writes text as a member; writing to a buffer cannot fail.
func punctuation(pack *gzip.Writer, b *bytes.Buffer, text string) {
	pack.Reset(b)
	_, _ = io.WriteString(pack, text)
	_ = pack.Close()
}

func (l *link) succeeded(r reply) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acked, l.ackedSeq = time.Now(), r.AckedSeq
	if d, err := time.ParseDuration(r.Interval); err == nil {
		l.wanted = d
	}
}

// wantedInterval is what the controller asked for, 0 while it asked for nothing or is away.
func (l *link) wantedInterval() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return 0
	}
	return l.wanted
}

// note logs a change of state once.
func (l *link) note(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err != nil && (l.err == nil || l.err.Error() != err.Error()):
		l.log.Warn("controller does not take reports", "controller", l.address, "error", err)
	case err == nil && (l.err != nil || !l.told):
		l.log.Info("controller takes reports", "controller", l.address)
	}
	if (err == nil) != (l.err == nil) {
		l.since = time.Now()
	}
	l.err, l.told = err, true
}

// linkStatus is a link in the agent's status.
type linkStatus struct {
	Address   string     `json:"address"`
	Connected bool       `json:"connected"`
	Error     string     `json:"error,omitempty"`
	Since     time.Time  `json:"since"`
	LastAcked *time.Time `json:"last_acked"`
	AckedSeq  uint64     `json:"acked_seq"`
	Pending   uint64     `json:"pending"`
	Dropped   uint64     `json:"dropped"`
	Refused   uint64     `json:"refused"`
}

func (l *link) status() linkStatus {
	waiting, dropped := l.spool.Pending(l.address)
	l.mu.Lock()
	defer l.mu.Unlock()
	s := linkStatus{Address: l.address, Connected: l.err == nil && !l.acked.IsZero(), Since: l.since, AckedSeq: l.ackedSeq,
		Pending: waiting, Dropped: dropped, Refused: l.refused}
	if l.err != nil {
		s.Error = l.err.Error()
	}
	if !l.acked.IsZero() {
		acked := l.acked
		s.LastAcked = &acked
	}
	return s
}

// wait returns after d, or when woken, or when ctx ends.
func wait(ctx context.Context, d time.Duration, woken <-chan struct{}) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	case <-woken:
	}
}
