package e2e

import (
	"fmt"
	"strings"
	"testing"

	"popfleet/lab/faults"
	"popfleet/lab/inprocess"
)

// outage sets a fault for every call of one provider's API and returns how to end it, once it has struck.
func (w *cliWorld) outage(t *testing.T, f faults.Fault) (over func()) {
	t.Helper()
	set := w.lab.Faults.MustAdd(f)
	return func() {
		t.Helper()
		if w.lab.Faults.Hits(set.ID) == 0 {
			t.Errorf("the fault never struck: %+v", set)
		}
		w.lab.Faults.Clear(set.ID)
	}
}

// untold demands that nodes are named as unknown with the reason, and that nothing calls them as the fleet file says.
func (o outcome) untold(t *testing.T, provider, reason string, nodes ...string) {
	t.Helper()
	all := o.stdout + o.stderr
	for _, want := range append([]string{"unknown: " + strings.Join(nodes, ", "), provider + " can't be asked", reason, "go on with: fleet"}, nodes...) {
		if !strings.Contains(all, want) {
			t.Errorf("it does not say %q: %s", want, o)
		}
	}
	if strings.Contains(o.stdout, "no changes:") {
		t.Errorf("nodes that nobody looked at are called unchanged: %s", o)
	}
}

// ended demands that the summary of up names the provider once, in its own line.
func (o outcome) ended(t *testing.T, provider string) {
	t.Helper()
	at := strings.Index(o.stderr, "✗")
	if at < 0 {
		t.Errorf("nothing is said to have failed: %s", o)
		return
	}
	if n := strings.Count(o.stderr[at:], provider+" can't be asked"); n != 1 {
		t.Errorf("the summary names %s %d times: %s", provider, n, o.stderr[at:])
	}
}

// untouched demands that a machine is as it was: no login, no wipe.
func (w *cliWorld) untouched(t *testing.T, id string) {
	t.Helper()
	if l := w.lab.Machine(t, id).Ledger(); len(l.Logins())+len(l.Wipes())+len(l.Installs()) > 0 {
		t.Errorf("%s was touched while its provider could not be asked", id)
	}
}

// The API of the dedicated servers is down before they were ever seen: the cloud's and the other provider's nodes come
// up, nothing is done to the third, and the next run ends it.
func TestCLIOutageOfDedicated(t *testing.T) {
	t.Parallel()
	w := newMixedWorld(t, inprocess.Options{})
	robot := w.lab.Robot.Servers()[0].ID
	over := w.outage(t, faults.Fault{Kind: faults.BadGateway, Provider: "hetznerrobot"})

	planned := w.want(t, 2, "plan")
	planned.untold(t, "hetznerrobot", "HTTP 502", "fsn-2")
	if !strings.Contains(planned.stdout, "fsn-1  is absent") || !strings.Contains(planned.stdout, "fsn-3  is rented") {
		t.Errorf("the others are not planned: %s", planned)
	}
	up := w.want(t, 3, "up", "--yes", "--adopt", "fsn-2", "--adopt", "fsn-3")
	up.untold(t, "hetznerrobot", "HTTP 502", "fsn-2")
	up.ended(t, "hetznerrobot")
	for _, id := range []string{"demo-fsn-1", w.lab.OVH.Servers()[0].ID} {
		if m := w.lab.Machine(t, id); m.Stage() != "system" {
			t.Errorf("%s was held up: it is %s", id, m.Stage())
		}
	}
	w.untouched(t, robot)

	// Nothing is left to do but what could not be looked at: that is not "no changes".
	w.want(t, 3, "plan").untold(t, "hetznerrobot", "HTTP 502", "fsn-2")
	w.want(t, 0, "plan", "fsn-1") // a run that is not about them does not fail for them
	over()
	w.want(t, 0, "up", "--yes", "--adopt", "fsn-2")
	w.want(t, 0, "plan")
	w.exactlyOnceEach(t, "demo-fsn-1", robot, w.lab.OVH.Servers()[0].ID)
}

// exactlyOnceEach demands one wipe of every disk of these machines, and one server in the cloud.
func (w *cliWorld) exactlyOnceEach(t *testing.T, ids ...string) {
	t.Helper()
	for _, id := range ids {
		m := w.lab.Machine(t, id)
		if got := fmt.Sprint(m.Ledger().Wipes()); len(m.Ledger().Wipes()) != len(m.Serials()) || strings.Contains(got, ":2") {
			t.Errorf("%s: wiped %s", id, got)
		}
	}
}

