package stack_test

import (
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"popfleet/inventory"
	"popfleet/provision/hetznercloud/hetznertest"
	"popfleet/provision/provider"
	"popfleet/provision/stack"
)

// mixed is a fleet with so many nodes in the cloud, and the rest at Robot.
func mixed(cloud int, servers ...string) inventory.Fleet {
	f := dedicatedFleet(servers...)
	names := []string{"gra-1", "gra-2", "gra-3"}
	f.PoPs = append(f.PoPs, inventory.PoP{Name: "gra"})
	for _, n := range names[:cloud] {
		f.PoPs[1].Nodes = append(f.PoPs[1].Nodes, inventory.Node{Name: n})
	}
	return f
}

// mixedSetup has one node at each provider, and a second server at Robot that no node has yet.
func mixedSetup(t *testing.T) (*hetznertest.API, *racks, stack.Options) {
	t.Helper()
	api, o := setup(t)
	r := &racks{reverse: map[string]string{}, servers: map[string]provider.Server{
		"fsn-1": {ID: "321", Node: "fsn-1", Addr4: netip.MustParseAddr("198.19.0.2")},
		"fsn-2": {ID: "322", Node: "fsn-2", Addr4: netip.MustParseAddr("198.19.0.3")},
	}}
	o.Dedicated = map[string]provider.Provider{"hetznerrobot": r}
	up(t, o, want(t, mixed(1, "321")))
	return api, r, o
}

var errDown = errors.New("the API answers HTTP 502")

// unasked demands that these nodes, and nobody else, failed because of their provider.
func unasked(t *testing.T, res stack.Result, at string, nodes ...string) {
	t.Helper()
	var why *stack.UnreachableError
	if !errors.As(res.Unreachable[at], &why) || why.Provider != at || len(res.Unreachable) != 1 || len(res.Errors) != len(nodes) {
		t.Errorf("unreachable %v, errors %v", res.Unreachable, res.Errors)
	}
	for _, n := range nodes {
		if !errors.As(res.Errors[n], &why) {
			t.Errorf("%s: %v", n, res.Errors[n])
		}
	}
}

func TestDedicatedProviderDownHoldsUpNobody(t *testing.T) {
	t.Parallel()
	api, r, o := mixedSetup(t)
	next := mixed(2, "321", "322")
	next.Domain = "other.test" // every reverse name changes
	w := want(t, next)
	r.down = errDown
	preview, err := stack.Preview(t.Context(), o, w)
	if err != nil || strings.Contains(changeList(preview.Changes), ".fsn-") || !strings.Contains(changeList(preview.Changes), "create Server server.gra-2") {
		t.Errorf("preview: %v\n%s", err, changeList(preview.Changes))
	}
	unasked(t, preview, "hetznerrobot", "fsn-1", "fsn-2")
	res, err := stack.Up(t.Context(), o, w, nil)
	if err != nil || len(res.Servers) != 2 || api.Count("servers") != 2 || len(r.taken) != 1 || len(r.let) != 0 {
		t.Errorf("up: %v, servers %v, taken %v, let go %v", err, res.Servers, r.taken, r.let)
	}
	unasked(t, res, "hetznerrobot", "fsn-1", "fsn-2")

	r.down = nil
	back := up(t, o, w)
	if got := changeList(back.Changes); len(back.Changes) != 5 || strings.Contains(got, "server.fsn-1") || !strings.Contains(got, "take over DedicatedServer server.fsn-2") {
		t.Errorf("what was put off and nothing else: %s", got) // one server, three names for two nodes with IPv4, …
	}
	if r.reverse["198.19.0.2"] != "fsn-1.other.test" || len(r.taken) != 2 {
		t.Errorf("reverse %v, taken %v", r.reverse, r.taken)
	}
}

