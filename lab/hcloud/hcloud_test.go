package hcloud_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/hetznercloud/hcloud-go/v2/hcloud"
	"go.uber.org/goleak"

	"popfleet/lab/faults"
	sim "popfleet/lab/hcloud"
	"popfleet/lab/scripted"
	"popfleet/lab/speccheck"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type fixture struct {
	t      *testing.T
	cloud  *sim.Cloud
	faults *faults.Set
	api    *hcloud.Client
	url    string
	check  *speccheck.Check // nil where the description is absent
}

const publicKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ4n5xVtIu5R3XhXyBbZJgUWlSIeN4yRJyUMTpyNyhaK test"

func start(t *testing.T, spec *speccheck.Spec, change func(*sim.Options)) *fixture {
	t.Helper()
	set := &faults.Set{}
	backend := scripted.New(t.Context(), scripted.Options{Faults: set})
	opt := sim.Options{Token: "token", Backend: backend, Faults: set, ActionTime: sim.Every(2 * time.Millisecond), RatePerHour: 1 << 30}
	if change != nil {
		change(&opt)
	}
	cloud, err := sim.New(t.Context(), opt)
	must(t, err)
	f := &fixture{t: t, cloud: cloud, faults: set}
	h := cloud.Handler()
	if spec != nil {
		f.check = spec.Middleware(func(v speccheck.Violation) { t.Error(v) })
		h = f.check.Wrap(h)
	}
	srv := httptest.NewServer(h)
	t.Cleanup(func() { srv.CloseClientConnections(); srv.Close(); cloud.Close(); backend.Close() })
	f.url = srv.URL + "/v1"
	f.api = f.client("token")
	return f
}

