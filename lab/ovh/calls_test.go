package ovh_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"popfleet/lab/faults"
	"popfleet/lab/machine"
	"popfleet/lab/ovh"
	"popfleet/lab/ovh/api"
	"popfleet/lab/scripted"
)

func TestCredentials(t *testing.T) {
	w := start(t, nil)
	header := func(name, value string) func(*client) {
		return func(c *client) { c.changeHeader = func(h http.Header) { h.Set(name, value) } }
	}
	for _, c := range []struct {
		name   string
		change func(*client)
		status int
		words  string
	}{
		{"unsigned", func(c *client) {
			c.changeHeader = func(h http.Header) { h.Del("X-Ovh-Signature"); h.Del("X-Ovh-Consumer") }
		}, 403, "NOT_CREDENTIAL"},
		{"another application", func(c *client) { c.app = "other" }, 403, "INVALID_KEY"},
		{"another secret", func(c *client) { c.secret = "other" }, 400, "INVALID_SIGNATURE"},
		{"another consumer key", func(c *client) { c.consumer = "other" }, 403, "INVALID_CREDENTIAL"},
		{"a late clock", func(c *client) { c.clock = func() time.Time { return time.Now().Add(-time.Minute) } }, 400, "QUERY_TIME_OUT"},
		{"an early clock", func(c *client) { c.clock = func() time.Time { return time.Now().Add(time.Minute) } }, 400, "QUERY_TIME_OUT"},
		{"another timestamp than was signed", header("X-Ovh-Timestamp", fmt.Sprint(time.Now().Unix()+5)), 400, "INVALID_SIGNATURE"},
		{"no timestamp", header("X-Ovh-Timestamp", ""), 400, "INVALID_SIGNATURE"},
		{"no signature", header("X-Ovh-Signature", ""), 400, "INVALID_SIGNATURE"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cl := w.client
			cl.t = t
			c.change(&cl)
			cl.refused("GET", "/dedicated/server", nil, c.status, c.words)
		})
	}
	status, h, _, err := w.send(t.Context(), "GET", "/dedicated/server", "")
	if err != nil || status != 200 || h.Get("X-Ovh-QueryID") == "" {
		t.Errorf("%d %v %v", status, h, err)
	}
}

// A client that asks for the time and signs with the difference never notices that its clock is wrong.
func TestClockSkew(t *testing.T) {
	w := start(t, nil)
	w.ovh.SetSkew(time.Hour)
	w.refused("GET", "/me", nil, 400, "Query out of time")
	ahead := w.providerClock()
	if d := time.Until(ahead); d < 59*time.Minute || d > 61*time.Minute {
		t.Fatalf("the provider's clock is %s ahead", d)
	}
	w.clock = func() time.Time { return time.Now().Add(time.Hour) }
	w.get()
	w.fault(faults.Fault{Kind: faults.ClockSkew, For: faults.Duration(2 * time.Hour), Times: 2})
	w.refused("GET", "/me", nil, 400, "QUERY_TIME_OUT")
	if d := time.Until(w.providerClock()); d < 179*time.Minute {
		t.Errorf("with the fault the provider's clock is %s ahead", d)
	}
	w.get()
}

func (w *world) providerClock() time.Time {
	w.t.Helper()
	res, err := http.Get(w.url + "/auth/time")
	must(w.t, err)
	defer res.Body.Close()
	defer http.DefaultClient.CloseIdleConnections()
	var at int64
	_, err = fmt.Fscan(res.Body, &at)
	must(w.t, err)
	return time.Unix(at, 0)
}

