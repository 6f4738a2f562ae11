package hcloud

import (
	"net/http"
	"strconv"
	"sync"
	"time"
)

// rate is the request budget of a project: full at the start, refilled evenly over the hour.
type rate struct {
	perHour int

	mu   sync.Mutex
	left float64   // guarded by mu
	last time.Time // guarded by mu
}

func newRate(perHour int) *rate { return &rate{perHour: perHour, left: float64(perHour)} }

// take uses one request and writes the headers; false when none is left.
func (r *rate) take(h http.Header, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	perSecond := float64(r.perHour) / 3600
	if !r.last.IsZero() {
		r.left = min(float64(r.perHour), r.left+now.Sub(r.last).Seconds()*perSecond)
	}
	r.last = now
	ok := r.left >= 1
	if ok {
		r.left--
	}
	full := now.Add(time.Duration((float64(r.perHour) - r.left) / perSecond * float64(time.Second)))
	rateHeaders(h, r.perHour, int(r.left), full)
	return ok
}

func rateHeaders(h http.Header, limit, left int, reset time.Time) {
	h.Set("RateLimit-Limit", strconv.Itoa(limit))
	h.Set("RateLimit-Remaining", strconv.Itoa(left))
	h.Set("RateLimit-Reset", strconv.FormatInt(reset.Unix(), 10))
}