func (f *fixture) client(token string) *hcloud.Client {
	quick := hcloud.ConstantBackoff(3 * time.Millisecond)
	return hcloud.NewClient(hcloud.WithEndpoint(f.url), hcloud.WithToken(token), hcloud.WithPollOpts(hcloud.PollOpts{BackoffFunc: quick}),
		hcloud.WithRetryOpts(hcloud.RetryOpts{BackoffFunc: quick, MaxRetries: 3}), hcloud.WithHTTPClient(&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) wait(actions ...*hcloud.Action) {
	f.t.Helper()
	must(f.t, f.api.Action.WaitFor(f.ctx(), actions...))
}

func (f *fixture) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	f.t.Cleanup(cancel)
	return ctx
}

func opts(name string) hcloud.ServerCreateOpts {
	return hcloud.ServerCreateOpts{
		Name: name, ServerType: &hcloud.ServerType{Name: "cx23"}, Image: &hcloud.Image{Name: "debian-12"},
		Location: &hcloud.Location{Name: "fsn1"}, StartAfterCreate: hcloud.Ptr(false), Labels: map[string]string{"fleet": "demo", "node": name},
	}
}

func (f *fixture) server(o hcloud.ServerCreateOpts) *hcloud.Server {
	f.t.Helper()
	res, _, err := f.api.Server.Create(f.ctx(), o)
	must(f.t, err)
	f.wait(append(res.NextActions, res.Action)...)
	s, _, err := f.api.Server.GetByID(f.ctx(), res.Server.ID)
	must(f.t, err)
	return s
}

// The description takes seconds to load under the race detector: once for all that need it.
func TestDescription(t *testing.T) {
	spec := speccheck.Load(t, speccheck.HetznerCloud)
	t.Run("everything", func(t *testing.T) { everythingFits(t, spec) })
	t.Run("refusals", func(t *testing.T) { refusals(t, spec) })
}

// everythingFits drives every kind of object through the provider's own client, unmodified, and holds
// each exchange against the provider's description.
func everythingFits(t *testing.T, spec *speccheck.Spec) {
	f := start(t, spec, nil)
	ctx := f.ctx()
	key, _, err := f.api.SSHKey.Create(ctx, hcloud.SSHKeyCreateOpts{Name: "k", PublicKey: publicKey, Labels: map[string]string{"fleet": "demo"}})
	must(t, err)
	nw, _, err := f.api.Network.Create(ctx, hcloud.NetworkCreateOpts{Name: "n", IPRange: cidr("10.0.0.0/16"),
		Subnets: []hcloud.NetworkSubnet{{Type: hcloud.NetworkSubnetTypeCloud, IPRange: cidr("10.0.1.0/24"), NetworkZone: hcloud.NetworkZoneEUCentral}}})
	must(t, err)
	a, _, err := f.api.Network.AddSubnet(ctx, nw, hcloud.NetworkAddSubnetOpts{Subnet: hcloud.NetworkSubnet{Type: hcloud.NetworkSubnetTypeCloud, IPRange: cidr("10.0.2.0/24"), NetworkZone: hcloud.NetworkZoneEUCentral}})
	must(t, err)
	f.wait(a)
	fw, _, err := f.api.Firewall.Create(ctx, hcloud.FirewallCreateOpts{Name: "f", Rules: []hcloud.FirewallRule{
		{Direction: hcloud.FirewallRuleDirectionIn, Protocol: hcloud.FirewallRuleProtocolTCP, Port: hcloud.Ptr("22"), SourceIPs: []net.IPNet{*cidr("0.0.0.0/0"), *cidr("::/0")}},
		{Direction: hcloud.FirewallRuleDirectionIn, Protocol: hcloud.FirewallRuleProtocolICMP, SourceIPs: []net.IPNet{*cidr("0.0.0.0/0")}},
	}})
	must(t, err)
	f.wait(fw.Actions...)
	pg, _, err := f.api.PlacementGroup.Create(ctx, hcloud.PlacementGroupCreateOpts{Name: "p", Type: hcloud.PlacementGroupTypeSpread})
	must(t, err)
	o := opts("fsn-1")
	o.SSHKeys, o.Networks, o.PlacementGroup = []*hcloud.SSHKey{key}, []*hcloud.Network{nw}, pg.PlacementGroup
	o.Firewalls = []*hcloud.ServerCreateFirewall{{Firewall: *fw.Firewall}}
	s := f.server(o)
	if s.Status != hcloud.ServerStatusOff || s.PrivateNet[0].IP.String() != "10.0.1.1" && s.PrivateNet[0].IP.String() != "10.0.1.2" {
		t.Errorf("server: status %s, private %v", s.Status, s.PrivateNet)
	}
	f.power(s)
	f.names(s, fw.Firewall, pg.PlacementGroup, nw, key)
	f.catalogue()
	f.remove(s, fw.Firewall, pg.PlacementGroup, nw, key)
	t.Logf("%d exchanges of %d kinds fit the description", f.check.Total(), len(f.check.Seen()))
}

func (f *fixture) power(s *hcloud.Server) {
	ctx := f.ctx()
	for _, do := range []func(context.Context, *hcloud.Server) (*hcloud.Action, *hcloud.Response, error){
		f.api.Server.Poweron, f.api.Server.Reset, f.api.Server.Reboot, f.api.Server.Shutdown, f.api.Server.Poweroff,
	} {
		a, _, err := do(ctx, s)
		must(f.t, err)
		f.wait(a)
	}
	keys, err := f.api.SSHKey.All(ctx)
	must(f.t, err)
	r, _, err := f.api.Server.EnableRescue(ctx, s, hcloud.ServerEnableRescueOpts{Type: hcloud.ServerRescueTypeLinux64, SSHKeys: keys})
	must(f.t, err)
	f.wait(r.Action)
	a, _, err := f.api.Server.DisableRescue(ctx, s)
	must(f.t, err)
	f.wait(a)
}

func (f *fixture) names(s *hcloud.Server, fw *hcloud.Firewall, pg *hcloud.PlacementGroup, nw *hcloud.Network, key *hcloud.SSHKey) {
	ctx, t := f.ctx(), f.t
	ip4, ip6 := s.PublicNet.IPv4.IP.String(), s.PublicNet.IPv6.IP.String()
	for _, ip := range []string{ip4, ip6 + "1"} {
		a, _, err := f.api.Server.ChangeDNSPtr(ctx, s, ip, hcloud.Ptr("fsn-1.demo.test"))
		must(t, err)
		f.wait(a)
	}
	got, _, err := f.api.Server.GetByName(ctx, "fsn-1")
	must(t, err)
	if got.PublicNet.IPv4.DNSPtr != "fsn-1.demo.test" || got.PublicNet.IPv6.DNSPtr[ip6+"1"] != "fsn-1.demo.test" {
		t.Errorf("reverse names: %+v", got.PublicNet)
	}
	_, _, err = f.api.Server.Update(ctx, s, hcloud.ServerUpdateOpts{Labels: map[string]string{"fleet": "demo", "x": ""}})
	must(t, err)
	_, _, err = f.api.Firewall.Update(ctx, fw, hcloud.FirewallUpdateOpts{Name: "f2"})
	must(t, err)
	acts, _, err := f.api.Firewall.SetRules(ctx, fw, hcloud.FirewallSetRulesOpts{Rules: []hcloud.FirewallRule{}})
	must(t, err)
	f.wait(acts...)
	_, _, err = f.api.PlacementGroup.Update(ctx, pg, hcloud.PlacementGroupUpdateOpts{Name: "p2"})
	must(t, err)
	_, _, err = f.api.Network.Update(ctx, nw, hcloud.NetworkUpdateOpts{Name: "n2"})
	must(t, err)
	_, _, err = f.api.SSHKey.Update(ctx, key, hcloud.SSHKeyUpdateOpts{Name: "k2"})
	must(t, err)
	ips, err := f.api.PrimaryIP.All(ctx)
	must(t, err)
	if len(ips) != 2 || !ips[0].AutoDelete {
		t.Errorf("primary IPs: %+v", ips)
	}
	a, _, err := f.api.Server.ChangeProtection(ctx, s, hcloud.ServerChangeProtectionOpts{Delete: hcloud.Ptr(true), Rebuild: hcloud.Ptr(true)})
	must(t, err)
	f.wait(a)
	if _, _, err := f.api.Server.DeleteWithResult(ctx, s); !hcloud.IsError(err, hcloud.ErrorCodeProtected) {
		t.Errorf("delete of a protected server: %v", err)
	}
	a, _, err = f.api.Server.ChangeProtection(ctx, s, hcloud.ServerChangeProtectionOpts{Delete: hcloud.Ptr(false), Rebuild: hcloud.Ptr(false)})
	must(t, err)
	f.wait(a)
}

func (f *fixture) catalogue() {
	ctx, t := f.ctx(), f.t
	types, err := f.api.ServerType.All(ctx)
	must(t, err)
	images, err := f.api.Image.All(ctx)
	must(t, err)
	locations, err := f.api.Location.All(ctx)
	must(t, err)
	if len(types) < 5 || len(images) == 0 || len(locations) != 6 {
		t.Errorf("catalogue: %d types, %d images, %d locations", len(types), len(images), len(locations))
	}
}

func (f *fixture) remove(s *hcloud.Server, fw *hcloud.Firewall, pg *hcloud.PlacementGroup, nw *hcloud.Network, key *hcloud.SSHKey) {
	ctx, t := f.ctx(), f.t
	if _, err := f.api.Firewall.Delete(ctx, fw); !hcloud.IsError(err, hcloud.ErrorCodeResourceInUse) {
		t.Errorf("delete of a firewall in use: %v", err)
	}
	acts, _, err := f.api.Firewall.RemoveResources(ctx, fw, []hcloud.FirewallResource{{Type: hcloud.FirewallResourceTypeServer, Server: &hcloud.FirewallResourceServer{ID: s.ID}}})
	must(t, err)
	f.wait(acts...)
	a, _, err := f.api.Server.DetachFromNetwork(ctx, s, hcloud.ServerDetachFromNetworkOpts{Network: nw})
	must(t, err)
	f.wait(a)
	a, _, err = f.api.Server.RemoveFromPlacementGroup(ctx, s)
	must(t, err)
	f.wait(a)
	res, _, err := f.api.Server.DeleteWithResult(ctx, s)
	must(t, err)
	f.wait(res.Action)
	for _, del := range []func() (*hcloud.Response, error){
		func() (*hcloud.Response, error) { return f.api.Firewall.Delete(ctx, fw) },
		func() (*hcloud.Response, error) { return f.api.PlacementGroup.Delete(ctx, pg) },
		func() (*hcloud.Response, error) { return f.api.Network.Delete(ctx, nw) },
		func() (*hcloud.Response, error) { return f.api.SSHKey.Delete(ctx, key) },
	} {
		_, err := del()
		must(t, err)
	}
	ips, err := f.api.PrimaryIP.All(ctx)
	must(t, err)
	if gone, _, err := f.api.Server.GetByID(ctx, s.ID); gone != nil || err != nil || len(ips) != 0 {
		t.Errorf("after delete: server %v, %d primary IPs, %v", gone, len(ips), err)
	}
}

func cidr(s string) *net.IPNet {
	_, n, err := net.ParseCIDR(s)
	if err != nil {
		panic(err)
	}
	return n
}

func TestRescueIsOneShot(t *testing.T) {
	f := start(t, nil, nil)
	s := f.server(opts("fsn-1"))
	f.enableRescue(s)
	if got := f.get(s); !got.RescueEnabled {
		t.Fatal("rescue_enabled is false after enable_rescue")
	}
	f.do(f.api.Server.Poweron, s)
	if all := f.cloud.Servers(); len(all) != 1 || !all[0].Has(addrOf(s)) || all[0].Rescue {
		t.Error("the start did not use rescue up")
	}
}

func TestRescueExpires(t *testing.T) {
	f := start(t, nil, func(o *sim.Options) { o.RescueExpires = time.Nanosecond })
	s := f.server(opts("fsn-1"))
	f.enableRescue(s)
	if f.get(s).RescueEnabled {
		t.Error("rescue is enabled after its time")
	}
}

func refusals(t *testing.T, spec *speccheck.Spec) {
	f := start(t, spec, nil)
	ctx := f.ctx()
	s := f.server(opts("fsn-1"))
	bad := opts("no_host_name!")
	bad.ServerType = &hcloud.ServerType{Name: "cx9000"}
	nobody := hcloud.NewClient(hcloud.WithEndpoint(f.url), hcloud.WithToken("wrong"), hcloud.WithHTTPClient(&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}))
	cases := []struct {
		name string
		want hcloud.ErrorCode
		do   func() error
	}{
		{"wrong token", hcloud.ErrorCodeUnauthorized, func() error { _, err := nobody.Server.All(ctx); return err }},
		{"name taken", hcloud.ErrorCodeUniquenessError, func() error { _, _, err := f.api.Server.Create(ctx, opts("fsn-1")); return err }},
		{"bad fields", hcloud.ErrorCodeInvalidInput, func() error { _, _, err := f.api.Server.Create(ctx, bad); return err }},
		{"no such server", hcloud.ErrorCodeNotFound, func() error { _, _, err := f.api.Server.Poweron(ctx, &hcloud.Server{ID: 7}); return err }},
		{"bad selector", hcloud.ErrorCodeInvalidInput, func() error {
			_, _, err := f.api.Server.List(ctx, hcloud.ServerListOpts{ListOpts: hcloud.ListOpts{LabelSelector: "a=b=c"}})
			return err
		}},
		{"rescue with unknown key", hcloud.ErrorCodeInvalidInput, func() error {
			_, _, err := f.api.Server.EnableRescue(ctx, s, hcloud.ServerEnableRescueOpts{Type: hcloud.ServerRescueTypeLinux64, SSHKeys: []*hcloud.SSHKey{{ID: 5}}})
			return err
		}},
		{"address of another", hcloud.ErrorCodeInvalidInput, func() error {
			_, _, err := f.api.Server.ChangeDNSPtr(ctx, s, "192.0.2.1", hcloud.Ptr("x.test"))
			return err
		}},
	}
	for _, c := range cases {
		if err := c.do(); !hcloud.IsError(err, c.want) {
			t.Errorf("%s: %v, want %s", c.name, err, c.want)
		}
	}
}