func TestConsumerKeys(t *testing.T) {
	w := start(t, func(o *ovh.Options) { o.Rules = []api.Rule{{Method: "GET", Path: "/dedicated/server/*"}} })
	w.get()
	w.refused("POST", server+"/reboot", nil, 403, "NOT_GRANTED_CALL")
	w.refused("GET", "/me", nil, 403, "This call has not been granted")
	var asked struct{ ConsumerKey, State, ValidationURL string }
	w.ok("POST", "/auth/credential", map[string]any{"accessRules": []any{map[string]string{"method": "GET", "path": "/me"}}}, &asked)
	if asked.State != "pendingValidation" || asked.ValidationURL == "" {
		t.Errorf("%+v", asked)
	}
	fresh := w.client
	fresh.consumer = asked.ConsumerKey
	fresh.refused("GET", "/me", nil, 403, "This credential is not valid")
	if !w.ovh.Validate(asked.ConsumerKey) || w.ovh.Validate("nobody's") {
		t.Fatal("validate")
	}
	fresh.ok("GET", "/me", nil, &struct{}{})
	fresh.refused("GET", server, nil, 403, "NOT_GRANTED_CALL")
	w.fault(faults.Fault{Kind: faults.CredentialExpired, Times: 1})
	w.refused("GET", server, nil, 403, "INVALID_CREDENTIAL")
	w.get()
}

func TestTasksAreNotThereAtOnce(t *testing.T) {
	w := start(t, func(o *ovh.Options) {
		o.Delay = func(what string) time.Duration {
			if what == ovh.TaskFresh {
				return 40 * time.Millisecond
			}
			return 10 * time.Millisecond
		}
	})
	id := w.reboot().TaskID
	path := fmt.Sprintf("%s/task/%d", server, id)
	w.refused("GET", path, nil, 404, "Client::NotFound")
	w.refused("GET", path, nil, 500, "Server::InternalServerError")
	got := w.finish(id)
	if got.Status != "done" || got.DoneDate == nil || got.StartDate.IsZero() {
		t.Errorf("%+v", got)
	}
	w.refused("POST", path+"/cancel", nil, 409, "can't be cancelled")
}

func TestCancelledTaskDoesNothing(t *testing.T) {
	w := start(t, func(o *ovh.Options) {
		o.Delay = func(what string) time.Duration {
			if what == ovh.Queue {
				return 100 * time.Millisecond
			}
			return 0
		}
	})
	w.stage("factory")
	before := w.machine()
	w.ok("PUT", server, map[string]any{"bootId": rescueEU, "rescueSshKey": publicKey}, nil)
	id := w.reboot().TaskID
	w.ok("POST", fmt.Sprintf("%s/task/%d/cancel", server, id), nil, nil)
	if got := w.finish(id); got.Status != "cancelled" || before.Stage() != "factory" {
		t.Errorf("task %s, machine %s", got.Status, before.Stage())
	}
}

func TestTaskFaults(t *testing.T) {
	w := start(t, nil)
	w.ok("PUT", server, map[string]any{"bootId": rescueEU, "rescueSshKey": publicKey}, nil)
	call := func(k faults.Kind, step string) faults.Fault {
		return faults.Fault{Kind: k, Provider: machine.OVH, Machine: service, Call: "reboot", Step: step, Times: 1}
	}
	w.stage("factory")
	w.fault(call(faults.TaskZero, ""))
	if got := w.reboot(); got.TaskID != 0 {
		t.Errorf("task %d, want 0", got.TaskID)
	}
	w.fault(call(faults.TaskError, ""))
	if got := w.finish(w.reboot().TaskID); got.Status != "ovhError" || got.Comment == "" {
		t.Errorf("%+v", got)
	}
	w.fault(call(faults.TaskError, "customer"))
	if got := w.finish(w.reboot().TaskID); got.Status != "customerError" {
		t.Errorf("%+v", got)
	}
	w.fault(call(faults.TaskStuck, ""))
	stuck := w.reboot().TaskID
	path := fmt.Sprintf("%s/task/%d", server, stuck)
	w.until("the task is doing", func() bool {
		_, data := w.call("GET", path, nil)
		return strings.Contains(string(data), `"doing"`)
	})
	if got := w.machine().Stage(); got != "factory" {
		t.Errorf("a task that failed or is stuck moved the machine to %s", got)
	}
	w.fault(call(faults.ActionMissing, ""))
	w.refused("GET", fmt.Sprintf("%s/task/%d", server, w.reboot().TaskID), nil, 404, "Client::NotFound")
	w.stage("rescue")
	missing := call(faults.TaskMissing, "")
	missing.For = faults.Duration(30 * time.Millisecond)
	w.fault(missing)
	late := w.reboot().TaskID
	w.refused("GET", fmt.Sprintf("%s/task/%d", server, late), nil, 404, "Client::NotFound")
	w.finish(late)
}

