package stack

import (
	"context"
	"crypto/sha256"
	"maps"
	"slices"
	"strings"
	"sync"

	"popfleet/provision/provider"
)

// recorder keeps what our provider saw and did in this run. The provider lives in this process, so errors keep their
// type and outputs need no second call of the CLI.
type recorder struct {
	progress Progress

	mu      sync.Mutex
	servers map[string]ServerOutput // by node; guarded by mu
	away    map[string]bool         // nodes whose servers are gone; guarded by mu
	errors  map[string]error        // by key; guarded by mu
	changes Changes                 // guarded by mu
	left    map[string][]string     // by node; guarded by mu
}

func newRecorder(p Progress) *recorder {
	if p == nil {
		p = func(Event) {}
	}
	return &recorder{progress: p, servers: map[string]ServerOutput{}, away: map[string]bool{}, errors: map[string]error{}, left: map[string][]string{}}
}

// begin announces an operation on key and returns a context whose waits are reported, and a function to end it with.
func (r *recorder) begin(ctx context.Context, key, phase string) (context.Context, func(error) error) {
	node := nodeOf(key)
	r.progress(Event{Node: node, Key: key, Phase: phase})
	ctx = provider.WithWaiting(ctx, func(waiting string) {
		r.progress(Event{Node: node, Key: key, Phase: phase, Waiting: waiting})
	})
	return ctx, func(err error) error {
		if err != nil {
			r.fail(key, err)
			r.progress(Event{Node: node, Key: key, Phase: "failed", Err: err})
			return err
		}
		r.progress(Event{Node: node, Key: key, Phase: "done"})
		return nil
	}
}

func (r *recorder) fail(key string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.errors[key] == nil {
		r.errors[key] = err
	}
}

func (r *recorder) change(c Change) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.changes = append(r.changes, c)
}

func (r *recorder) server(node string, s ServerOutput) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.servers[node] = s
}

// remains keeps what a person has still to do.
func (r *recorder) remains(node string, steps []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(steps) > 0 {
		r.left[node] = steps
	}
}

func (r *recorder) gone(node string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.servers, node)
	r.away[node] = true
}

func (r *recorder) isGone(node string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.away[node]
}

// result sorts what was recorded by node. A wanted server that neither exists nor failed was not attempted.
func (r *recorder) result(w Wanted) Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	res := Result{Servers: maps.Clone(r.servers), Errors: map[string]error{}, Changes: slices.Clone(r.changes),
		Remains: maps.Clone(r.left), Unnamed: map[string]error{}, Unreachable: map[string]error{}}
	for _, key := range sortedKeys(r.errors) {
		node := nodeOf(key)
		if strings.HasPrefix(key, "reverse") {
			res.Unnamed[node] = r.errors[key]
			continue
		}
		if res.Errors[node] == nil {
			res.Errors[node] = r.errors[key]
		}
	}
	for _, node := range w.nodes() {
		if _, ok := res.Servers[node]; !ok && res.Errors[node] == nil {
			res.Errors[node] = ErrSkipped
		}
	}
	return res
}

// stillThere names what a destroy left: a server is not even attempted when a name that points to it could not be taken
// back, and whoever forgets its node then loses it from sight.
func (r Result) stillThere(servers, targets []string, gone func(string) bool) {
	for _, node := range servers {
		if len(targets) > 0 && !slices.Contains(targets, node) || gone(node) || r.Errors[node] != nil {
			continue
		}
		if r.Errors[node] = r.Unnamed[node]; r.Errors[node] == nil {
			r.Errors[node] = ErrSkipped
		}
	}
}

// nodeOf is the node that a key belongs to, or "".
func nodeOf(key string) string {
	kind, node, _ := strings.Cut(key, ".")
	switch kind {
	case "server", "reverse4", "reverse6":
		return node
	}
	return ""
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func sha256sum(b []byte) []byte {
	sum := sha256.Sum256(b)
	return sum[:]
}

func (r *recorder) failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.errors) > 0
}
