package inprocess

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"popfleet/lab/faults"
	"popfleet/lab/scripted"
)

func ready(t *testing.T, o Options) (*Lab, *operator, context.Context, string) {
	t.Helper()
	l := Start(t, o)
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	t.Cleanup(cancel)
	op := newOperator(t, l)
	s := op.rescue(ctx, "fsn-1")
	return l, op, ctx, s.PublicNet.IPv4.IP.String()
}

func TestInstallRefuses(t *testing.T) {
	l, o, ctx, ip := ready(t, Options{})
	c, err := o.dial(ctx, ip+":22", o.key, "")
	must(t, err)
	defer c.Close()
	for _, x := range []struct {
		want   string
		change func(map[string]any)
	}{
		{"wrong_disk", func(s map[string]any) { s["serials"] = []string{"NOPE"} }},
		{"disk_too_small", func(s map[string]any) { s["min_gb"] = 4000 }},
		{"bad_spec", func(s map[string]any) { s["surprise"] = 1 }},
		{"bad_spec", func(s map[string]any) { s["run"] = "" }},
	} {
		spec, blobs := o.installSpec()
		x.change(spec)
		if _, code := o.exchange(c, "install", spec, blobs); code != x.want {
			t.Errorf("install: %s, want %s", code, x.want)
		}
	}
	l.Machine(t, "fsn-1").PlantForeign(0, "linux: ext4 of somebody else")
	spec, blobs := o.installSpec()
	if _, code := o.exchange(c, "install", spec, blobs); code != "wrong_disk" {
		t.Errorf("install over a foreign disk: %s", code)
	}
	if w := l.Machine(t, "fsn-1").Ledger().Wipes(); len(w) != 0 {
		t.Errorf("refused installs wiped %v", w)
	}
	if _, code := o.exchange(c, "seal", map[string]any{"version": 1, "node": "fsn-1"}, nil); code != "wrong_node" {
		t.Errorf("seal in rescue: %s", code)
	}
}

// A cut connection leaves the installer running; the same request joins it again.
func TestInstallSurvivesACutConnection(t *testing.T) {
	l, o, ctx, ip := ready(t, Options{Timing: scripted.Timing{Step: 5 * time.Millisecond}})
	cut := l.Faults.MustAdd(faults.Fault{Kind: faults.Cut, Port: 22, Bytes: 4200, Times: 1})
	spec, blobs := o.installSpec()
	c, err := o.dial(ctx, ip+":22", o.key, "")
	must(t, err)
	_, code := o.exchange(c, "install", spec, blobs)
	c.Close()
	if len(code) < 4 || code[:4] != "cut:" {
		t.Fatalf("install over a connection that is cut: %q (fault %+v)", code, cut)
	}
	c, err = o.dial(ctx, ip+":22", o.key, "")
	must(t, err)
	defer c.Close()
	raw, code := o.exchange(c, "install", spec, blobs)
	if code != "" {
		t.Fatalf("joining: %s", code)
	}
	m := l.Machine(t, "fsn-1").Ledger()
	if w := m.Wipes(); w[l.Machine(t, "fsn-1").Serials()[0]] != 1 || len(m.Installs()) != 1 {
		t.Errorf("wipes %v, installs %v", w, m.Installs())
	}
	again, code := o.exchange(c, "install", spec, blobs)
	if code != "" || string(again) != string(raw) {
		t.Errorf("asking once more: %s %s", code, again)
	}
	other, blobs := o.installSpec()
	other["run"] = "run-2"
	if _, code := o.exchange(c, "install", other, blobs); code != "wrong_disk" {
		t.Errorf("another run over an installed disk: %s", code)
	}
	other["prev_marker"] = "run-1"
	if _, code := o.exchange(c, "install", other, blobs); code != "" {
		t.Errorf("another run that knows the disk: %s", code)
	}
}

