package stack

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"sync"

	"github.com/pulumi/pulumi-go-provider/infer"
	"github.com/pulumi/pulumi/sdk/v3/go/property"
)

// UnreachableError is why nothing was done to a provider's objects: what is there could not be asked, and that is never
// taken for "nothing is there". The state keeps what it knows of them.
type UnreachableError struct {
	Provider string
	Err      error
}

func (e *UnreachableError) Error() string {
	return e.Provider + " can't be asked what is there: " + e.Err.Error()
}

func (e *UnreachableError) Unwrap() error { return e.Err }

// held is what this run leaves as it is: all of a provider that does not say which servers there are, and single objects
// that could not be read. Both are known before the program runs, because a refresh comes first.
type held struct {
	mu        sync.Mutex
	providers map[string]error // guarded by mu
	objects   map[string]error // by key; guarded by mu
}

func newHeld(known map[string]error) *held {
	h := &held{providers: map[string]error{}, objects: map[string]error{}}
	for name, err := range known {
		h.provider(name, err)
	}
	return h
}

func (h *held) provider(name string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if unreachable := (*UnreachableError)(nil); !errors.As(err, &unreachable) {
		err = &UnreachableError{name, err}
	}
	h.providers[name] = err
}

func (h *held) object(key string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.objects[key] = err
}

// why is nil for what may be changed; "" is Hetzner Cloud, as in a state that an older version wrote.
func (h *held) why(at, key string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if at == "" {
		at = ProviderName
	}
	if err := h.providers[at]; err != nil {
		return err
	}
	return h.objects[key]
}

func (h *held) all() map[string]error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.providers)
}

// check lets held objects keep the inputs they have, whatever the fleet file says now: then nothing differs, and the
// state still tells what was last done.
func check[A any](ctx context.Context, c *cloud, req infer.CheckRequest) (infer.CheckResponse[A], error) {
	inputs := req.NewInputs
	if req.OldInputs.Len() > 0 && c.held.why(textOf(req.OldInputs, "provider"), req.Name) != nil {
		inputs = req.OldInputs
	}
	in, failures, err := infer.DefaultCheck[A](ctx, inputs)
	return infer.CheckResponse[A]{Inputs: in, Failures: failures}, err
}

func textOf(m property.Map, name string) string {
	if v := m.Get(name); v.IsString() {
		return v.AsString()
	}
	return ""
}

// Check implements infer.CustomCheck, like the others below.
func (r *serverResource) Check(ctx context.Context, req infer.CheckRequest) (infer.CheckResponse[ServerArgs], error) {
	return check[ServerArgs](ctx, r.cloud, req)
}

// Check keeps what is held.
func (r *dedicatedResource) Check(ctx context.Context, req infer.CheckRequest) (infer.CheckResponse[DedicatedArgs], error) {
	return check[DedicatedArgs](ctx, r.cloud, req)
}

// Check keeps what is held.
func (r *sshKeyResource) Check(ctx context.Context, req infer.CheckRequest) (infer.CheckResponse[SSHKeyArgs], error) {
	return check[SSHKeyArgs](ctx, r.cloud, req)
}

// Check keeps what is held.
func (r *firewallResource) Check(ctx context.Context, req infer.CheckRequest) (infer.CheckResponse[FirewallArgs], error) {
	return check[FirewallArgs](ctx, r.cloud, req)
}

// Check keeps what is held.
func (r *networkResource) Check(ctx context.Context, req infer.CheckRequest) (infer.CheckResponse[NetworkArgs], error) {
	return check[NetworkArgs](ctx, r.cloud, req)
}

// Check keeps what is held.
func (r *placementResource) Check(ctx context.Context, req infer.CheckRequest) (infer.CheckResponse[PlacementArgs], error) {
	return check[PlacementArgs](ctx, r.cloud, req)
}

// Check keeps what is held.
func (r *reverseResource) Check(ctx context.Context, req infer.CheckRequest) (infer.CheckResponse[ReverseArgs], error) {
	return check[ReverseArgs](ctx, r.cloud, req)
}

// unread is what becomes of an object that could not be read: it is held, and what kept it from being read is told once,
// of the provider when that is silent as a whole.
func (c *cloud) unread(ctx context.Context, at, key string, err error) error {
	if ctx.Err() != nil {
		return err // the run ends; nobody was unreachable
	}
	if c.held.why(at, "") == nil {
		err = &UnreachableError{cmp.Or(at, ProviderName), err}
		c.held.object(key, err)
		c.rec.fail(key, err)
	}
	return nil
}

// registered says whether the program may register an object: one that is not in the state would be created, and where the
// provider can't be asked it may be there already.
func (r *run) registered(kind, at, key string) bool {
	if r.held.why(at, "") == nil {
		return true
	}
	for _, res := range r.before.Resources {
		if res.Type == token(kind) && res.Inputs.Key == key {
			return true
		}
	}
	return false
}

// hold gives the nodes of providers that can't be asked their reason.
func (r Result) hold(w Wanted, h *held) {
	for name, err := range h.all() {
		r.Unreachable[name] = err
	}
	for _, s := range w.Servers {
		if err := r.Unreachable[ProviderName]; err != nil {
			r.Errors[s.Node] = err
		}
	}
	for _, s := range w.Dedicated {
		if err := r.Unreachable[s.Provider]; err != nil {
			r.Errors[s.Node] = err
		}
	}
}

// inTheWay joins what stops a plan: everything but what could not be looked at.
func (r Result) inTheWay() error {
	rest := Result{Errors: maps.Clone(r.Errors)}
	maps.DeleteFunc(rest.Errors, func(_ string, err error) bool { return errors.As(err, new(*UnreachableError)) })
	return rest.Err()
}
