package ovh_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"popfleet/lab/faults"
	"popfleet/lab/ovh"
	"popfleet/lab/scripted"
)

func TestRescueStaysUntilItIsSetBack(t *testing.T) {
	w := start(t, nil)
	w.stage("factory")
	w.ok("PUT", server, map[string]any{"bootId": rescueEU, "rescueSshKey": publicKey, "monitoring": false}, nil)
	w.finish(w.reboot().TaskID)
	w.stage("rescue")
	must(t, w.machine().Reset(t.Context())) // as the guest's own reboot: the choice is asked for again
	w.stage("rescue")
	if s := w.get(); *s.BootID != rescueEU || s.RescueSSHKey == nil || *s.RescueSSHKey != publicKey || s.Monitoring {
		t.Errorf("after two starts: %+v", s)
	}
	w.ok("PUT", server, `{"bootId":1,"rescueSshKey":null}`, nil)
	if got := w.machine().Stage(); got != "rescue" {
		t.Errorf("a PUT alone moved the machine to %s", got)
	}
	w.finish(w.reboot().TaskID)
	w.stage("factory")
	if s := w.get(); *s.BootID != diskBoot || s.RescueSSHKey != nil {
		t.Errorf("set back: %+v", s)
	}
	if len(w.ovh.Mails()) != 0 {
		t.Errorf("mails: %v", w.ovh.Mails())
	}
}

func TestRescueWithoutKeySendsAPassword(t *testing.T) {
	w := start(t, nil)
	w.ok("PUT", server, map[string]any{"bootId": rescueEU, "rescueMail": "ops@example.org"}, nil)
	w.finish(w.reboot().TaskID)
	w.stage("rescue")
	mails := w.ovh.Mails()
	if len(mails) != 1 || mails[0].To != "ops@example.org" || !strings.Contains(mails[0].Text, "password") {
		t.Errorf("mails: %v", mails)
	}
}

// The kernel says what a boot is; the type does not, and the number differs between regions.
func TestBootsDifferByRegion(t *testing.T) {
	for _, region := range []string{"EU", "CA", "US"} {
		w := start(t, func(o *ovh.Options) { o.Region = region })
		var ids []int64
		w.ok("GET", server+"/boot?bootType=rescue", nil, &ids)
		if len(ids) < 2 {
			t.Fatalf("%s: rescue boots %v", region, ids)
		}
		var found int64
		for _, id := range ids {
			var b struct {
				BootID           int64
				BootType, Kernel string
			}
			w.ok("GET", fmt.Sprintf("%s/boot/%d", server, id), nil, &b)
			if b.BootType != "rescue" || b.BootID != id {
				t.Errorf("%s: %+v", region, b)
			}
			if b.Kernel == "rescue-customer" {
				found = b.BootID
			}
		}
		if (found == rescueEU) != (region == "EU") || found == 0 {
			t.Errorf("%s: rescue-customer is %d", region, found)
		}
		if region != "EU" {
			w.refused("PUT", server, map[string]any{"bootId": rescueEU, "monitoring": false}, 404, "Netboot id 46371 is not valid, must be on list : 1, ")
			if s := w.get(); !s.Monitoring {
				t.Errorf("%s: a refused PUT changed something", region)
			}
		}
	}
}

func TestPutIsStrict(t *testing.T) {
	w := start(t, nil)
	for _, c := range []struct{ body, words string }{
		{``, "Missing body"},
		{`{"bootID":1}{}`, "more than one"},
		{`{"ip":"198.51.100.1"}`, "ip"},
		{`{"colour":"red"}`, "colour"},
		{`{"bootId":"1"}`, "bootId"},
		{`{"rescueSshKey":"rsa"}`, "rescueSshKey"},
		{`{"rescueSshKey":"` + publicKey + `\n` + publicKey + `"}`, "rescueSshKey"},
		{`{"rescueMail":"me"}`, "rescueMail"},
		{`{"state":"fine"}`, "StateEnum"},
		{`{"monitoring":"off"}`, "monitoring"},
	} {
		w.refused("PUT", server, c.body, 400, c.words)
	}
	w.refused("PUT", "/dedicated/server/ns2.example.net", `{"monitoring":false}`, 404, "This service does not exist")
}

func TestUnknownCallsAndParameters(t *testing.T) {
	w := start(t, nil)
	w.refused("GET", server+"/statistics", nil, 404, "the lab does not simulate")
	w.refused("GET", server+"?full=1", nil, 400, "[query.full]")
	w.refused("GET", server+"/boot?bootType=floppy", nil, 400, "BootTypeEnum")
	w.refused("GET", server+"/boot/46372", nil, 404, "Client::NotFound")
	w.refused("GET", server+"/task/0", nil, 404, "Client::NotFound")
}