func TestPowerLostDuringInstall(t *testing.T) {
	l, o, ctx, ip := ready(t, Options{})
	m := l.Machine(t, "fsn-1")
	l.Faults.MustAdd(faults.Fault{Kind: faults.SpontaneousBoot, Step: "configure", Times: 1})
	spec, blobs := o.installSpec()
	c, err := o.dial(ctx, ip+":22", o.key, "")
	must(t, err)
	if _, code := o.exchange(c, "install", spec, blobs); len(code) < 4 || code[:4] != "cut:" {
		t.Fatalf("install on a machine that reboots: %q", code)
	}
	c.Close()
	until(t, func() bool { return m.Stage() == "dead" }) // half-installed: it can't boot
	k, err := o.api.SSHKey.All(ctx)
	must(t, err)
	s, _, err := o.api.Server.GetByName(ctx, "fsn-1")
	must(t, err)
	r, _, err := o.api.Server.EnableRescue(ctx, s, hcloudRescue(k))
	must(t, err)
	must(t, o.api.Action.WaitFor(ctx, r.Action))
	a, _, err := o.api.Server.Reset(ctx, s)
	must(t, err)
	must(t, o.api.Action.WaitFor(ctx, a))
	c, err = o.dial(ctx, ip+":22", o.key, "")
	must(t, err)
	defer c.Close()
	raw, code := o.exchange(c, "install", spec, blobs)
	var in installed
	if code != "" || json.Unmarshal(raw, &in) != nil || len(in.Wiped) != 0 {
		t.Errorf("second try of the same run: %s %s, wiped must be empty", code, raw)
	}
	if w := m.Ledger().Wipes(); w[m.Serials()[0]] != 1 {
		t.Errorf("wipes %v", w)
	}
}

func TestUnlockTries(t *testing.T) {
	l, o, ctx, ip := ready(t, Options{Timing: scripted.Timing{Panic: time.Millisecond}})
	spec, blobs := o.installSpec()
	c, err := o.dial(ctx, ip+":22", o.key, "")
	must(t, err)
	raw, code := o.exchange(c, "install", spec, blobs)
	c.Close()
	if code != "" {
		t.Fatal(code)
	}
	var in installed
	must(t, json.Unmarshal(raw, &in))
	m := l.Machine(t, "fsn-1")
	m.WithoutDoor()
	must(t, m.Reset(ctx))
	for range triesTotal {
		if code, err := o.unlock(ctx, ip+":2222", in.InitramfsHostKey, ""); code != 1 || err != nil {
			t.Fatalf("empty try: exit %d, %v", code, err)
		}
	}
	until(t, func() bool { return len(m.Ledger().Boots()) == 3 && m.Stage() == "locked" }) // gave up, panicked, rebooted
	if code, err := o.unlock(ctx, ip+":2222", in.InitramfsHostKey, "0123456789abcdef0123456789abcdef"); code != 0 || err != nil {
		t.Errorf("right key after the reboot: exit %d, %v", code, err)
	}
	got := m.Ledger().Unlocks()
	if len(got) != triesTotal+1 || got[0].Outcome != "empty" || got[triesTotal].Outcome != "opened" {
		t.Errorf("ledger: %+v", got)
	}
}

// triesTotal is what facts say of cryptroot-unlock and local-block: three and three more.
const triesTotal = 6

// Hundreds of machines must fit into one process, and leave nothing behind (goleak in TestMain).
func TestManyMachines(t *testing.T) {
	if testing.Short() {
		t.Skip("boots 200 machines")
	}
	const machines = 200
	l := Start(t, Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	o := newOperator(t, l)
	began := time.Now()
	var work sync.WaitGroup
	limit := make(chan struct{}, 20)
	for i := range machines {
		limit <- struct{}{}
		work.Go(func() {
			defer func() { <-limit }()
			s, _, err := o.api.Server.Create(ctx, opts(fmt.Sprintf("n-%d", i)))
			if err != nil {
				t.Error(err)
				return
			}
			if err := o.api.Action.WaitFor(ctx, s.Action); err != nil {
				t.Error(err)
			}
			a, _, err := o.api.Server.Poweron(ctx, s.Server)
			if err != nil {
				t.Error(err)
				return
			}
			if err := o.api.Action.WaitFor(ctx, a); err != nil {
				t.Error(err)
			}
		})
	}
	work.Wait()
	until(t, func() bool {
		for _, m := range l.Machines.Machines() {
			if m.Stage() != "factory" {
				return false
			}
		}
		return true
	})
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	t.Logf("%d machines rented and started in %s, %d goroutines, %d MB heap", machines, time.Since(began).Round(time.Millisecond), runtime.NumGoroutine(), mem.HeapAlloc>>20)
}
