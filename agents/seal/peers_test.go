package seal

import (
	"context"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"popfleet/agents/bootchain"
	"popfleet/internal/shares"
	"popfleet/playbooks/spec"
)

func peerNode(t *testing.T) string {
	t.Helper()
	root := node(t)
	script := filepath.Join(root, bootchain.ShareScript)
	if err := os.MkdirAll(filepath.Dir(script), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(script, []byte("#"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := handler(root, fresh()).Seal(t.Context(), request("fsn-1"), silent{})
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func cut(t *testing.T, number int, peers ...string) shares.Generation {
	t.Helper()
	g, err := shares.New("fsn-1", number, 2, peers, nil)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// peerRequest expects these generations; the last one's key is the wanted one.
func peerRequest(t *testing.T, step, current string, generations ...shares.Generation) spec.PeerKey {
	t.Helper()
	r := spec.PeerKey{Version: 1, Node: "fsn-1", Step: step, MachineKey: []byte(oldKey), Current: []byte(current)}
	c := shares.Commitments{Node: "fsn-1"}
	for _, g := range generations {
		c.Generations = append(c.Generations, g.Commit())
		r.Key = []byte(g.Key)
	}
	if len(generations) == 0 {
		return r
	}
	r.Commitments = c.Text()
	for i, p := range c.Peers() {
		signer, err := ssh.ParsePrivateKey(pemKey(byte('k' + i)))
		if err != nil {
			t.Fatal(err)
		}
		r.Logins = append(r.Logins, spec.PeerLogin{Node: p, Key: strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey())))})
	}
	return r
}

func do(ctx context.Context, root string, d *luksDevice, r spec.PeerKey) (spec.PeerKeyed, error) {
	raw, _ := json.Marshal(r)
	out, err := handler(root, d).PeerKey(ctx, raw, silent{})
	if err != nil {
		return spec.PeerKeyed{}, err
	}
	return out.(spec.PeerKeyed), nil
}

func expected(t *testing.T, root string) string {
	t.Helper()
	n, err := bootchain.ReadNode(root)
	if err != nil {
		t.Fatal(err)
	}
	return n.Peers.Commitments
}

func TestPeerKeyComesChangesAndGoes(t *testing.T) {
	root, d := peerNode(t), sealedDevice()
	first, second := cut(t, 1, "a-1", "b-1"), cut(t, 2, "a-1", "c-1")
	for _, c := range []struct {
		name  string
		req   spec.PeerKey
		opens map[string]bool
		slots int
	}{
		{"added", peerRequest(t, spec.PeerKeyAdd, "", first), map[string]bool{first.Key: true}, 3},
		{"proven", peerRequest(t, spec.PeerKeyRetire, "", first), map[string]bool{first.Key: true}, 3},
		{"another beside it", peerRequest(t, spec.PeerKeyAdd, first.Key, first, second), map[string]bool{first.Key: true, second.Key: true}, 4},
		{"the old one gone", peerRequest(t, spec.PeerKeyRetire, "", second), map[string]bool{first.Key: false, second.Key: true}, 3},
		{"all gone", peerRequest(t, spec.PeerKeyRetire, ""), map[string]bool{first.Key: false, second.Key: false}, 2},
	} {
		for range 2 { // each step may be repeated
			r, err := do(t.Context(), root, d, c.req)
			if err != nil || len(r.Slots) != c.slots || r.InitramfsSHA == "" {
				t.Fatalf("%s: %+v, %v", c.name, r, err)
			}
			for key, want := range c.opens {
				if d.opens(key) != want {
					t.Errorf("%s: a key opens: %v", c.name, !want)
				}
			}
			if !d.opens(oldKey) || !d.opens(human) || expected(t, root) != c.req.Commitments {
				t.Fatalf("%s: slots %v", c.name, d.slots)
			}
		}
	}
}

// TestPeerKeyCutAnywhere: whatever call is the last one, a generation that the initramfs expects opens the disk, the
// machine key does, and the same step again ends well.
func TestPeerKeyCutAnywhere(t *testing.T) {
	first, second := cut(t, 1, "a-1", "b-1"), cut(t, 2, "a-1", "c-1")
	for _, step := range []spec.PeerKey{peerRequest(t, spec.PeerKeyAdd, first.Key, first, second), peerRequest(t, spec.PeerKeyRetire, "", second)} {
		for at := 1; ; at++ {
			root, d := peerNode(t), sealedDevice()
			if _, err := do(t.Context(), root, d, peerRequest(t, spec.PeerKeyAdd, "", first)); err != nil {
				t.Fatal(err)
			}
			if step.Step == spec.PeerKeyRetire {
				if _, err := do(t.Context(), root, d, peerRequest(t, spec.PeerKeyAdd, first.Key, first, second)); err != nil {
					t.Fatal(err)
				}
			}
			d.calls, d.cut = 0, at
			_, err := do(t.Context(), root, d, step)
			c, perr := shares.ParseCommitments(expected(t, root))
			if perr != nil {
				t.Fatal(perr)
			}
			for _, g := range c.Generations {
				if key := map[int]string{1: first.Key, 2: second.Key}[g.Generation]; !d.opens(key) {
					t.Fatalf("%s cut at call %d: generation %d is expected and opens nothing", step.Step, at, g.Generation)
				}
			}
			if !d.opens(oldKey) || !d.opens(human) {
				t.Fatalf("%s cut at call %d: slots %v", step.Step, at, d.slots)
			}
			if err == nil {
				if at < 5 {
					t.Errorf("%s makes %d calls: nothing was cut", step.Step, at)
				}
				break
			}
			d.cut = 0
			if _, err := do(t.Context(), root, d, step); err != nil {
				t.Fatalf("%s cut at call %d and repeated: %v", step.Step, at, err)
			}
		}
	}
}

// TestAnOperatorBeganAnew: a key that was added and never in force makes room; the one in force stays.
func TestAnOperatorBeganAnew(t *testing.T) {
	first, second, third := cut(t, 1, "a-1", "b-1"), cut(t, 2, "a-1", "c-1"), cut(t, 3, "b-1", "c-1")
	for _, swapped := range []bool{false, true} {
		root, d := peerNode(t), sealedDevice()
		for _, r := range []spec.PeerKey{peerRequest(t, spec.PeerKeyAdd, "", first), peerRequest(t, spec.PeerKeyAdd, first.Key, first, second)} {
			if _, err := do(t.Context(), root, d, r); err != nil {
				t.Fatal(err)
			}
		}
		if swapped {
			d.slots[4], d.slots[5] = d.slots[5], d.slots[4]
		}
		if _, err := do(t.Context(), root, d, peerRequest(t, spec.PeerKeyAdd, first.Key, first, third)); err != nil {
			t.Fatal(err)
		}
		if !d.opens(first.Key) || d.opens(second.Key) || !d.opens(third.Key) {
			t.Errorf("slots %v", d.slots)
		}
	}
}

func TestPeerKeyRefuses(t *testing.T) {
	first := cut(t, 1, "a-1", "b-1")
	good := peerRequest(t, spec.PeerKeyAdd, "", first)
	for name, c := range map[string]struct {
		spoil func(*spec.PeerKey)
		words string
	}{
		"another node":         {func(r *spec.PeerKey) { r.Node = "fsn-2" }, "node"},
		"a stale machine key":  {func(r *spec.PeerKey) { r.MachineKey = []byte(newKey) }, "opens no machine slot"},
		"the recovery key":     {func(r *spec.PeerKey) { r.MachineKey = []byte(human + strings.Repeat("x", 20)) }, "opens no machine slot"},
		"no key":               {func(r *spec.PeerKey) { r.Key = nil }, "no key to add"},
		"a short key":          {func(r *spec.PeerKey) { r.Key = r.Key[:32] }, "32 bytes"},
		"no commitments":       {func(r *spec.PeerKey) { r.Commitments = "" }, "goes with commitments"},
		"a login more":         {func(r *spec.PeerKey) { r.Logins[0].Node = "z-1" }, "logins"},
		"another step":         {func(r *spec.PeerKey) { r.Step = "destroy" }, "destroy"},
		"retired before added": {func(r *spec.PeerKey) { r.Step = spec.PeerKeyRetire }, "add it first"},
	} {
		root, d := peerNode(t), sealedDevice()
		before := maps.Clone(d.slots)
		r := good
		r.Logins = append([]spec.PeerLogin(nil), good.Logins...)
		c.spoil(&r)
		if _, err := do(t.Context(), root, d, r); err == nil || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v", name, err)
		}
		if !maps.Equal(before, d.slots) || expected(t, root) != "" {
			t.Errorf("%s: something was changed", name)
		}
	}
	root, d := peerNode(t), sealedDevice()
	if err := os.Remove(filepath.Join(root, bootchain.ShareScript)); err != nil {
		t.Fatal(err)
	}
	if _, err := do(t.Context(), root, d, good); err == nil || !strings.Contains(err.Error(), "image of this node is older") {
		t.Errorf("an old image: %v", err)
	}
	if _, err := do(t.Context(), root, d, peerRequest(t, spec.PeerKeyRetire, "")); err != nil {
		t.Errorf("an old image, nothing wanted: %v", err)
	}
}

// TestRotationAndSealingLeaveThePeersKey: they change the machine key beside it.
func TestRotationAndSealingLeaveThePeersKey(t *testing.T) {
	root, d := peerNode(t), sealedDevice()
	first := cut(t, 1, "a-1", "b-1")
	if _, err := do(t.Context(), root, d, peerRequest(t, spec.PeerKeyAdd, "", first)); err != nil {
		t.Fatal(err)
	}
	if _, err := handler(root, d).Seal(t.Context(), request("fsn-1"), silent{}); err != nil {
		t.Errorf("sealed again: %v", err)
	}
	if _, err := rotate(t.Context(), root, d, spec.RotateAdd, oldKey, newKey); err != nil {
		t.Fatal(err)
	}
	if _, err := rotate(t.Context(), root, d, spec.RotateRetire, newKey, oldKey); err != nil {
		t.Fatal(err)
	}
	if !d.opens(first.Key) || !d.opens(newKey) || d.opens(oldKey) {
		t.Errorf("slots %v", d.slots)
	}
}
