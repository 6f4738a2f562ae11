package stack_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"popfleet/inventory"
	"popfleet/provision/provider"
	"popfleet/provision/stack"
)

// racks is a provider of dedicated servers in memory; what the stack does not ask of it panics.
type racks struct {
	provider.Provider
	mu      sync.Mutex
	mute    bool                       // refuses reverse names
	down    error                      // does not say which servers there are
	servers map[string]provider.Server // by node
	taken   []string
	let     []string
	reverse map[string]string
}

func (r *racks) Servers(context.Context, string) (map[string]provider.Server, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.down != nil {
		return nil, r.down
	}
	return maps.Clone(r.servers), nil
}

func (r *racks) Ensure(_ context.Context, w provider.Wanted) (provider.Server, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, ok := r.servers[w.Node]
	if !ok || s.ID != w.Server {
		return s, &provider.Error{Op: "take over " + w.Server, Kind: provider.ErrNotFound}
	}
	r.taken = append(r.taken, w.Node)
	return s, nil
}

func (r *racks) Release(_ context.Context, id string) ([]string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.let = append(r.let, id)
	return []string{"cancel " + id + " by hand"}, nil
}

func (r *racks) SetReverse(_ context.Context, _ string, addr netip.Addr, name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mute {
		return errors.New("the name does not resolve")
	}
	r.reverse[addr.String()] = name
	return nil
}

func (r *racks) Reverse(_ context.Context, _ string, addr netip.Addr) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.reverse[addr.String()], nil
}

func dedicatedFleet(servers ...string) inventory.Fleet {
	f := fleet()
	for i, s := range servers {
		f.PoPs[0].Nodes = append(f.PoPs[0].Nodes, inventory.Node{Name: fmt.Sprintf("fsn-%d", i+1),
			Machine: inventory.Machine{Provider: "hetznerrobot", Server: s}})
	}
	return f
}

func TestDedicatedServersAreTakenOverAndLetGo(t *testing.T) {
	path := cli(t)
	r := &racks{reverse: map[string]string{}, servers: map[string]provider.Server{
		"fsn-1": {ID: "321", Node: "fsn-1", Addr4: netip.MustParseAddr("198.19.0.2")},
		"fsn-2": {ID: "322", Node: "fsn-2", Addr4: netip.MustParseAddr("198.19.0.3")},
	}}
	o := stack.Options{Dir: filepath.Join(t.TempDir(), "stack"), Fleet: "demo", CLI: path,
		Passphrase: inventory.SecretText("a passphrase of the vault"), Dedicated: map[string]provider.Provider{"hetznerrobot": r}}
	w := want(t, dedicatedFleet("321", "322"))

	preview, err := stack.Preview(t.Context(), o, w)
	changes := preview.Changes
	if err != nil || len(changes) != 6 || changes[0].Op != "take over" || len(r.taken) != 0 {
		t.Fatalf("preview: %v, %v, taken %v", changes, err, r.taken)
	}
	r.mute = true
	unnamed, err := stack.Up(t.Context(), o, w, nil)
	if err != nil || unnamed.Err() != nil || len(unnamed.Unnamed) != 2 || len(unnamed.Servers) != 2 {
		t.Fatalf("without reverse names: %v %v, unnamed %v, servers %v", err, unnamed.Err(), unnamed.Unnamed, unnamed.Servers)
	}
	r.mute = false
	res := up(t, o, w)
	if res.Servers["fsn-2"].ID != "322" || r.reverse["198.19.0.2"] != "fsn-1.demo.test" {
		t.Fatalf("servers %v, reverse %v", res.Servers, r.reverse)
	}
	if again := up(t, o, w); len(again.Changes) != 0 {
		t.Errorf("second up: %v", again.Changes)
	}
	r.reverse["198.19.0.2"] = "somebody.else"
	if healed := up(t, o, w); len(healed.Changes) != 1 || r.reverse["198.19.0.2"] != "fsn-1.demo.test" {
		t.Errorf("drift of a name: %v, %v", healed.Changes, r.reverse)
	}
	old := r.servers["fsn-2"]
	r.servers["fsn-2"] = provider.Server{ID: "400", Node: "fsn-2", Addr4: netip.MustParseAddr("198.19.0.9")}
	moved, err := stack.Up(t.Context(), o, want(t, dedicatedFleet("321", "400")), nil)
	if err != nil || !errors.Is(moved.Errors["fsn-2"], stack.ErrImmutable) || len(moved.Errors) != 1 {
		t.Errorf("another server for a node: %v, %v", moved.Errors, err)
	}
	r.servers["fsn-2"] = old
	if _, err := stack.Up(t.Context(), o, want(t, dedicatedFleet("321")), nil); !errors.Is(err, stack.ErrDeleteRefused) || len(r.let) != 0 {
		t.Errorf("taken out of the file: %v, let go %v", err, r.let)
	}
	gone, err := stack.Destroy(t.Context(), o, nil, "fsn-2")
	if err != nil || gone.Err() != nil || !slices.Equal(r.let, []string{"322"}) || len(gone.Remains["fsn-2"]) != 1 {
		t.Errorf("destroy: %v %v, let go %v, remains %v", err, gone.Err(), r.let, gone.Remains)
	}
}

func TestWantDedicated(t *testing.T) {
	w := want(t, dedicatedFleet("321"))
	if len(w.Servers) != 0 || len(w.Dedicated) != 1 || w.Dedicated[0].Server != "321" || w.Dedicated[0].Reverse != "fsn-1.demo.test" {
		t.Errorf("%+v", w)
	}
}
