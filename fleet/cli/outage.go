package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"sync"
	"time"

	"popfleet/provision/lifecycle"
	"popfleet/provision/provider"
	"popfleet/provision/stack"
)

// One provider that does not answer, or refuses us, must not stop the nodes of the others. What its API can't be asked is
// not known, and nothing is done where it is not known: no server is rented, taken over, changed or given back there.

// listPatience is how long the others' nodes wait for a provider to say which servers there are. Its driver would try for
// longer, and does where nobody waits.
const listPatience = time.Minute

var errTooLong = errors.New("others were not to wait longer")

func (c *clouds) isDown(name string, err error) {
	c.down[name] = &stack.UnreachableError{Provider: name, Err: err}
}

// whyDown is the error of a run for which no provider is left: these are all that it is about.
func (c *clouds) whyDown(names []string) error {
	var all []error
	for _, name := range names {
		all = append(all, c.down[name])
	}
	var one *stack.UnreachableError
	if len(all) == 1 && errors.As(all[0], &one) {
		return one.Err // it is plain whose it is
	}
	return errors.Join(all...)
}

// addresses of all servers the providers have for this fleet, by node, IPv4 first. A provider that does not say is down
// from then on; its nodes have the addresses that they were installed at, so that the others' peers stay as they are.
func (s *session) addresses(ctx context.Context) (map[string][]netip.Addr, error) {
	all := map[string][]netip.Addr{}
	for node, server := range s.clouds.servers(ctx, s.fleet.Name, s.pace.Of(listPatience)) {
		if a := usable(server.Addr4, server.Addr6); len(a) > 0 {
			all[node] = a
		}
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	for _, n := range s.fleet.Resolved() {
		if s.clouds.down[n.Machine.Provider] == nil {
			continue
		}
		a, err := s.installedAt(n.Name)
		if err != nil {
			return nil, err
		}
		if len(a) > 0 {
			all[n.Name] = a
		}
	}
	return all, nil
}

func (s *session) installedAt(node string) ([]netip.Addr, error) {
	state, err := s.vault.NodeState(node)
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, text := range state.Addresses {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return nil, fmt.Errorf("address of %s: %w", node, err)
		}
		out = append(out, a)
	}
	return out, nil
}

func usable(candidates ...netip.Addr) (valid []netip.Addr) {
	for _, a := range candidates {
		if a.IsValid() {
			valid = append(valid, a)
		}
	}
	return valid
}

// answer is what one provider says of its servers.
type answer struct {
	name    string
	servers map[string]provider.Server
	err     error
}

// servers asks all providers side by side. Once one has answered, the others have patience left.
func (c *clouds) servers(ctx context.Context, fleet string, patience time.Duration) map[string]provider.Server {
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	answers := make(chan answer)
	var asking sync.WaitGroup
	for name, p := range c.byName {
		if c.down[name] == nil {
			asking.Go(func() { answers <- ask(ctx, name, p, fleet, patience) })
		}
	}
	go func() { asking.Wait(); close(answers) }()
	all := map[string]provider.Server{}
	var late *time.Timer
	for a := range answers {
		if a.err != nil {
			c.isDown(a.name, a.err)
			continue
		}
		maps.Copy(all, a.servers)
		if late == nil {
			late = time.AfterFunc(patience, func() { giveUp(errTooLong) })
		}
	}
	if late != nil {
		late.Stop()
	}
	return all
}

// ask says in its error what the provider answered last, when others did not want to wait for it any longer.
func ask(ctx context.Context, name string, p provider.Provider, fleet string, patience time.Duration) answer {
	var mu sync.Mutex
	last := "it says nothing"
	ctx = provider.WithWaiting(ctx, func(text string) {
		mu.Lock()
		defer mu.Unlock()
		last, _, _ = strings.Cut(text, "; try ")
	})
	servers, err := p.Servers(ctx, fleet)
	if errors.Is(err, errTooLong) {
		mu.Lock()
		defer mu.Unlock()
		err = fmt.Errorf("no answer while the others waited %s: %s", patience, last)
	}
	return answer{name, servers, err}
}

// mayExist says whether a node has a server, or nobody knows.
func (s *session) mayExist(addresses map[string][]netip.Addr) func(node string) bool {
	untold := map[string]bool{}
	for _, n := range s.fleet.Resolved() {
		untold[n.Name] = s.clouds.down[n.Machine.Provider] != nil
	}
	return func(node string) bool { return len(addresses[node]) > 0 || untold[node] }
}

// reachable is the error of a run none of whose nodes is at a provider that can be asked.
func (s *session) reachable(nodes []lifecycle.Node) error {
	var names []string
	seen := map[string]bool{}
	for _, n := range nodes {
		at := n.Machine.Provider
		if s.clouds.down[at] == nil {
			return nil
		}
		if !seen[at] {
			names = append(names, at)
		}
		seen[at] = true
	}
	if len(nodes) == 0 {
		return nil
	}
	return s.clouds.whyDown(names)
}

// unreachable says that err is a provider's that could not be asked.
func unreachable(err error) bool { return errors.As(err, new(*stack.UnreachableError)) }