func TestLockedWhileAnActionRuns(t *testing.T) {
	f := start(t, nil, func(o *sim.Options) { o.ActionTime = sim.Every(300 * time.Millisecond) })
	res, _, err := f.api.Server.Create(f.ctx(), opts("fsn-1"))
	must(t, err)
	if !f.get(res.Server).Locked {
		t.Error("server is not locked while it is created")
	}
	if _, _, err := f.api.Server.Poweron(f.ctx(), res.Server); !hcloud.IsError(err, hcloud.ErrorCodeLocked) {
		t.Errorf("poweron during create: %v, want locked", err)
	}
	f.wait(res.Action)
	f.do(f.api.Server.Poweron, res.Server)
}

func TestSelectorsAndPages(t *testing.T) {
	f := start(t, nil, nil)
	for _, n := range []string{"a-1", "a-2", "a-3"} {
		f.server(opts(n))
	}
	for sel, want := range map[string]int{
		"fleet=demo": 3, "fleet==demo,node!=a-1": 2, "node in (a-1, a-2)": 2, "node notin (a-1)": 2, "node": 3, "!node": 0, "x": 0, "!x,fleet=demo": 3,
	} {
		got, err := f.api.Server.AllWithOpts(f.ctx(), hcloud.ServerListOpts{ListOpts: hcloud.ListOpts{LabelSelector: sel}})
		must(t, err)
		if len(got) != want {
			t.Errorf("%s finds %d servers, want %d", sel, len(got), want)
		}
	}
	page, resp, err := f.api.Server.List(f.ctx(), hcloud.ServerListOpts{ListOpts: hcloud.ListOpts{Page: 2, PerPage: 2}})
	must(t, err)
	p := resp.Meta.Pagination
	if len(page) != 1 || p.PreviousPage != 1 || p.NextPage != 0 || p.LastPage != 2 || p.TotalEntries != 3 {
		t.Errorf("page 2 of 2: %d servers, %+v", len(page), p)
	}
	if l := resp.Header.Get("Link"); !strings.Contains(l, `rel="prev"`) || !strings.Contains(l, `page=1`) {
		t.Errorf("Link header %q", l)
	}
}

