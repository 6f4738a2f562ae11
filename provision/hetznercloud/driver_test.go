package hetznercloud_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"popfleet/inventory"
	"popfleet/provision/hetznercloud"
	"popfleet/provision/hetznercloud/hetznertest"
	"popfleet/provision/provider"
)

const publicKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJjx2vSXzPz5vqgM5q4WmpCYmN0zkqQaO9M8wEyXmqGf fleet"

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func setup(t *testing.T) (*hetznertest.API, *hetznercloud.Driver) {
	t.Helper()
	api := hetznertest.New()
	t.Cleanup(api.Close)
	api.Polls = 1
	d, err := hetznercloud.New(hetznercloud.Options{Token: inventory.SecretText(api.Token), Endpoint: api.URL,
		Backoff: time.Millisecond, CallTimeout: 500 * time.Millisecond, Budget: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return api, d
}

func spec(node string) hetznercloud.ServerSpec {
	return hetznercloud.ServerSpec{Name: "demo-" + node, ServerType: "cx23", Location: "fsn1", Image: "debian-12",
		Labels: hetznercloud.Labels("demo", node, "server."+node)}
}

func mustServer(t *testing.T, d *hetznercloud.Driver) hetznercloud.Server {
	t.Helper()
	s, err := d.EnsureServer(t.Context(), spec("fsn-1"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestEnsureServerIsIdempotent(t *testing.T) {
	api, d := setup(t)
	first, again := mustServer(t, d), mustServer(t, d)
	if first.ID != again.ID || api.Created("servers") != 1 {
		t.Fatalf("servers %s and %s, %d created: want one", first.ID, again.ID, api.Created("servers"))
	}
	if first.Status != "off" || !first.Addr4.IsValid() || first.Addr6.String() == "" || first.ServerType != "cx23" {
		t.Errorf("server %+v", first)
	}
	got, ok, err := d.Describe(t.Context(), "demo", "fsn-1")
	if err != nil || !ok || got.ID != first.ID {
		t.Errorf("describe: %+v %t %v", got, ok, err)
	}
	if _, ok, err := d.Describe(t.Context(), "demo", "fsn-9"); ok || err != nil {
		t.Errorf("describe a node without server: %t %v", ok, err)
	}
}

func TestCreateWhoseReplyIsLostIsAdopted(t *testing.T) {
	api, d := setup(t)
	var lost atomic.Bool
	api.After = func(r *http.Request) bool {
		return r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/servers") && lost.CompareAndSwap(false, true)
	}
	// The action of the lost create is polled by nobody here, so end it at once.
	api.Polls = 0
	mustServer(t, d)
	if n := api.Created("servers"); n != 1 || !lost.Load() {
		t.Fatalf("%d servers created, reply lost %t", n, lost.Load())
	}
}

func TestNameOfAStrangerIsNotAdopted(t *testing.T) {
	_, d := setup(t)
	mustServer(t, d)
	other := spec("fsn-1")
	other.Labels = hetznercloud.Labels("other", "fsn-1", "server.fsn-1")
	if _, err := d.EnsureServer(t.Context(), other); !errors.Is(err, provider.ErrNameTaken) {
		t.Fatalf("error %v, want provider.ErrNameTaken", err)
	}
}

func TestTwoServersWithOurLabelsAreNotGuessedBetween(t *testing.T) {
	api, d := setup(t)
	mustServer(t, d)
	api.Edit(func(o map[string]map[int64]hetznertest.Object) {
		for _, s := range o["servers"] {
			twin := hetznertest.Object{}
			for k, v := range s {
				twin[k] = v
			}
			twin["id"], twin["name"] = int64(9999), "twin"
			o["servers"][9999] = twin
			return
		}
	})
	if _, _, err := d.Describe(t.Context(), "demo", "fsn-1"); !errors.Is(err, provider.ErrAmbiguous) {
		t.Fatalf("error %v, want provider.ErrAmbiguous", err)
	}
}

// failing answers the first n matching requests with an error.
func failing(n int32, method, suffix string, status int, code string) func(http.ResponseWriter, *http.Request) bool {
	var seen atomic.Int32
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != method || !strings.HasSuffix(r.URL.Path, suffix) || seen.Add(1) > n {
			return false
		}
		if code == "" {
			w.WriteHeader(status)
			return true
		}
		hetznertest.Reply(w, status, code)
		return true
	}
}

func TestTransientAnswersAreRetriedAloud(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		code   string
		says   string
	}{
		"locked":        {423, "locked", "locked"},
		"conflict":      {409, "conflict", "conflict"},
		"rate limit":    {429, "rate_limit_exceeded", "rate limit"},
		"service error": {500, "service_error", "service_error"},
		"maintenance":   {503, "maintenance", "maintenance"},
		"plain 502":     {502, "", "502"},
		"plain 503":     {503, "", "503"},
		"plain 504":     {504, "", "504"},
	} {
		t.Run(name, func(t *testing.T) {
			api, d := setup(t)
			api.Before = failing(2, http.MethodPost, "/servers", c.status, c.code)
			var mu sync.Mutex
			var said []string
			ctx := provider.WithWaiting(t.Context(), func(s string) {
				mu.Lock()
				defer mu.Unlock()
				said = append(said, s)
			})
			if _, err := d.EnsureServer(ctx, spec("fsn-1")); err != nil {
				t.Fatal(err)
			}
			mu.Lock()
			defer mu.Unlock()
			if !strings.Contains(strings.Join(said, "\n"), c.says) {
				t.Errorf("said %q, want a reason with %q", said, c.says)
			}
			if n := api.Created("servers"); n != 1 {
				t.Errorf("%d servers created", n)
			}
		})
	}
}

func TestFinalAnswersStopAtOnce(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		code   string
		want   error
		hint   string
	}{
		"no capacity":  {412, "resource_unavailable", provider.ErrUnavailable, "location"},
		"placement":    {409, "placement_error", provider.ErrUnavailable, "location"},
		"unauthorized": {401, "unauthorized", provider.ErrUnauthorized, "HCLOUD_TOKEN"},
		"read only":    {403, "forbidden", provider.ErrUnauthorized, "token_command"},
	} {
		t.Run(name, func(t *testing.T) {
			api, d := setup(t)
			api.Before = failing(100, http.MethodPost, "/servers", c.status, c.code)
			_, err := d.EnsureServer(t.Context(), spec("fsn-1"))
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.hint) {
				t.Fatalf("error %v, want %v with hint %q", err, c.want, c.hint)
			}
			tries := 0
			for _, r := range api.Requests() {
				if r == "POST /servers" {
					tries++
				}
			}
			if tries != 1 {
				t.Errorf("%d tries, want 1", tries)
			}
		})
	}
}

func TestCreateActionErrorIsStartedAfresh(t *testing.T) {
	api, d := setup(t)
	var failed atomic.Bool
	api.ActionError = func(command string) string {
		if command == "create_server" && failed.CompareAndSwap(false, true) {
			return "action_failed"
		}
		return ""
	}
	mustServer(t, d)
	if api.Created("servers") != 2 || api.Count("servers") != 1 {
		t.Fatalf("%d created, %d left", api.Created("servers"), api.Count("servers"))
	}
}

func TestBudgetEnds(t *testing.T) {
	api, _ := setup(t)
	d, err := hetznercloud.New(hetznercloud.Options{Token: inventory.SecretText(api.Token), Endpoint: api.URL,
		Backoff: time.Millisecond, Budget: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	api.Before = failing(1<<30, http.MethodGet, "/servers", 423, "locked")
	_, _, err = d.Describe(t.Context(), "demo", "fsn-1")
	if !errors.Is(err, provider.ErrBudget) || !strings.Contains(err.Error(), "locked") {
		t.Fatalf("error %v, want provider.ErrBudget that says locked", err)
	}
}

func booted(api *hetznertest.API) (where any) {
	api.Edit(func(o map[string]map[int64]hetznertest.Object) {
		for _, s := range o["servers"] {
			where = s["booted"]
		}
	})
	return where
}

func TestRescueAndBack(t *testing.T) {
	api, d := setup(t)
	s := mustServer(t, d)
	for round, wantReset := range []bool{false, true} { // from off, then from running
		rescue, err := d.Machines().EnterRescue(t.Context(), s.ID, provider.Restart{Key: provider.SSHKey{Name: "demo-key", Public: publicKey}})
		if err != nil {
			t.Fatal(err)
		}
		if rescue.Origin != provider.FirstUse || len(rescue.Fingerprints) != 0 || booted(api) != "rescue" {
			t.Errorf("round %d: %+v, booted %v", round, rescue, booted(api))
		}
		if got := slices.Contains(api.Requests(), "POST /servers/"+s.ID+"/actions/reset"); got != wantReset {
			t.Errorf("round %d: reset %t, want %t", round, got, wantReset)
		}
	}
	if err := d.BootDisk(t.Context(), s.ID); err != nil || booted(api) != "disk" {
		t.Errorf("boot disk: %v, booted %v", err, booted(api))
	}
	if n := api.Created("ssh_keys"); n != 1 {
		t.Errorf("%d keys uploaded", n)
	}
}

func TestRescueThatIsOnAlreadyIsSwitchedOffFirst(t *testing.T) {
	api, d := setup(t)
	s := mustServer(t, d)
	api.Edit(func(o map[string]map[int64]hetznertest.Object) {
		for _, s := range o["servers"] {
			s["rescue_enabled"] = true
		}
	})
	if err := d.EnterRescue(t.Context(), s.ID, publicKey, "demo-key"); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(api.Requests(), "POST /servers/"+s.ID+"/actions/disable_rescue") || booted(api) != "rescue" {
		t.Errorf("requests %v", api.Requests())
	}
}

// A power action whose reply is lost must not be repeated blindly: the second boot would be the disk.
func TestLostReplyOfPowerOnStillEndsInRescue(t *testing.T) {
	for _, call := range []string{"poweron", "enable_rescue"} {
		t.Run(call, func(t *testing.T) {
			api, d := setup(t)
			s := mustServer(t, d)
			api.Polls = 0
			var lost atomic.Bool
			api.After = func(r *http.Request) bool {
				return strings.HasSuffix(r.URL.Path, "/actions/"+call) && lost.CompareAndSwap(false, true)
			}
			if err := d.EnterRescue(t.Context(), s.ID, publicKey, "demo-key"); err != nil {
				t.Fatal(err)
			}
			if booted(api) != "rescue" || !lost.Load() {
				t.Errorf("booted %v, reply lost %t", booted(api), lost.Load())
			}
		})
	}
}

func TestActionThatTheAPIForgets(t *testing.T) {
	api, d := setup(t)
	s := mustServer(t, d)
	api.Polls = 1 << 30
	var once sync.Once
	api.Before = func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/actions") && r.Method == http.MethodGet {
			once.Do(func() { api.ForgetActions(); api.Polls = 0 })
		}
		return false
	}
	if err := d.EnterRescue(t.Context(), s.ID, publicKey, "demo-key"); err != nil {
		t.Fatal(err)
	}
	if booted(api) != "rescue" {
		t.Errorf("booted %v", booted(api))
	}
}

func TestHangingCallCostsOneTry(t *testing.T) {
	api, d := setup(t)
	var hung atomic.Bool
	api.Before = func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodGet && hung.CompareAndSwap(false, true) {
			<-r.Context().Done()
			return true
		}
		return false
	}
	if _, ok, err := d.Describe(t.Context(), "demo", "fsn-1"); ok || err != nil {
		t.Fatalf("describe: %t %v", ok, err)
	}
}

