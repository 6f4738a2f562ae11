package seal

import (
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"popfleet/agents/command"
	"popfleet/agents/facts"
	"popfleet/agents/luks"
	"popfleet/playbooks/spec"
)

// realHeader is a LUKS2 header in a file, made and judged by the real cryptsetup, which needs no device for its slots.
func realHeader(t *testing.T) (path string, l luks.Tool) {
	t.Helper()
	if _, err := exec.LookPath("cryptsetup"); err != nil {
		t.Skip("no cryptsetup on this machine")
	}
	path = filepath.Join(t.TempDir(), "header")
	f, err := os.Create(path)
	if err == nil {
		err = errors.Join(f.Truncate(32<<20), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	l = luks.Tool{Run: command.System{}}
	quick := luks.KDF{"--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"}
	for _, err := range []error{
		l.Format(t.Context(), path, []byte(install), "fleet/fsn-1"),
		l.AddKey(t.Context(), path, 1, []byte(install), []byte(oldKey), quick),
		l.AddKey(t.Context(), path, recoverySlot, []byte(oldKey), []byte(human), quick),
		l.KillSlot(t.Context(), path, installSlot, []byte(oldKey)),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return path, l
}

// TestRotateARealHeader: cryptsetup agrees with what the other tests say of it.
func TestRotateARealHeader(t *testing.T) {
	path, l := realHeader(t)
	h := Handler{Host: facts.Host{Root: node(t)}, Run: command.System{}, Log: slog.New(slog.DiscardHandler),
		RootDevice: func() (string, error) { return path, nil }}
	current, next := oldKey, newKey
	for _, slots := range []string{"2 recovery pbkdf2, 3 machine pbkdf2", "1 machine pbkdf2, 2 recovery pbkdf2"} {
		for _, step := range []struct{ name, current, other string }{{spec.RotateAdd, current, next}, {spec.RotateRetire, next, current}} {
			for range 2 {
				r, err := rotateWith(t.Context(), h, step.name, step.current, step.other)
				if err != nil {
					t.Fatalf("%s: %v", step.name, err)
				}
				if step.name == spec.RotateRetire && strings.Join(r.Slots, ", ") != slots {
					t.Errorf("slots %v, expected %s", r.Slots, slots)
				}
			}
		}
		for key, want := range map[string]bool{current: false, next: true, human: true} {
			if opens, err := l.Opens(t.Context(), path, -1, []byte(key)); err != nil || opens != want {
				t.Errorf("a key opens: %v, expected %v; %v", opens, want, err)
			}
		}
		var told *spec.Error
		if _, err := rotateWith(t.Context(), h, spec.RotateAdd, current, thirdKey); !errors.As(err, &told) || told.Code != spec.CodeStaleKey {
			t.Errorf("with the key from before: %v", err)
		}
		current, next = next, current
	}
}