// Only the question which servers there are fails; the cloud would do everything else, so a second server would be
// rented by whoever took silence for an answer.
func TestCloudDownRentsAndDeletesNothing(t *testing.T) {
	t.Parallel()
	api, r, o := mixedSetup(t)
	next := mixed(3, "321", "322")
	next.PoPs[1].Nodes[0].Machine.ServerType = "cx53"
	w := want(t, next)
	wrote := 0
	refuse := func(rw http.ResponseWriter, req *http.Request) bool {
		if req.Method != http.MethodGet {
			wrote++
		}
		if req.Method == http.MethodGet && strings.HasSuffix(req.URL.Path, "/servers") {
			hetznertest.Reply(rw, http.StatusUnauthorized, "unauthorized")
			return true
		}
		return false
	}
	api.Change(func(a *hetznertest.API) { a.Before = refuse })
	res, err := stack.Up(t.Context(), o, w, nil)
	if err != nil || !res.Servers["fsn-2"].Addr4.IsValid() || len(res.Servers) != 2 {
		t.Errorf("up: %v, servers %v", err, res.Servers)
	}
	unasked(t, res, "hetznercloud", "gra-1", "gra-2", "gra-3")
	if !errors.Is(res.Errors["gra-2"], provider.ErrUnauthorized) {
		t.Errorf("the reason lost its kind: %v", res.Errors["gra-2"])
	}
	var after int
	api.Change(func(*hetznertest.API) { after = wrote })
	if after != 0 || api.Created("servers") != 1 || api.Count("servers") != 1 || len(r.taken) != 2 {
		t.Errorf("%d calls changed something, %d servers created, taken %v", after, api.Created("servers"), r.taken)
	}

	api.Change(func(a *hetznertest.API) { a.Before = nil })
	next.PoPs[1].Nodes[0].Machine.ServerType = ""
	back := up(t, o, want(t, next))
	if api.Created("servers") != 3 || len(back.Servers) != 5 || strings.Contains(changeList(back.Changes), "server.gra-1") {
		t.Errorf("%d servers created; %s", api.Created("servers"), changeList(back.Changes))
	}
}

// A provider that the caller knows to be down is not asked, nor needs it a driver; what is taken out of the fleet file
// meanwhile stays, and so does what destroy is asked for.
func TestKnownToBeDown(t *testing.T) {
	t.Parallel()
	api, _, o := mixedSetup(t)
	down := o
	down.Driver, down.Unreachable = nil, map[string]error{"hetznercloud": errDown}
	res, err := stack.Up(t.Context(), down, want(t, mixed(2, "321", "322")), nil)
	if err != nil || len(res.Servers) != 2 {
		t.Errorf("up: %v, servers %v", err, res.Servers)
	}
	unasked(t, res, "hetznercloud", "gra-1", "gra-2")
	down.AllowDelete = []string{"gra-1"}
	if _, err := stack.Up(t.Context(), down, want(t, mixed(0, "321", "322")), nil); err != nil {
		t.Errorf("taken out of the file: %v", err)
	}
	gone, err := stack.Destroy(t.Context(), down, nil, "gra-1")
	if err != nil || !errors.As(gone.Err(), new(*stack.UnreachableError)) {
		t.Errorf("destroy: %v %v", err, gone.Err())
	}
	if api.Count("servers") != 1 || api.Count("ssh_keys") != 1 || api.Count("networks") != 1 {
		t.Errorf("left at the provider: %d servers, %d keys, %d networks", api.Count("servers"), api.Count("ssh_keys"), api.Count("networks"))
	}
	if again := up(t, o, want(t, mixed(1, "321", "322"))); len(again.Changes) != 0 {
		t.Errorf("the state forgot: %s", changeList(again.Changes))
	}
}

// One object that can't be read is left as it is, and is nobody else's trouble.
func TestOneUnreadObject(t *testing.T) {
	t.Parallel()
	api, r, o := mixedSetup(t)
	api.Change(func(a *hetznertest.API) {
		a.Before = func(rw http.ResponseWriter, req *http.Request) bool {
			if !strings.Contains(req.URL.Path, "/firewalls/") {
				return false
			}
			hetznertest.Reply(rw, http.StatusForbidden, "forbidden")
			return true
		}
	})
	res, err := stack.Up(t.Context(), o, want(t, mixed(2, "321", "322")), nil)
	if err != nil || len(res.Servers) != 4 || len(res.Errors) != 1 || !errors.As(res.Errors[""], new(*stack.UnreachableError)) {
		t.Errorf("%v; servers %v; errors %v", err, res.Servers, res.Errors)
	}
	if len(r.taken) != 2 || api.Created("servers") != 2 || api.Created("firewalls") != 1 {
		t.Errorf("taken %v, %d servers and %d firewalls created", r.taken, api.Created("servers"), api.Created("firewalls"))
	}
}