func TestCancelledWaitEndsAtOnce(t *testing.T) {
	api, d := setup(t)
	api.Polls = 1 << 30
	ctx, cancel := context.WithCancel(t.Context())
	ctx = provider.WithWaiting(ctx, func(string) { cancel() })
	if _, err := d.EnsureServer(ctx, spec("fsn-1")); !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v, want canceled", err)
	}
}

func TestReverseActivityDelete(t *testing.T) {
	api, d := setup(t)
	s := mustServer(t, d)
	for _, ip := range []string{s.Addr4.String(), s.Addr6.String()} {
		if err := d.SetReverse(t.Context(), s.ID, ip, "fsn-1.demo.test"); err != nil {
			t.Fatal(err)
		}
	}
	now, _, err := d.Server(t.Context(), s.ID)
	if err != nil || now.Reverse4 != "fsn-1.demo.test" || now.Reverse6 != "fsn-1.demo.test" {
		t.Errorf("reverse %q %q %v", now.Reverse4, now.Reverse6, err)
	}
	if err := d.EnterRescue(t.Context(), s.ID, publicKey, "demo-key"); err != nil {
		t.Fatal(err)
	}
	acts, err := d.Activity(t.Context(), s.ID, time.Time{})
	if err != nil || !slices.ContainsFunc(acts, func(a provider.Activity) bool { return a.What == "enable_rescue" && a.Risky }) {
		t.Errorf("activity %v %v", acts, err)
	}
	for range 2 { // the second time it is gone already
		if err := d.Delete(t.Context(), s.ID); err != nil {
			t.Fatal(err)
		}
	}
	if api.Count("servers") != 0 {
		t.Error("the server is still there")
	}
}

