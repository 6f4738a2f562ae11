package web

import (
	"math"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"
)

// maxClients bounds the memory of a limiter. Past it, the clients that have been quiet longest are forgotten.
const maxClients = 20000

// limiter is a token bucket per client.
type limiter struct {
	perSecond float64
	burst     float64
	now       func() time.Time

	mu      sync.Mutex
	buckets map[string]bucket // guarded by mu
}

type bucket struct {
	tokens float64
	at     time.Time
}

func newLimiter(perSecond float64, burst int) *limiter {
	return &limiter{perSecond: perSecond, burst: float64(burst), now: time.Now, buckets: map[string]bucket{}}
}

// take spends a token of who, or says after how long there is one.
func (l *limiter) take(who string) (wait time.Duration, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	b, known := l.buckets[who]
	if !known {
		if len(l.buckets) >= maxClients {
			l.forget(now)
		}
		b = bucket{tokens: l.burst, at: now}
	}
	b.tokens = min(l.burst, b.tokens+max(0, now.Sub(b.at).Seconds())*l.perSecond)
	b.at = now
	if ok = b.tokens >= 1; ok {
		b.tokens--
	} else {
		wait = time.Duration((1 - b.tokens) / l.perSecond * float64(time.Second))
	}
	l.buckets[who] = b
	return wait, ok
}

// forget drops those whose bucket is full again: they lose nothing. When too many are left, it drops all, once.
func (l *limiter) forget(now time.Time) {
	full := time.Duration(l.burst / l.perSecond * float64(time.Second))
	for who, b := range l.buckets {
		if now.Sub(b.at) >= full {
			delete(l.buckets, who)
		}
	}
	if len(l.buckets) >= maxClients {
		clear(l.buckets)
	}
}

// counter bounds how much one client holds at a time.
type counter struct {
	limit int

	mu   sync.Mutex
	held map[string]int // guarded by mu
}

func newCounter(limit int) *counter { return &counter{limit: limit, held: map[string]int{}} }

func (c *counter) take(who string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held[who] >= c.limit {
		return false
	}
	c.held[who]++
	return true
}

func (c *counter) give(who string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held[who]--; c.held[who] <= 0 {
		delete(c.held, who)
	}
}

// limited answers 429 to a client that writes too fast.
func (s *Server) limited(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if wait, ok := s.writes.take(client(r)); !ok {
			w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
			tooMany(w, "too many requests from your address; wait a moment")
			return
		}
		next.ServeHTTP(w, r)
	})
}

func tooMany(w http.ResponseWriter, why string) {
	if w.Header().Get("Retry-After") == "" {
		w.Header().Set("Retry-After", "5")
	}
	reply(w, http.StatusTooManyRequests, failure{Error: why})
}

// client names who sent the request. The transport in front speaks from this machine and says whom it speaks for; what
// anyone else says in that header is not believed. The last entry is the transport's own.
func client(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		return host
	}
	if a.IsLoopback() {
		a = forwarded(r, a)
	}
	return network(a)
}

func forwarded(r *http.Request, otherwise netip.Addr) netip.Addr {
	all := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	a, err := netip.ParseAddr(strings.TrimSpace(all[len(all)-1]))
	if err != nil {
		return otherwise
	}
	return a
}

func network(a netip.Addr) string {
	a = a.Unmap().WithZone("")
	if a.Is4() {
		return a.String()
	}
	p, err := a.Prefix(64)
	if err != nil {
		return a.String()
	}
	return p.String()
}