// After a lost reply the task can be found by what it does and when it began.
func TestLostReply(t *testing.T) {
	w := start(t, nil)
	w.fault(faults.Fault{Kind: faults.ReplyLost, Call: "POST /dedicated/server/{serviceName}/reboot", Times: 1})
	if _, _, _, err := w.send(t.Context(), "POST", server+"/reboot", ""); err == nil {
		t.Fatal("the reply came")
	}
	var ids []int64
	w.ok("GET", server+"/task?function=hardReboot", nil, &ids)
	if len(ids) != 1 {
		t.Fatalf("tasks: %v", ids)
	}
	if got := w.finish(ids[0]); got.Status != "done" {
		t.Errorf("%+v", got)
	}
}

func TestCallFaults(t *testing.T) {
	w := start(t, nil)
	for _, c := range []struct {
		kind   faults.Kind
		status int
		words  string
	}{
		{faults.RateLimited, 429, "Client::TooManyRequests"},
		{faults.Unavailable, 503, "Server::ServiceUnavailable"},
		{faults.GatewayTimeout, 504, "Server::GatewayTimeout"},
		{faults.Busy, 409, "Client::Conflict"},
		{faults.Conflict, 409, "Client::Conflict"},
		{faults.Expired, 460, "This service is expired"},
		{faults.Unauthorized, 403, "NOT_CREDENTIAL"},
		{faults.ResourceUnavailable, 400, "not available"},
	} {
		w.fault(faults.Fault{Kind: c.kind, Machine: service, Times: 1})
		w.refused("GET", server, nil, c.status, c.words)
	}
	w.fault(faults.Fault{Kind: faults.BadGateway, Times: 1})
	if status, data := w.call("GET", server, nil); status != 502 || !strings.Contains(string(data), "<html>") {
		t.Errorf("%d %s", status, data)
	}
	w.fault(faults.Fault{Kind: faults.Slow, For: faults.Duration(20 * time.Millisecond), Times: 1})
	before := time.Now()
	if w.get(); time.Since(before) < 20*time.Millisecond {
		t.Error("the answer was not late")
	}
	w.fault(faults.Fault{Kind: faults.Hang, Times: 1})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if _, _, _, err := w.send(ctx, "GET", server, ""); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("hang: %v", err)
	}
	w.fault(faults.Fault{Kind: faults.Locked, Provider: machine.HetznerCloud})
	w.get()
}