// The cloud's API fails in each way while its node serves: the dedicated ones get their change, the cloud's servers are
// neither rented again nor given back, and what the stack knows of them is kept.
func TestCLIOutageOfTheCloud(t *testing.T) {
	t.Parallel()
	for _, f := range []faults.Fault{
		{Kind: faults.BadGateway}, {Kind: faults.Hang}, {Kind: faults.Unauthorized},
		// The sharpest: only the question what there is fails, and everything else would be done.
		{Kind: faults.Unavailable, Call: "list_servers"},
	} {
		t.Run(string(f.Kind)+f.Call, func(t *testing.T) {
			t.Parallel()
			w := newMixedWorld(t, inprocess.Options{})
			w.want(t, 0, "up", "--yes", "--adopt", "fsn-2", "--adopt", "fsn-3")
			cloud := w.lab.Machine(t, "demo-fsn-1")
			applied, servers, keys := cloud.Ledger().Applies(), len(w.lab.Machines.Machines()), w.lab.Cloud.Servers()
			w.edit(t, "ttl: 30s", "ttl: 60s")
			w.edit(t, "      - name: fsn-1\n", "      - name: fsn-1\n      - name: fsn-4\n") // never seen: it may exist already
			f.Provider = "hetznercloud"
			over := w.outage(t, f)

			w.want(t, 2, "plan").untold(t, "hetznercloud", "", "fsn-1", "fsn-4")
			up := w.want(t, 3, "up", "--yes")
			up.untold(t, "hetznercloud", "", "fsn-1", "fsn-4")
			up.ended(t, "hetznercloud")
			w.want(t, 3, "plan").untold(t, "hetznercloud", "", "fsn-1", "fsn-4")
			if got := len(w.lab.Machines.Machines()); got != servers || len(w.lab.Cloud.Servers()) != len(keys) {
				t.Errorf("%d machines and %d servers, there were %d and %d", got, len(w.lab.Cloud.Servers()), servers, len(keys))
			}
			if cloud.Ledger().Applies() != applied {
				t.Error("the cloud's node was changed")
			}
			over()
			planned := w.want(t, 2, "plan")
			if strings.Contains(planned.stdout, "server.fsn-1") || strings.Contains(planned.stdout, "ssh-key") || !strings.Contains(planned.stdout, "create Server server.fsn-4") {
				t.Errorf("the stack forgot what it had: %s", planned)
			}
			w.want(t, 0, "up", "--yes")
			w.want(t, 0, "plan")
			w.exactlyOnceEach(t, "demo-fsn-1", "demo-fsn-4", w.lab.Robot.Servers()[0].ID, w.lab.OVH.Servers()[0].ID)
			if got := len(w.lab.Machines.Machines()); got != servers+1 {
				t.Errorf("%d machines were ever made, wanted %d", got, servers+1)
			}
		})
	}
}

// Credentials that are refused, or not there, stop their provider's nodes only, and say what to set.
func TestCLIOutageOfCredentials(t *testing.T) {
	t.Parallel()
	for variable, value := range map[string]string{"HROBOT_PASSWORD": "wrong", "OVH_CONSUMER_KEY": "wrong", "HCLOUD_TOKEN": ""} {
		t.Run(variable, func(t *testing.T) {
			t.Parallel()
			provider, node := map[string]string{"HROBOT_PASSWORD": "hetznerrobot", "OVH_CONSUMER_KEY": "ovh", "HCLOUD_TOKEN": "hetznercloud"}[variable],
				map[string]string{"HROBOT_PASSWORD": "fsn-2", "OVH_CONSUMER_KEY": "fsn-3", "HCLOUD_TOKEN": "fsn-1"}[variable]
			w := newMixedWorld(t, inprocess.Options{})
			right := w.env[variable]
			w.env[variable] = value
			o := w.want(t, 3, "up", "--yes", "--adopt", "fsn-2", "--adopt", "fsn-3")
			o.untold(t, provider, "", node)
			o.ended(t, provider)
			if !strings.Contains(o.stderr, "_") || value != "" && strings.Contains(o.stdout+o.stderr, right) {
				t.Errorf("no variable is named, or a secret is: %s", o)
			}
			if n := strings.Count(o.stdout, " serving in "); n != 2 {
				t.Errorf("%d of the 2 others came up: %s", n, o)
			}
			w.env[variable] = right
			w.want(t, 0, "up", "--yes", "--adopt", node)
		})
	}
}

// With no provider left there is nothing to do, and that is an error of the whole run.
func TestCLIOutageOfAll(t *testing.T) {
	t.Parallel()
	w := newMixedWorld(t, inprocess.Options{})
	w.lab.Faults.MustAdd(faults.Fault{Kind: faults.Unavailable})
	o := w.want(t, 1, "plan")
	for _, name := range []string{"hetznercloud", "hetznerrobot", "ovh"} {
		if !strings.Contains(o.stderr, name+" can't be asked") {
			t.Errorf("%s is not named: %s", name, o)
		}
	}
}

// A server that could not be given back, because a name that points to it could not be taken back first, is not
// forgotten: it costs money, and the same command goes on.
func TestCLIOutageWhileGivingBack(t *testing.T) {
	t.Parallel()
	w := newCLIWorld(t, inprocess.Options{})
	w.want(t, 0, "up", "--yes")
	over := w.outage(t, faults.Fault{Kind: faults.Unauthorized, Call: "change_dns_ptr", Provider: "hetznercloud"})
	o := w.want(t, 1, "down", "fsn-1", "--yes")
	if !strings.Contains(o.stderr, "give servers back: fsn-1: ") || strings.Contains(o.stdout, "is gone") {
		t.Errorf("it does not say what is left: %s", o)
	}
	if state, err := w.openVault(t).NodeState("fsn-1"); err != nil || state.ServerID == "" || len(w.lab.Cloud.Servers()) != 2 {
		t.Errorf("its server is forgotten: %+v, %v, %d servers", state, err, len(w.lab.Cloud.Servers()))
	}
	over()
	w.want(t, 0, "down", "fsn-1", "--yes")
	if n := len(w.lab.Cloud.Servers()); n != 1 {
		t.Errorf("%d servers are left, wanted 1", n)
	}
}
