package bootkeep

import (
	"context"
	"crypto/ed25519"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"popfleet/agents/bootchain"
	"popfleet/agents/bootcheck"
	"popfleet/agents/command"
	"popfleet/agents/facts"
	"popfleet/agents/hostkey"
	"popfleet/internal/strictjson"
	"popfleet/playbooks/spec"
)

// TestMain lets the test binary be what dpkg calls, too.
func TestMain(m *testing.M) {
	if os.Getenv(asHook) != "" {
		hook()
		return
	}
	goleak.VerifyTestMain(m)
}

type runner struct{ ran []string }

func (r *runner) Run(_ context.Context, c command.Cmd) ([]byte, error) {
	r.ran = append(r.ran, strings.Join(c.Argv, " "))
	return nil, nil
}

// newKeeper is of a node that has little more than a name: every check fails.
func newKeeper(t *testing.T) (Keeper, *runner) {
	root := t.TempDir()
	for path, data := range map[string]string{
		"etc/fleet/node.json":             `{"fleet":"demo","node":"fsn-1","run":"r1"}`,
		"proc/sys/kernel/random/boot_id":  "b00t\n",
		"sys/block/none":                  "",
		"boot/grub/none":                  "",
		"run/none":                        "",
		"var/lib/fleet/agent/somebody's":  "",
		"var/lib/fleet/agent/precious":    "precious",
		"proc/self/mountinfo":             "",
		"usr/lib/fleet/boot/unused-today": "",
	} {
		os.MkdirAll(filepath.Dir(filepath.Join(root, path)), 0o755)
		if err := os.WriteFile(filepath.Join(root, path), []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r := &runner{}
	c := bootcheck.Checker{Host: facts.Host{Root: root}, Run: r,
		Network: func() (spec.Network, error) { return spec.Network{}, nil }, RootDevice: func() (string, error) { return "", os.ErrNotExist }}
	return Keeper{Checker: c, Run: r, Log: slog.New(slog.DiscardHandler)}, r
}

// last is what was kept of the last check.
func last(k Keeper) (b spec.BootCheck, err error) {
	err = strictjson.File(filepath.Join(k.path(ResultDir), ResultFile), &b)
	return b, err
}

func guardedNow(k Keeper) bool {
	_, err := os.Stat(k.guardPath("reboot.target"))
	return err == nil
}

// TestAFailedCheckGuards: systemd is told once, the result is kept, and a check that passes takes the refusal away.
func TestAFailedCheckGuards(t *testing.T) {
	k, r := newKeeper(t)
	count := func() (n int) {
		for _, l := range r.ran {
			if l == "systemctl daemon-reload" {
				n++
			}
		}
		return n
	}
	for range 2 {
		result, err := k.Check(t.Context(), spec.BootCheckRequest{})
		if err != nil || result.OK() {
			t.Fatalf("%v, %+v", err, result)
		}
	}
	kept, err := last(k)
	if err != nil || kept.Node != "fsn-1" || len(kept.Failed()) < 5 {
		t.Errorf("kept: %+v, %v", kept, err)
	}
	for _, target := range guarded {
		text, err := os.ReadFile(k.guardPath(target))
		if err != nil || !strings.Contains(string(text), "\n[Unit]\n") || !strings.Contains(string(text), "\nRefuseManualStart=yes\n") {
			t.Errorf("%s: %v %s", target, err, text)
		}
	}
	if !guardedNow(k) || count() != 1 {
		t.Errorf("guarded %v, systemd was told %d times", guardedNow(k), count())
	}
	for range 2 {
		if err := k.guard(t.Context(), true); err != nil {
			t.Fatal(err)
		}
	}
	if guardedNow(k) || count() != 2 {
		t.Errorf("guarded %v, systemd was told %d times", guardedNow(k), count())
	}
}

// TestTheResultStaysInItsFolder: the folder is the agent's, which may have been taken over; root writes nowhere else.
func TestTheResultStaysInItsFolder(t *testing.T) {
	k, _ := newKeeper(t)
	outside := k.path("/etc/fleet/node.json")
	for _, name := range []string{ResultFile, ResultFile + ".new"} {
		if err := os.Symlink(outside, filepath.Join(k.path(ResultDir), name)); err != nil {
			t.Fatal(err)
		}
	}
	before, _ := os.ReadFile(outside)
	if _, err := k.Check(t.Context(), spec.BootCheckRequest{}); err != nil {
		t.Fatal(err)
	}
	after, _ := os.ReadFile(outside)
	if string(before) != string(after) {
		t.Errorf("a link was followed: %s", after)
	}
	if _, err := last(k); err != nil {
		t.Error(err)
	}
}

func TestKeepMakesTheNodePartAnew(t *testing.T) {
	k, _ := newKeeper(t)
	key := hostkey.Key{Private: ed25519.NewKeyFromSeed(make([]byte, 32))}
	if err := key.Save(k.path(hostkey.InitramfsFile)); err != nil {
		t.Fatal(err)
	}
	node := bootchain.Node{Network: spec.Network{MAC: "52:54:00:00:00:01"}, LUKSUUID: "1-2",
		AuthorizedKeys: []string{"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGk24VWnAO0gqMNcOb5kRjqslTg57MSWEI/pNJmgogpW fleet"}}
	if err := node.Save(k.path("/")); err != nil {
		t.Fatal(err)
	}
	part := k.path(bootchain.NodePartFile)
	for i, c := range []struct {
		spoil func() error
		made  string
	}{
		{func() error { return nil }, bootchain.NodePartFile},
		{func() error { return nil }, ""},
		{func() error { return os.WriteFile(part, []byte("another's"), 0o600) }, bootchain.NodePartFile},
		{func() error { return os.Remove(part) }, bootchain.NodePartFile},
	} {
		if err := c.spoil(); err != nil {
			t.Fatal(err)
		}
		made, _, err := k.Keep(t.Context())
		if err != nil || strings.Join(made, " ") != c.made {
			t.Errorf("%d: made %q, %v; want %q", i, made, err, c.made)
		}
	}
}