func TestReverse(t *testing.T) {
	w := start(t, func(o *ovh.Options) {
		o.Resolve = func(_ context.Context, name string) ([]netip.Addr, error) {
			if name == "gra-1.example.net" {
				return []netip.Addr{netip.MustParseAddr("198.19.1.11"), netip.MustParseAddr("2001:db8:3:b::1")}, nil
			}
			return nil, errors.New("no such host")
		}
	})
	const block = "/ip/198.19.1.11%2F32/reverse"
	set := func(ip, name string) map[string]string { return map[string]string{"ipReverse": ip, "reverse": name} }
	w.refused("POST", block, set("198.19.1.11", "other.example.net"), 400, "Cannot check if other.example.net. is resolved to 198.19.1.11")
	w.refused("POST", block, set("198.19.1.12", "gra-1.example.net"), 400, "not in")
	w.refused("POST", block, set("x", "gra-1.example.net"), 400, "ipReverse")
	w.refused("POST", block, set("198.19.1.11", "gra"), 400, "host name")
	w.refused("POST", "/ip/198.51.100.1%2F32/reverse", set("198.51.100.1", "gra-1.example.net"), 404, "does not exist")
	var got struct{ IPReverse, Reverse string }
	for range 2 {
		w.ok("POST", block, set("198.19.1.11", "gra-1.example.net"), &got)
	}
	w.ok("GET", block+"/198.19.1.11", nil, &got)
	if got.Reverse != "gra-1.example.net." || w.get().Reverse != got.Reverse {
		t.Errorf("%+v, server %s", got, w.get().Reverse)
	}
	w.ok("POST", "/ip/2001:db8:3:b::%2F64/reverse", set("2001:db8:3:b::1", "gra-1.example.net"), &got)
	var list []string
	w.ok("GET", block, nil, &list)
	if len(list) != 1 || list[0] != "198.19.1.11" {
		t.Errorf("%v", list)
	}
	w.ok("GET", "/ip?routedTo.serviceName="+service, nil, &list) // a parameter that the description's checker can't read
	if len(list) != 2 || list[0] != "198.19.1.11/32" || list[1] != "2001:db8:3:b::/64" {
		t.Errorf("blocks: %v", list)
	}
	w.ok("DELETE", block+"/198.19.1.11", nil, nil)
	w.refused("DELETE", block+"/198.19.1.11", nil, 404, "ipReverse")
	w.refused("GET", block+"/198.19.1.11", nil, 404, "ipReverse")
}

// reinstalling is a machine that its provider can put a system on.
type reinstalling struct {
	machine.Machine
	done chan string
}

func (r reinstalling) Reinstall(_ context.Context, template, _ string) error {
	r.done <- template
	return nil
}

type reinstallingBackend struct {
	*scripted.Backend
	done chan string
}

func (b reinstallingBackend) Create(ctx context.Context, c machine.Config) (machine.Machine, error) {
	m, err := b.Backend.Create(ctx, c)
	return reinstalling{m, b.done}, err
}

func TestReinstall(t *testing.T) {
	done := make(chan string, 1)
	w := start(t, func(o *ovh.Options) {
		o.Backend = reinstallingBackend{o.Backend.(*scripted.Backend), done}
		o.Delay = ovh.Every(30 * time.Millisecond)
	})
	w.refused("GET", server+"/install/status", nil, 404, "not being installed")
	w.refused("POST", server+"/reinstall", map[string]any{"operatingSystem": "win95"}, 400, "operatingSystem")
	w.refused("POST", server+"/reinstall", `{"operatingSystem":"debian12_64","wipe":true}`, 400, "wipe")
	w.ok("PUT", server, map[string]any{"bootId": rescueEU}, nil)
	order := map[string]any{"operatingSystem": "debian12_64", "customizations": map[string]any{"hostname": "gra-1", "sshKey": publicKey}}
	var got task
	w.ok("POST", server+"/reinstall", order, &got)
	w.refused("POST", server+"/reinstall", order, 409, "already running")
	w.refused("POST", server+"/reboot", nil, 409, "already running")
	var progress struct {
		Progress []struct{ Comment, Status string }
	}
	w.ok("GET", server+"/install/status", nil, &progress)
	if len(progress.Progress) == 0 {
		t.Errorf("%+v", progress)
	}
	if end := w.finish(got.TaskID); end.Status != "done" || <-done != "debian12_64" {
		t.Errorf("%+v", end)
	}
	if s := w.get(); *s.BootID != diskBoot {
		t.Errorf("bootId after a reinstall: %d", *s.BootID)
	}
}

func TestReinstallOfTheLabsOwnMachinesFails(t *testing.T) {
	w := start(t, nil)
	var got task
	w.ok("POST", server+"/reinstall", map[string]any{"operatingSystem": "debian12_64"}, &got)
	if end := w.finish(got.TaskID); end.Status != "ovhError" || !strings.Contains(end.Comment, "can't be reinstalled") {
		t.Errorf("%+v", end)
	}
}