func TestRateLimit(t *testing.T) {
	f := start(t, nil, func(o *sim.Options) { o.RatePerHour = 3 })
	for range 3 {
		_, resp, err := f.api.Location.List(f.ctx(), hcloud.LocationListOpts{})
		must(t, err)
		if resp.Meta.Ratelimit.Limit != 3 {
			t.Errorf("limit header: %+v", resp.Meta.Ratelimit)
		}
	}
	req, err := http.NewRequest(http.MethodGet, f.url+"/locations", nil)
	must(t, err)
	req.Header.Set("Authorization", "Bearer token")
	res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	must(t, err)
	defer res.Body.Close()
	if res.StatusCode != http.StatusTooManyRequests || res.Header.Get("RateLimit-Remaining") != "0" || res.Header.Get("X-Correlation-Id") == "" {
		t.Errorf("fourth request: %d %v", res.StatusCode, res.Header)
	}
}

func TestRestartFindsItsServers(t *testing.T) {
	path := t.TempDir() + "/state.json"
	set := &faults.Set{}
	backend := scripted.New(t.Context(), scripted.Options{Faults: set})
	t.Cleanup(backend.Close)
	same := func(d time.Duration) func(o *sim.Options) {
		return func(o *sim.Options) { o.StatePath, o.Backend, o.ActionTime = path, backend, sim.Every(d) }
	}
	f := start(t, nil, same(2*time.Millisecond))
	s := f.server(opts("fsn-1"))
	f.do(f.api.Server.Poweron, s)
	f.cloud.Close()
	slow := start(t, nil, same(time.Hour))
	if got := slow.get(s); got.Status != hcloud.ServerStatusRunning || len(backend.Machines()) != 1 {
		t.Fatalf("after a restart: %s, %d machines", got.Status, len(backend.Machines()))
	}
	res, _, err := slow.api.Server.Create(slow.ctx(), opts("fsn-2"))
	must(t, err)
	slow.cloud.Close()
	third := start(t, nil, same(2*time.Millisecond))
	third.wait(res.Action)
	if got := third.get(res.Server); got.Status != hcloud.ServerStatusOff {
		t.Errorf("the create that a restart interrupted left %s", got.Status)
	}
}

func (f *fixture) do(act func(context.Context, *hcloud.Server) (*hcloud.Action, *hcloud.Response, error), s *hcloud.Server) {
	f.t.Helper()
	a, _, err := act(f.ctx(), s)
	must(f.t, err)
	f.wait(a)
}

func (f *fixture) get(s *hcloud.Server) *hcloud.Server {
	f.t.Helper()
	got, _, err := f.api.Server.GetByID(f.ctx(), s.ID)
	must(f.t, err)
	return got
}

func (f *fixture) enableRescue(s *hcloud.Server) {
	f.t.Helper()
	k, _, err := f.api.SSHKey.Create(f.ctx(), hcloud.SSHKeyCreateOpts{Name: "k", PublicKey: publicKey})
	must(f.t, err)
	r, _, err := f.api.Server.EnableRescue(f.ctx(), s, hcloud.ServerEnableRescueOpts{Type: hcloud.ServerRescueTypeLinux64, SSHKeys: []*hcloud.SSHKey{k}})
	must(f.t, err)
	f.wait(r.Action)
}

func addrOf(s *hcloud.Server) netip.Addr { return netip.MustParseAddr(s.PublicNet.IPv4.IP.String()) }
