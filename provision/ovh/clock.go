package ovh

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// clock knows how far our clock is from OVH's, which refuses signatures that are out of time.
type clock struct {
	asking chan struct{} // holds one token while someone asks, so that the others can give up waiting

	mu     sync.Mutex
	ahead  time.Duration // ours minus OVH's; guarded by mu
	rounds int           // how often it was asked for; guarded by mu
}

func newClock() *clock { return &clock{asking: make(chan struct{}, 1)} }

// refresh asks for OVH's time, unless someone has done so since the round that the caller saw; round 0 asks only when
// the time is not known at all.
func (c *clock) refresh(ctx context.Context, seen int, ask func(context.Context) (time.Time, error)) error {
	select {
	case c.asking <- struct{}{}:
		defer func() { <-c.asking }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if c.round() > seen {
		return nil
	}
	theirs, err := ask(ctx)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead = time.Since(theirs)
	c.rounds++
	return nil
}

func (c *clock) round() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rounds
}

// theirs is the moment t of our clock on OVH's.
func (c *clock) theirs(t time.Time) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return t.Add(-c.ahead)
}

// ours is the moment t of OVH's clock on ours; no time stays none.
func (c *clock) ours(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return t.Add(c.ahead)
}

func (d *Driver) serverTime(ctx context.Context) (time.Time, error) {
	var seconds int64
	err := d.exchange(ctx, request{method: http.MethodGet, path: authTime, out: &seconds, open: true})
	if err != nil {
		return time.Time{}, err
	}
	if seconds < 1e9 || seconds > 1e11 {
		return time.Time{}, fmt.Errorf("OVH says that its time is %d", seconds)
	}
	return time.Unix(seconds, 0), nil
}

const authTime = "/auth/time"

// timed answers go-ovh's own question for the time from our clock. go-ovh asks once per client and without a context, so
// that nothing could stop it; our clients live for one call. The real question goes out unsigned and past this.
type timed struct {
	next  http.RoundTripper
	clock *clock
}

func (t timed) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, authTime) {
		return t.next.RoundTrip(r)
	}
	now := strconv.FormatInt(t.clock.theirs(time.Now()).Unix(), 10)
	return &http.Response{
		Status: "200 OK", StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"application/json"}}, Request: r,
		Body: io.NopCloser(bytes.NewReader([]byte(now))), ContentLength: int64(len(now)),
	}, nil
}
