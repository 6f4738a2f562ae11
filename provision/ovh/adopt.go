package ovh

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"

	"popfleet/provision/provider"
)

// parallel bounds how many servers are read at a time.
const parallel = 8

// Servers reads the servers of the fleet file, whatever fleet is called: OVH has no labels, and the account may hold
// machines that are none of ours. Those that OVH does not know are missing.
func (d *Driver) Servers(ctx context.Context, fleet string) (map[string]provider.Server, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var (
		wg    sync.WaitGroup
		slots = make(chan struct{}, parallel)
		mu    sync.Mutex
		found = map[string]provider.Server{}
	)
	for node, service := range d.known() {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			s, err := d.describe(ctx, fmt.Sprintf("describe server %s of node %s", service, node), node, service)
			switch {
			case errors.Is(err, provider.ErrNotFound):
			case err != nil:
				cancel(err) // the first failure ends the others' calls and is the cause that is returned
			default:
				mu.Lock()
				found[node] = s
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return nil, explain("describe the servers of fleet "+fleet, request{}, context.Cause(ctx))
	}
	return found, nil
}

func (d *Driver) known() map[string]string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.services)
}

// Describe finds one node's server; false means that it has none, or that OVH does not know it.
func (d *Driver) Describe(ctx context.Context, _, node string) (provider.Server, bool, error) {
	service, ok := d.known()[node]
	if !ok {
		return provider.Server{}, false, nil
	}
	s, err := d.describe(ctx, fmt.Sprintf("describe server %s of node %s", service, node), node, service)
	if errors.Is(err, provider.ErrNotFound) {
		return provider.Server{}, false, nil
	}
	return s, err == nil, err
}

// Ensure takes over the server that w names. It changes nothing at OVH: what a takeover needs, EnterRescue does. It
// never orders.
func (d *Driver) Ensure(ctx context.Context, w provider.Wanted) (provider.Server, error) {
	op := fmt.Sprintf("take over server %s for node %s", w.Server, w.Node)
	if w.Server == "" {
		return provider.Server{}, &Error{Op: "take over a server for node " + w.Node, Kind: provider.ErrNotAdopted,
			Hint: "set server: to its service name (ns1234567.ip-192-0-2.eu)"}
	}
	m, err := d.machine(ctx, op, w.Server)
	if err != nil {
		return provider.Server{}, err
	}
	if m.State != "ok" {
		return provider.Server{}, &Error{Op: op, Err: fmt.Errorf("OVH says that its state is %q", printable(m.State, 40)),
			Hint: "ask OVH's support; nothing was changed"}
	}
	if err := d.adopt(op, w.Node, w.Server); err != nil {
		return provider.Server{}, err
	}
	return d.complete(ctx, op, w.Node, w.Server, m)
}

// adopt remembers whose machine it is from now on.
func (d *Driver) adopt(op, node, service string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for other, s := range d.services {
		if s == service && other != node {
			return &Error{Op: op, Kind: provider.ErrNameTaken, Err: fmt.Errorf("it is the server of node %s", other),
				Hint: "one server is one node: correct the fleet file"}
		}
	}
	d.services[node] = service
	return nil
}
