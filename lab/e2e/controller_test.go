package e2e

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"popfleet/agents"
	"popfleet/fleet/controller"
	"popfleet/fleet/controller/client"
	"popfleet/internal/dial"
	"popfleet/internal/journal"
	"popfleet/internal/mtls"
	"popfleet/inventory"
	"popfleet/inventory/vault"
	"popfleet/lab/inprocess"
	"popfleet/provision/lifecycle"
)

// ruled is a world with a controller over it.
type ruled struct {
	*world
	t    *testing.T
	addr string
	seq  uint64 // of the last report

	changed string // what it says a package run made it boot from
}

func withController(t *testing.T, w *world) *ruled {
	t.Helper()
	dir := t.TempDir()
	j, err := journal.Open(filepath.Join(dir, "journal.db"))
	must(t, err)
	fleet := inventory.Default()
	fleet.Name, fleet.PoPs = "demo", []inventory.PoP{{Name: "fsn", Nodes: []inventory.Node{{Name: "fsn-1"}}}}
	d := w.newDeps(t)
	if w.deps.Boots != nil {
		d.Boots, d.Rotation = w.vault, w.vault
	}
	d.Journal, d.Provider, d.Rent, d.Image, d.Compiler = j, nil, nil, nil, nil // it has no token, and installs nothing
	listening := make(chan net.Addr, 1)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- controller.Run(ctx, controller.Config{Listen: "127.0.0.1:0", Dir: dir, Interval: 200 * time.Millisecond}, controller.Deps{
			Fleet:     func() (*inventory.Fleet, error) { return fleet, nil },
			Identity:  func() (*mtls.Identity, error) { return vaultIdentity(w.vault, "controller", "ctl") },
			Lifecycle: d,
			Listening: func(a net.Addr) { listening <- a },
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		j.Close()
	})
	select {
	case a := <-listening:
		return &ruled{world: w, t: t, addr: a.String()}
	case err := <-done:
		done <- nil
		t.Fatal("the controller did not start: ", err)
	}
	return nil
}

func vaultIdentity(v *vault.Vault, service, name string) (*mtls.Identity, error) {
	leaf, err := v.Leaf(vault.LeafSpec{Service: service, Node: name})
	if err != nil {
		return nil, err
	}
	cert, err := leaf.TLS()
	if err != nil {
		return nil, err
	}
	authority, err := v.CACertPEM()
	if err != nil {
		return nil, err
	}
	return mtls.Fixed(cert, authority)
}

// report speaks as the node's agent.
func (r *ruled) report(boot string) {
	r.t.Helper()
	id, err := vaultIdentity(r.vault, "agent", "fsn-1")
	must(r.t, err)
	r.seq++
	var body bytes.Buffer
	z := gzip.NewWriter(&body)
	must(r.t, json.NewEncoder(z).Encode([]agents.Report{{V: 1, Node: "fsn-1", BootID: boot, Seq: r.seq, Time: time.Now(), BootChanged: r.changed}}))
	must(r.t, z.Close())
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodPost, "https://"+r.addr+"/v1/reports", &body)
	must(r.t, err)
	req.Header.Set("Content-Encoding", "gzip")
	c := http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		TLSClientConfig: id.Client(mtls.Name{Fleet: "demo", Service: "controller", Node: "ctl"})}}
	res, err := c.Do(req)
	must(r.t, err)
	res.Body.Close()
	if res.StatusCode != http.StatusOK {
		r.t.Fatal(res.Status)
	}
}

// await asks for the status until the node is as it should be.
func (r *ruled) await(what string, is func(controller.Node) bool) controller.Node {
	r.t.Helper()
	id, err := vaultIdentity(r.vault, "operator", "ada")
	must(r.t, err)
	c := client.New(dial.Direct(), id, "demo", r.addr)
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	for {
		s, err := c.Status(ctx)
		must(r.t, err)
		if is(s.Nodes[0]) {
			return s.Nodes[0]
		}
		select {
		case <-ctx.Done():
			r.t.Fatalf("never %s: %+v", what, s.Nodes[0])
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// A node whose power was cut is opened by the controller alone, once, and the times are told.
func TestControllerOpensANodeThatWasPowerCycled(t *testing.T) {
	w := newWorld(t, inprocess.Options{}, 1)
	w.serving(t, w.up(t))
	r := withController(t, w)
	r.report("boot-1")
	m := w.lab.Machine(t, "fsn-1")
	before := len(m.Ledger().Unlocks())
	must(t, m.Reset(t.Context()))
	n := r.await("unlocked", func(n controller.Node) bool { return n.Lock.LastUnlock != nil })
	r.report("boot-2")
	n = r.await("reported", func(n controller.Node) bool { return n.Lock.LastUnlock.UnlockedToReportSec != nil })
	if sent := len(m.Ledger().Unlocks()) - before; sent != 1 || n.Lock.State != controller.Unlocked || n.Lock.LastUnlock.DropbearToUnlocked == nil {
		t.Errorf("%d keys sent, %+v", sent, n.Lock)
	}
}

// A machine that calls the key wrong is asked once, and a person is called.
func TestControllerStopsAfterAWrongKey(t *testing.T) {
	w := newWorld(t, inprocess.Options{}, 1)
	w.serving(t, w.up(t))
	_, err := lifecycle.Wipe(t.Context(), w.deps, w.nodes) // no key opens it any more
	must(t, err)
	r := withController(t, w)
	r.report("boot-1")
	m := w.lab.Machine(t, "fsn-1")
	before := len(m.Ledger().Unlocks())
	must(t, m.Reset(t.Context()))
	n := r.await("alarmed", func(n controller.Node) bool { return n.Lock.Alarm })
	if n.Lock.State != controller.Held || !strings.Contains(n.Lock.Why, "wrong key") || n.Lock.Next != "fleet unlock fsn-1" {
		t.Errorf("%+v", n.Lock)
	}
	if sent := len(m.Ledger().Unlocks()) - before; sent != 1 {
		t.Errorf("%d keys sent", sent)
	}
}
