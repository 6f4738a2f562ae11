package e2e

import (
	"crypto/ed25519"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"popfleet/internal/pace"
	"popfleet/inventory"
	"popfleet/lab/inprocess"
	"popfleet/lab/speccheck"
	"popfleet/provision/hetznercloud"
	"popfleet/provision/hetznerrobot"
	"popfleet/provision/ovh"
	"popfleet/provision/provider"
)

// providers are the three that every suite runs on.
var providers = []string{provider.HetznerCloud, provider.HetznerRobot, provider.OVH}

// stand is one driver in front of its simulator.
type stand struct {
	name   string
	lab    *inprocess.Lab
	driver provider.Provider
	wanted provider.Wanted
	check  *speccheck.Check
	signer ssh.Signer
	key    provider.SSHKey
}

func newStand(t testing.TB, name string) *stand {
	t.Helper()
	_, private, err := ed25519.GenerateKey(nil)
	must(t, err)
	key, err := ssh.NewSignerFromKey(private)
	must(t, err)
	s := &stand{name: name, signer: key,
		key: provider.SSHKey{Name: "demo-fleet", Public: strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key.PublicKey())))}}
	o := inprocess.Options{Timing: quick}
	s.watch(t, &o)
	s.start(t, o)
	s.driver = s.open(t, rented{calls: time.Second, robot: 0.02, others: 0.05})
	return s
}

// start opens a lab with the provider's machines in it: the one that is wanted, and for dedicated ones another that is
// nobody's business.
func (s *stand) start(t testing.TB, o inprocess.Options) {
	t.Helper()
	switch s.name {
	case provider.HetznerRobot:
		o.Robot = 2
	case provider.OVH:
		o.OVH = 2
	}
	s.lab = inprocess.Start(t, o)
	s.wanted = provider.Wanted{Fleet: "demo", Node: "fsn-1"}
	switch s.name {
	case provider.HetznerRobot:
		s.wanted.Server = s.lab.Robot.Servers()[0].ID
	case provider.OVH:
		s.wanted.Server = s.lab.OVH.Servers()[0].ID
	default:
		s.wanted.Image, s.wanted.Places = "debian-12", []provider.Place{{Type: "cx23", Location: "fsn1"}}
	}
}

// rented is how patient a driver is.
type rented struct {
	calls         time.Duration // deadline of one call
	robot, others pace.Pace
	transport     http.RoundTripper // nil: the driver's own
}

// open makes a driver as a command does when it starts.
func (s *stand) open(t testing.TB, r rented) provider.Provider {
	t.Helper()
	const backoff, budget = 3 * time.Millisecond, 20 * time.Second
	servers := map[string]string{s.wanted.Node: s.wanted.Server}
	switch s.name {
	case provider.HetznerRobot:
		d, err := hetznerrobot.New(hetznerrobot.Options{User: inventory.SecretText(inprocess.RobotUser),
			Password: inventory.SecretText(inprocess.RobotPassword), Endpoint: s.lab.RobotURL, Servers: servers,
			Keys: []string{s.key.Public}, Pace: r.robot, Backoff: backoff, CallTimeout: r.calls, Budget: budget,
			Poll: 10 * time.Millisecond, Transport: r.transport})
		must(t, err)
		t.Cleanup(d.Close)
		return d
	case provider.OVH:
		d, err := ovh.New(ovh.Options{Endpoint: s.lab.OVHURL, ApplicationKey: inventory.SecretText(inprocess.OVHApplicationKey),
			ApplicationSecret: inventory.SecretText(inprocess.OVHApplicationSecret), ConsumerKey: inventory.SecretText(inprocess.OVHConsumerKey),
			Servers: servers, Pace: r.others, Backoff: backoff, CallTimeout: r.calls, Budget: budget, Transport: r.transport})
		must(t, err)
		t.Cleanup(d.Close)
		return d
	}
	d, err := hetznercloud.New(hetznercloud.Options{Token: inventory.SecretText(s.lab.Token), Endpoint: s.lab.URL,
		Pace: r.others, Backoff: backoff, CallTimeout: r.calls, Budget: budget, Transport: r.transport})
	must(t, err)
	t.Cleanup(d.Close)
	return d.Machines()
}

// described are the providers' own descriptions, read once: one is a megabyte of JSON.
var described struct {
	sync.Mutex
	specs map[speccheck.API]*speccheck.Spec
}

func descriptionOf(t testing.TB, which speccheck.API) *speccheck.Spec {
	t.Helper()
	described.Lock()
	defer described.Unlock()
	if described.specs == nil {
		described.specs = map[speccheck.API]*speccheck.Spec{}
	}
	if described.specs[which] == nil {
		described.specs[which] = speccheck.Load(t, which)
	}
	return described.specs[which]
}

// exchanged counts what all stands of the run said to their simulators, by provider.
var exchanged struct {
	sync.Mutex
	total map[string]int
}

// watch puts the provider's own description around its simulator, where it is at hand (../shared/specs).
func (s *stand) watch(t testing.TB, o *inprocess.Options) {
	t.Helper()
	which, wrap := speccheck.HetznerCloud, &o.Wrap
	switch s.name {
	case provider.HetznerRobot:
		which, wrap = speccheck.HetznerRobot, &o.WrapRobot
	case provider.OVH:
		which, wrap = speccheck.OVH, &o.WrapOVH
	}
	if !speccheck.Present(which) {
		return
	}
	var mu sync.Mutex
	seen := map[string]bool{}
	s.check = descriptionOf(t, which).Middleware(func(v speccheck.Violation) {
		mu.Lock()
		defer mu.Unlock()
		if !seen[v.String()] {
			seen[v.String()] = true
			t.Errorf("not as the provider describes it: %s", v)
		}
	})
	*wrap = s.check.Wrap
	t.Cleanup(func() {
		exchanged.Lock()
		defer exchanged.Unlock()
		if exchanged.total == nil {
			exchanged.total = map[string]int{}
		}
		exchanged.total[s.name] += s.check.Total()
	})
}