func TestPowerOffBootKeepsTheMachineDown(t *testing.T) {
	w := start(t, nil)
	w.ok("PUT", server, map[string]any{"bootId": 95083}, nil)
	w.finish(w.reboot().TaskID)
	w.stage("off")
	if s := w.get(); s.PowerState != "poweroff" {
		t.Errorf("power: %s", s.PowerState)
	}
	w.ok("PUT", server, map[string]any{"bootId": 203323}, nil) // a shell answers nobody
	w.finish(w.reboot().TaskID)
	w.stage("dead")
	w.ok("PUT", server, map[string]any{"bootId": 95083}, nil)
	must(t, w.machine().Reset(t.Context())) // not by the button: it starts, and is switched off
	w.stage("off")
	w.ok("PUT", server, map[string]any{"bootId": diskBoot}, nil)
	w.finish(w.reboot().TaskID)
	w.stage("factory")
}

func TestMachineFaults(t *testing.T) {
	w := start(t, nil)
	w.ok("PUT", server, map[string]any{"bootId": rescueEU, "rescueSshKey": publicKey}, nil)
	w.fault(faults.Fault{Kind: faults.RescueIgnored, Machine: service, Times: 1})
	w.finish(w.reboot().TaskID)
	w.stage("factory")
	if s := w.get(); *s.BootID != rescueEU {
		t.Errorf("bootId: %d", *s.BootID)
	}
	w.fault(faults.Fault{Kind: faults.ResetIgnored, Machine: service, Times: 1})
	if got := w.finish(w.reboot().TaskID); got.Status != "done" || w.machine().Stage() != "factory" {
		t.Errorf("ignored reset: task %s, machine %s", got.Status, w.machine().Stage())
	}
	w.finish(w.reboot().TaskID)
	w.stage("rescue")
	w.ok("PUT", server, map[string]any{"bootId": diskBoot}, nil)
	w.fault(faults.Fault{Kind: faults.BootHangs, Machine: service, Times: 1})
	w.finish(w.reboot().TaskID)
	w.stage("dead")
}

func TestSilentMonitoredServerGetsAnIntervention(t *testing.T) {
	w := start(t, func(o *ovh.Options) {
		o.Delay = func(string) time.Duration { return 20 * time.Millisecond }
	})
	w.stage("factory")
	w.ok("PUT", server, map[string]any{"monitoring": false}, nil)
	must(t, w.machine().PowerOff(t.Context()))
	for range 5 {
		var ids []int64
		w.ok("GET", server+"/intervention", nil, &ids)
		if len(ids) != 0 {
			t.Fatalf("an intervention on a server that is not monitored: %v", ids)
		}
	}
	w.ok("PUT", server, map[string]any{"monitoring": true}, nil)
	var ids []int64
	w.until("an intervention is opened", func() bool {
		w.ok("GET", server+"/intervention", nil, &ids)
		return len(ids) > 0
	})
	var i struct {
		InterventionID int64
		Date           time.Time
		Type           string
	}
	w.ok("GET", fmt.Sprintf("%s/intervention/%d", server, ids[0]), nil, &i)
	if i.InterventionID != ids[0] || i.Date.IsZero() || i.Type == "" {
		t.Errorf("intervention: %+v", i)
	}
	w.stage("factory") // the staff pressed the button
	var tasks []int64
	w.ok("GET", server+"/task?function=hardReboot", nil, &tasks)
	if len(tasks) != 1 {
		t.Errorf("tasks of the staff: %v", tasks)
	}
}

func TestWhatOthersDo(t *testing.T) {
	w := start(t, nil)
	must(t, w.ovh.Foreign(service, "rescue"))
	if s := w.get(); *s.BootID != rescueEU || s.RescueSSHKey == nil {
		t.Errorf("a stranger's rescue: %+v", s)
	}
	must(t, w.ovh.Foreign(service, "script"))
	must(t, w.ovh.Foreign(service, "hacked"))
	must(t, w.ovh.Foreign(service, "reinstallServer"))
	if s := w.get(); s.BootScript == nil || s.State != "hackedBlocked" {
		t.Errorf("a stranger's script: %+v", s)
	}
	var ids []int64
	w.ok("GET", server+"/task?function=reinstallServer", nil, &ids)
	if len(ids) != 1 {
		t.Fatalf("foreign tasks: %v", ids)
	}
	if got := w.finish(ids[0]); got.Status != "done" {
		t.Errorf("foreign task: %+v", got)
	}
	must(t, w.ovh.Foreign(service, "hardware_update"))
	w.ok("GET", server+"/task?function=hardware_update", nil, &ids)
	var waits struct {
		NeedSchedule bool
		Status       string
	}
	w.until("a task waits for a date", func() bool {
		_, data := w.call("GET", fmt.Sprintf("%s/task/%d", server, ids[0]), nil)
		return json.Unmarshal(data, &waits) == nil && waits.Status == "todo" && waits.NeedSchedule
	})
	if w.ovh.Foreign(service, "dance") == nil {
		t.Error("what nobody does was done")
	}
	must(t, w.ovh.Intervene(service, false))
	must(t, w.ovh.Foreign(service, "expired"))
	w.refused("GET", server, nil, 460, "This service is expired")
	w.refused("POST", server+"/reboot", nil, 460, "expired")
	var infos struct{ Status string }
	w.ok("GET", server+"/serviceInfos", nil, &infos)
	if infos.Status != "expired" {
		t.Errorf("serviceInfos: %+v", infos)
	}
	if w.ovh.Foreign("ns9", "") == nil || w.ovh.Intervene("ns9", false) == nil {
		t.Error("a server that does not exist was meddled with")
	}
}

