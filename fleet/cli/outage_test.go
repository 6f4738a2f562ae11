package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"popfleet/inventory"
	"popfleet/provision/lifecycle"
	"popfleet/provision/provider"
	"popfleet/provision/stack"
)

// lister is a provider that answers with one server after a while, or with an error; what else is asked of it panics.
type lister struct {
	provider.Provider
	after time.Duration
	err   error
}

func (l lister) Servers(ctx context.Context, _ string) (map[string]provider.Server, error) {
	provider.Waiting(ctx)("list the servers: HTTP 502; try 7 in 8s")
	select {
	case <-ctx.Done():
		return nil, &provider.Error{Op: "list the servers", Err: context.Cause(ctx)}
	case <-time.After(l.after):
	}
	return map[string]provider.Server{fmt.Sprint("node-", l.after): {ID: "1"}}, l.err
}

func TestASilentProviderHoldsUpNobodyForLong(t *testing.T) {
	refused := errors.New("refused")
	tests := map[string]struct {
		asked map[string]provider.Provider
		down  string // name: part of the reason
		took  time.Duration
	}{
		"all answer":                   {map[string]provider.Provider{"a": lister{after: time.Second}, "b": lister{after: 40 * time.Second}}, "", 40 * time.Second},
		"one hangs":                    {map[string]provider.Provider{"a": lister{after: time.Second}, "b": lister{after: time.Hour}}, "b: no answer while the others waited 1m0s: list the servers: HTTP 502", 61 * time.Second},
		"one refuses":                  {map[string]provider.Provider{"a": lister{after: time.Second}, "b": lister{err: refused}}, "b: refused", time.Second},
		"nobody waits for the slow":    {map[string]provider.Provider{"b": lister{after: 3 * time.Minute}}, "", 3 * time.Minute},
		"who is refused does not":      {map[string]provider.Provider{"a": lister{after: 3 * time.Minute}, "b": lister{err: refused}}, "b: refused", 3 * time.Minute},
		"what is known is not asked":   {map[string]provider.Provider{"a": lister{after: time.Second}, "known": nil}, "known: before", time.Second},
		"a list beside an error is no": {map[string]provider.Provider{"a": lister{}, "b": lister{after: time.Second, err: refused}}, "b: refused", time.Second},
	}
	for name, c := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				clouds := &clouds{byName: c.asked, down: map[string]error{}}
				if _, known := c.asked["known"]; known {
					clouds.isDown("known", errors.New("before"))
				}
				began := time.Now()
				found := clouds.servers(t.Context(), "demo", time.Minute)
				if took := time.Since(began); took != c.took {
					t.Errorf("took %s, want %s", took, c.took)
				}
				name, reason, _ := strings.Cut(c.down, ": ")
				if len(found) != len(c.asked)-len(clouds.down) || (c.down != "") != (len(clouds.down) == 1) {
					t.Fatalf("found %v, down %v", found, clouds.down)
				}
				if c.down == "" {
					return
				}
				var e *stack.UnreachableError
				if _, err := clouds.provider(name); !errors.As(err, &e) || e.Provider != name || !strings.HasPrefix(e.Err.Error(), reason) {
					t.Errorf("%s is down because of %v, want %q", name, err, reason)
				}
			})
		})
	}
}

// A plan that could not look everywhere never says "no changes", and how it ends follows what it knows.
func TestAPlanWithUnknownNodes(t *testing.T) {
	proposal := func(node string, err error) lifecycle.Proposal {
		return lifecycle.Proposal{Node: lifecycle.Node{Name: node, Machine: inventory.Machine{Provider: "ovh"}}, Err: err}
	}
	tests := map[string]struct {
		p    plan
		code int
	}{
		"all seen":                {plan{proposals: []lifecycle.Proposal{proposal("a", nil)}}, CodeDone},
		"one unknown":             {plan{proposals: []lifecycle.Proposal{proposal("a", nil), proposal("b", down("x"))}}, CodePartial},
		"a shared object":         {plan{proposals: []lifecycle.Proposal{proposal("a", nil)}, unread: []error{down("x")}}, CodePartial},
		"none could be looked at": {plan{proposals: []lifecycle.Proposal{proposal("b", down("x"))}}, CodeError},
	}
	for name, c := range tests {
		t.Run(name, func(t *testing.T) {
			if err := c.p.err("fleet plan"); codeOf(err) != c.code {
				t.Errorf("exit %d, want %d: %v", codeOf(err), c.code, err)
			}
		})
	}
	late := plan{proposals: []lifecycle.Proposal{proposal("a", nil), proposal("b", nil)}}
	late.take(stack.Result{Errors: map[string]error{"b": down("x"), "c": down("x")}})
	if late.proposals[0].Err != nil || !unreachable(late.proposals[1].Err) || len(late.unknown()) != 1 {
		t.Errorf("the stack noticed first: %+v", late.proposals)
	}
}
