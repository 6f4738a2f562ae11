package e2e

import (
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"popfleet/lab/faults"
	"popfleet/lab/inprocess"
)

// Another machine answers in the place of a node whose key is known: its run stops, naming both fingerprints and sending
// nothing; the other node is done.
func TestCLIImpostor(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		port uint16
	}{{"system", 22}, {"unlock", 2222}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newCLIWorld(t, inprocess.Options{})
			w.want(t, 0, "up", "--yes")
			m := w.lab.Machine(t, "demo-fsn-1")
			keys, err := w.openVault(t).Node("fsn-1")
			must(t, err)
			pinned := keys.SystemHostKey
			if c.port == 2222 {
				pinned = keys.InitramfsHostKey
				must(t, m.Reset(t.Context()))
				w.untilStage(t, m, "locked")
			}
			fault := w.lab.Faults.MustAdd(faults.Fault{Kind: faults.Impostor, Machine: "demo-fsn-1", Port: c.port})
			w.edit(t, "ttl: 30s", "ttl: 60s") // the other node has something to do
			o := w.want(t, 3, "up", "--yes")
			want, err := pinned.PublicKey()
			must(t, err)
			for _, key := range []ssh.PublicKey{want, w.lab.Impostor.HostKey()} {
				if !strings.Contains(o.stderr+o.stdout, ssh.FingerprintSHA256(key)) {
					t.Errorf("fingerprint %s is not named: %s", ssh.FingerprintSHA256(key), o)
				}
			}
			if n := w.lab.Machine(t, "demo-fsn-2").Ledger().Applies(); n != 2 {
				t.Errorf("the other node was not brought to its spec: %d applies: %s", n, o)
			}
			w.heardNothing(t, fault)
			w.lab.Faults.Clear(0)
			w.want(t, 0, "up", "--yes")
		})
	}
}

// Nobody can know a rescue system's key at this provider, so an impostor there is talked to: what it hears opens nothing
// that lasts.
func TestCLIImpostorInRescue(t *testing.T) {
	t.Parallel()
	w := newCLIWorld(t, inprocess.Options{})
	fault := w.lab.Faults.MustAdd(faults.Fault{Kind: faults.Impostor, Machine: "demo-fsn-1", Port: 22})
	o := w.want(t, 3, "up", "--yes")
	if !strings.Contains(o.stderr, "tofu") {
		t.Errorf("first use is not said aloud: %s", o)
	}
	if w.lab.Faults.Hits(fault.ID) == 0 {
		t.Fatal("the fault never struck")
	}
	n := w.fleetNeedles(t)
	delete(n, "fsn-1 install key") // it ends with the installation, and opens nothing but that
	delete(n, "fsn-1 install key, raw")
	haystack{"what the impostor heard": w.lab.Impostor.Heard()}.search(t, n)
}

// heardNothing demands that the impostor was met and nobody logged in to it.
func (w *cliWorld) heardNothing(t *testing.T, f faults.Fault) {
	t.Helper()
	if w.lab.Faults.Hits(f.ID) == 0 {
		t.Error("the fault never struck")
	}
	if i := w.lab.Impostor; i.Logins() != 0 || len(i.Heard()) != 0 {
		t.Errorf("the impostor was talked to: %d logins, %d bytes heard", i.Logins(), len(i.Heard()))
	}
}
