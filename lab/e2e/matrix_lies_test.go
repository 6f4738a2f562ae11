package e2e

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"sync"
)

// Lies that any API can tell, whatever it is about.
const (
	stale     = "stale"     // a question is answered with what was true before, as by a replica that lags: a boot time that did not change, a boot id of before
	swallowed = "swallowed" // a change is acknowledged and never made
)

// liar stands in front of a simulator and answers untruly where a probe says so.
type liar struct {
	mu     sync.Mutex
	probe  *probe                     // guarded by mu: of the run in progress; nil between runs
	before map[string]*recordedAnswer // guarded by mu: the last answer but one that differed, by question
	now    map[string]*recordedAnswer // guarded by mu
}

type recordedAnswer struct {
	status int
	header http.Header
	body   []byte
}

func (l *liar) watch(p *probe) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.probe = p
}

func (l *liar) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodGet:
			l.answer(w, r, next)
		case http.MethodPut: // OVH's, which answer null: the only change whose answer can be made up
			if l.strikes("call "+r.Method+" "+generic(r.URL.Path), swallowed) {
				w.Header().Set("Content-Type", "application/json")
				_, _ = w.Write([]byte("null")) // the client may be gone
				return
			}
			next.ServeHTTP(w, r)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

func (l *liar) strikes(where, kind string) bool {
	l.mu.Lock()
	p := l.probe
	l.mu.Unlock()
	return p != nil && p.at(where, kind) != ""
}

// answer asks the simulator, and tells what it said before the world changed where the probe says so.
func (l *liar) answer(w http.ResponseWriter, r *http.Request, next http.Handler) {
	rec := httptest.NewRecorder()
	next.ServeHTTP(rec, r)
	told := &recordedAnswer{rec.Code, rec.Header(), rec.Body.Bytes()}
	if old := l.remember(r.URL.RequestURI(), told); old != nil && l.strikes("call "+r.Method+" "+generic(r.URL.Path), stale) {
		told = old
	}
	for k, v := range told.header {
		w.Header()[k] = v
	}
	w.WriteHeader(told.status)
	_, _ = w.Write(told.body) // the client may be gone
}

// remember keeps an answer and returns the one before it that differs, nil when there is none.
func (l *liar) remember(question string, told *recordedAnswer) *recordedAnswer {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.now == nil {
		l.now, l.before = map[string]*recordedAnswer{}, map[string]*recordedAnswer{}
	}
	if last := l.now[question]; last != nil && !bytes.Equal(last.body, told.body) && last.status < 500 {
		l.before[question] = last
	}
	l.now[question] = told
	return l.before[question]
}
