package e2e

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"popfleet/internal/journal"
	"popfleet/lab/faults"
	"popfleet/lab/inprocess"
	"popfleet/playbooks/spec"
	"popfleet/provision/lifecycle"
	"popfleet/provision/provider"
	"popfleet/provision/remote"
)

// A disk that carries somebody else's system is never wiped, and is not asked for twice.
func TestForeignDiskIsRefused(t *testing.T) {
	w := newWorld(t, inprocess.Options{}, 1)
	w.deps.Journal = &onBegin{memoryJournal: &memoryJournal{}, op: string(lifecycle.OpInstall), do: func() {
		w.lab.Machine(t, "fsn-1").PlantForeign(0, "linux: xfs, somebody's database")
	}}
	r := w.up(t)[0]
	var told *spec.Error
	if !errors.As(r.Err, &told) || told.Code != spec.CodeWrongDisk {
		t.Fatalf("got %v", r.Err)
	}
	if wipes := w.lab.Machine(t, "fsn-1").Ledger().Wipes(); len(wipes) != 0 {
		t.Errorf("wiped %v", wipes)
	}
}

// A controller has no API token: it unlocks by what was written down, when its policy allows.
func TestControllerUnlocksByItsPolicy(t *testing.T) {
	w := newWorld(t, inprocess.Options{}, 1)
	w.serving(t, w.up(t))
	m := w.lab.Machine(t, "fsn-1")
	must(t, m.Reset(t.Context()))
	w.until(t, "fsn-1", lifecycle.Locked)
	d := w.newDeps(t)
	d.Provider = func(string) (provider.Provider, error) {
		return lifecycle.Remembered{Memory: w.vault, Nodes: []string{"fsn-1"}}, nil
	}
	hold := errors.New("not expected to boot")
	d.Allow = func(context.Context, lifecycle.Node, lifecycle.Observation) error { return hold }
	r, err := lifecycle.Unlock(t.Context(), d, w.nodes[0])
	must(t, err)
	if !errors.Is(r.Err, lifecycle.ErrHeld) || !errors.Is(r.Err, hold) || len(m.Ledger().Unlocks()) != 1 {
		t.Fatalf("held: %v, %d keys sent", r.Err, len(m.Ledger().Unlocks())-1)
	}
	leases := 0
	d.Allow = nil
	d.Lease = func(context.Context, string) (func(), error) { leases++; return func() { leases-- }, nil }
	r, err = lifecycle.Unlock(t.Context(), d, w.nodes[0])
	must(t, err)
	if r.Err != nil || len(m.Ledger().Unlocks()) != 2 || leases != 0 {
		t.Errorf("%v, %d keys sent, %d leases left", r.Err, len(m.Ledger().Unlocks())-1, leases)
	}
}

// A wrong key burns one try, not three, and the run stops.
func TestWrongKeyIsSentOnce(t *testing.T) {
	w := newWorld(t, inprocess.Options{}, 1)
	w.serving(t, w.up(t))
	m := w.lab.Machine(t, "fsn-1")
	_, err := lifecycle.Wipe(t.Context(), w.deps, w.nodes) // no key opens it any more
	must(t, err)
	must(t, m.Reset(t.Context()))
	w.until(t, "fsn-1", lifecycle.Locked)
	tried := len(m.Ledger().Unlocks())
	r := w.up(t)[0]
	var failed *remote.UnlockError
	if !errors.As(r.Err, &failed) || failed.Outcome != remote.WrongKey {
		t.Fatalf("got %v", r.Err)
	}
	if n := len(m.Ledger().Unlocks()) - tried; n != 1 {
		t.Errorf("%d keys were sent", n)
	}
}

// The real journal holds every step with its end, and no secret.
func TestJournalOfAnUp(t *testing.T) {
	w := newWorld(t, inprocess.Options{}, 1)
	path := filepath.Join(t.TempDir(), "journal.db")
	j, err := journal.Open(path)
	must(t, err)
	defer j.Close()
	w.deps.Journal = j
	w.lab.Faults.MustAdd(faults.Fault{Kind: faults.InstallFails, Times: 1})
	w.serving(t, w.up(t))
	entries, err := j.Entries(t.Context(), journal.Filter{})
	must(t, err)
	var failed, tofu bool
	for _, e := range entries {
		if e.Status == journal.Doing {
			t.Errorf("%s has no end", e.Op)
		}
		failed = failed || e.Op == string(lifecycle.OpInstall) && e.Status == journal.Failed
		tofu = tofu || strings.Contains(string(e.Evidence), `"trust":"tofu"`)
	}
	if len(entries) < 8 || !failed || !tofu {
		t.Errorf("%d steps, a failed one: %t, tofu recorded: %t", len(entries), failed, tofu)
	}
}