func TestFaultsOfOthers(t *testing.T) {
	w := start(t, nil)
	w.fault(faults.Fault{Kind: faults.ForeignActivity, Machine: service})
	w.get()
	w.ok("PUT", server, map[string]any{"bootId": diskBoot, "rescueSshKey": nil}, nil)
	if s := w.get(); *s.BootID != diskBoot {
		t.Errorf("a fault without a number strikes a server once, it struck again: bootId %d", *s.BootID)
	}
	w.faults.Clear(0)
	w.fault(faults.Fault{Kind: faults.ForeignActivity, Machine: "198.19.1.11", Step: "hardReboot", Times: 1})
	w.fault(faults.Fault{Kind: faults.Intervention, Machine: "gra-11", Times: 1})
	w.get()
	w.get()
	var tasks, visits []int64
	w.ok("GET", server+"/task", nil, &tasks)
	w.ok("GET", server+"/intervention", nil, &visits)
	if len(tasks) != 1 || len(visits) != 1 {
		t.Errorf("tasks %v, interventions %v", tasks, visits)
	}
	w.fault(faults.Fault{Kind: faults.Invisible, Machine: service, Times: 2})
	var list []string
	w.ok("GET", "/dedicated/server", nil, &list)
	if len(list) != 0 {
		t.Errorf("an invisible server is listed: %v", list)
	}
	w.refused("GET", server, nil, 404, "This service does not exist")
	w.get()
}

func TestTerminationNeedsTheMail(t *testing.T) {
	w := start(t, nil)
	confirm := map[string]any{"token": "guess", "reason": "OTHER", "futureUse": "OTHER", "commentary": ""}
	w.refused("POST", server+"/confirmTermination", confirm, 403, "Invalid token")
	var said string
	w.ok("POST", server+"/terminate", nil, &said)
	w.refused("POST", server+"/confirmTermination", confirm, 403, "Invalid token")
	mails := w.ovh.Mails()
	confirm["token"] = strings.TrimPrefix(mails[len(mails)-1].Text, "token: ")
	if strings.Contains(said, confirm["token"].(string)) {
		t.Error("the token is in the answer")
	}
	w.ok("POST", server+"/confirmTermination", confirm, &said)
	var infos struct {
		Renew struct{ DeleteAtExpiration bool }
	}
	w.ok("GET", server+"/serviceInfos", nil, &infos)
	if !infos.Renew.DeleteAtExpiration || w.machine().Stage() == "off" {
		t.Error("a confirmed termination ends the service at its expiration, and not before")
	}
}

func TestRestartedLabKnowsItsServers(t *testing.T) {
	set := &faults.Set{}
	backend := scripted.New(t.Context(), scripted.Options{Faults: set})
	t.Cleanup(backend.Close)
	path := t.TempDir() + "/ovh.json"
	keep := func(o *ovh.Options) { o.StatePath, o.Backend = path, backend }
	w := start(t, keep)
	w.ok("PUT", server, map[string]any{"bootId": rescueEU, "rescueSshKey": publicKey}, nil)
	w.ok("POST", "/ip/198.19.1.11%2F32/reverse", map[string]any{"ipReverse": "198.19.1.11", "reverse": "gra-1.example.net"}, &struct{}{})
	w.backend = backend
	w.stage("factory")
	w.reboot()
	w.ovh.Close()
	again := start(t, keep)
	again.backend = backend
	again.stage("rescue")
	if s := again.get(); *s.BootID != rescueEU || s.Reverse != "gra-1.example.net." {
		t.Errorf("after a restart: %+v", s)
	}
	if got := len(backend.Machines()); got != 1 {
		t.Errorf("%d machines after a restart", got)
	}
	if err := again.ovh.Delete(t.Context()); err != nil || len(again.ovh.Servers()) != 0 {
		t.Errorf("delete: %v", err)
	}
}

func TestNewRefuses(t *testing.T) {
	backend := scripted.New(t.Context(), scripted.Options{})
	t.Cleanup(backend.Close)
	good := ovh.Options{ApplicationKey: "a", ApplicationSecret: "s", ConsumerKey: "c", Backend: backend}
	for name, change := range map[string]func(*ovh.Options){
		"no key":     func(o *ovh.Options) { o.ConsumerKey = "" },
		"no backend": func(o *ovh.Options) { o.Backend = nil },
		"endpoint":   func(o *ovh.Options) { o.Endpoint = "http://ovh.test" },
		"region":     func(o *ovh.Options) { o.Region = "MARS" },
		"twice":      func(o *ovh.Options) { o.Machines = []ovh.Rented{rented("a.b", 1), rented("a.b", 2)} },
		"no address": func(o *ovh.Options) { o.Machines = []ovh.Rented{{ServiceName: "a.b", Datacenter: "gra3"}} },
	} {
		opt := good
		change(&opt)
		if _, err := ovh.New(t.Context(), opt); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}
