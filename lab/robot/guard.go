package robot

import (
	"crypto/subtle"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// strikesAllowed: "the IP … will be blocked for 10 minutes after 3 failed login attempts", says the documentation.
const strikesAllowed = 3

// Limits are the provider's request limits by class, per hour, and order_post per day. The classes are ours: one for the
// reading and one for the writing calls where they differ.
func Limits() map[string]int {
	return map[string]int{
		"server": 200, "ip": 5000, "reset": 500, "reset_post": 50, "wol": 500, "wol_post": 10, "boot": 500,
		"rdns": 500, "key": 500, "key_write": 200, "order": 500, "order_post": 20,
	}
}

// guard stands before every call: who may come in, and how often.
type guard struct {
	user, password string
	limits         map[string]int
	block          time.Duration

	mu      sync.Mutex
	failed  map[string][]time.Time // guarded by mu: wrong passwords, by source
	blocked map[string]time.Time   // guarded by mu: until when, by source
	windows map[string]*window     // guarded by mu: by class
}

type window struct {
	began time.Time
	used  int
}

func newGuard(opt Options) *guard {
	g := &guard{user: opt.User, password: opt.Password, limits: Limits(), block: opt.LockOut,
		failed: map[string][]time.Time{}, blocked: map[string]time.Time{}, windows: map[string]*window{}}
	for class, n := range opt.RatePerHour {
		g.limits[class] = n
	}
	if g.block == 0 {
		g.block = Realistic(lockOutTime)
		if opt.Speed > 0 {
			g.block = time.Duration(float64(g.block) / opt.Speed)
		}
	}
	return g
}

func source(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

func (g *guard) isBlocked(from string, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return now.Before(g.blocked[from])
}

// shut blocks a source for d, or as long as wrong passwords do.
func (g *guard) shut(from string, d time.Duration, now time.Time) {
	if d == 0 {
		d = g.block
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.blocked[from] = now.Add(d)
}

// admit checks the password and counts wrong ones.
func (g *guard) admit(r *http.Request, now time.Time) bool {
	user, password, _ := r.BasicAuth()
	ok := subtle.ConstantTimeCompare([]byte(user+"\x00"+password), []byte(g.user+"\x00"+g.password)) == 1
	g.mark(source(r), ok, now)
	return ok
}

// mark counts a wrong password. A right one in between forgives none: the documentation speaks of attempts, not of a row.
func (g *guard) mark(from string, ok bool, now time.Time) {
	if ok {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	recent := slices.DeleteFunc(g.failed[from], func(t time.Time) bool { return now.Sub(t) >= g.block })
	g.failed[from] = append(recent, now)
	if len(recent)+1 >= strikesAllowed {
		delete(g.failed, from)
		g.blocked[from] = now.Add(g.block)
	}
}

// intervalOf is what a class's limit is counted over.
func intervalOf(class string) time.Duration {
	if class == "order_post" {
		return 24 * time.Hour
	}
	return time.Hour
}

// spend uses one request of a class, or says how many there are and in how many seconds. The provider does not tell how
// it counts; here a window begins with its first request and is over as a whole, the hardest reading.
func (g *guard) spend(class string, now time.Time) *apiError {
	interval := intervalOf(class)
	g.mu.Lock()
	defer g.mu.Unlock()
	w := g.windows[class]
	if w == nil || now.Sub(w.began) >= interval {
		w = &window{began: now}
		g.windows[class] = w
	}
	if w.used >= g.limits[class] {
		return limited(g.limits[class], int(interval.Seconds()))
	}
	w.used++
	return nil
}

// Unblock lets a blocked source in again at once.
func (r *Robot) Unblock() {
	r.guard.mu.Lock()
	defer r.guard.mu.Unlock()
	clear(r.guard.blocked)
	clear(r.guard.failed)
}

// Spent is how many requests of each class were used in the window that runs.
func (r *Robot) Spent() map[string]int {
	r.guard.mu.Lock()
	defer r.guard.mu.Unlock()
	out := map[string]int{}
	for class, w := range r.guard.windows {
		out[class] = w.used
	}
	return out
}