func TestObjectsAreEnsuredOnce(t *testing.T) {
	api, d := setup(t)
	ctx := t.Context()
	for range 2 {
		if _, err := d.EnsureFirewall(ctx, hetznercloud.FirewallSpec{Name: "demo", Labels: hetznercloud.Labels("demo", "", "firewall"),
			Rules: []hetznercloud.Rule{{Protocol: "tcp", Port: "22"}, {Protocol: "icmp"}}}); err != nil {
			t.Fatal(err)
		}
		if _, err := d.EnsureNetwork(ctx, hetznercloud.NetworkSpec{Name: "demo", Labels: hetznercloud.Labels("demo", "", "network"),
			Range: "10.77.0.0/18", Subnet: "10.77.0.0/24", Zone: "eu-central"}); err != nil {
			t.Fatal(err)
		}
		if _, err := d.EnsurePlacementGroup(ctx, hetznercloud.PlacementGroupSpec{Name: "demo", Labels: hetznercloud.Labels("demo", "", "placement")}); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []string{"firewalls", "networks", "placement_groups"} {
		if api.Created(c) != 1 {
			t.Errorf("%d %s created", api.Created(c), c)
		}
	}
}

func TestTokenIsNeverShown(t *testing.T) {
	api := hetznertest.New()
	t.Cleanup(api.Close)
	const token = "do-not-show-this-token-anywhere"
	var log bytes.Buffer
	d, err := hetznercloud.New(hetznercloud.Options{Token: inventory.SecretText(token), Endpoint: api.URL,
		Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	_, _, err = d.Describe(t.Context(), "demo", "fsn-1")
	if !errors.Is(err, provider.ErrUnauthorized) {
		t.Fatalf("error %v, want provider.ErrUnauthorized", err)
	}
	if strings.Contains(err.Error()+log.String(), token) {
		t.Errorf("the token is shown: %v / %s", err, &log)
	}
	if _, err := hetznercloud.New(hetznercloud.Options{Token: inventory.Secret{}}); !errors.Is(err, provider.ErrUnauthorized) {
		t.Errorf("no token: %v", err)
	}
}

func TestLabelSyntax(t *testing.T) {
	for value, ok := range map[string]bool{"fsn-1": true, "a": true, "": false, "-a": false, "a/b": false,
		strings.Repeat("x", 63): true, strings.Repeat("x", 64): false} {
		if err := hetznercloud.CheckLabels(map[string]string{hetznercloud.LabelNode: value}); (err == nil) != ok {
			t.Errorf("label %q: %v", value, err)
		}
	}
}
