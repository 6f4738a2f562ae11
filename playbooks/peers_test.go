package playbooks

import (
	"bytes"
	"encoding/json"
	"errors"
	"path/filepath"
	"slices"
	"testing"

	"popfleet/inventory"
	"popfleet/inventory/vault"
	"popfleet/playbooks/spec"
)

const peerFile = "/etc/fleet/peer-unlock.json"

func fileOf(n spec.Node, path string) *spec.File {
	i := slices.IndexFunc(n.Files, func(f spec.File) bool { return f.Path == path })
	if i < 0 {
		return nil
	}
	return &n.Files[i]
}

// TestANodeGetsItsShares: out of a real vault, for the nodes that have an address, as a secret file.
func TestANodeGetsItsShares(t *testing.T) {
	v, err := vault.Create(filepath.Join(t.TempDir(), "secrets"), inventory.SecretText("correct horse"), vault.Options{Fleet: "demo", WorkFactor: 10})
	if err != nil {
		t.Fatal(err)
	}
	in := input()
	in.Secrets = FromVault(v)
	n, err := Compile(in)
	if err != nil {
		t.Fatal(err)
	}
	if fileOf(n, peerFile) != nil {
		t.Error("a fleet without shares has a file for them")
	}
	var holders []vault.Holder
	for _, name := range []string{"fsn-1", "gra-1"} {
		k, err := v.PeerLogin(name)
		if err != nil {
			t.Fatal(err)
		}
		holders = append(holders, vault.Holder{Node: name, Login: k.Public})
	}
	if _, err := v.WantShares("fsn-2", vault.ShareWish{Install: "r", Threshold: 2, Holders: holders}); err != nil {
		t.Fatal(err)
	}
	if _, err := v.CommitShares("fsn-2", 1); err != nil {
		t.Fatal(err)
	}
	if err := v.SetNodeState("fsn-2", vault.NodeState{InstallRun: "r", Sealed: true, InitramfsHostKey: "ssh-ed25519 AAAA"}); err != nil {
		t.Fatal(err)
	}
	read := func() PeerUnlock {
		t.Helper()
		n, err := Compile(in)
		if err != nil {
			t.Fatal(err)
		}
		f := fileOf(n, peerFile)
		if f == nil || !f.Secret || f.Mode != 0o640 || f.Group != "fleet-agent" || len(f.Restart) != 0 {
			t.Fatalf("%+v", f)
		}
		again, err := Compile(in)
		if err != nil || !bytes.Equal(fileOf(again, peerFile).Content, f.Content) {
			t.Error("the same input gives another file")
		}
		var p PeerUnlock
		if err := json.Unmarshal(f.Content, &p); err != nil {
			t.Fatal(err)
		}
		return p
	}
	p := read()
	s, err := v.Shares("fsn-2")
	if err != nil {
		t.Fatal(err)
	}
	share, _ := s.Current.Share("fsn-1")
	if len(p.Wards) != 1 || p.Wards[0].Address != "198.18.0.11:2222" || p.Wards[0].HostKey != "ssh-ed25519 AAAA" || p.Wards[0].Share != string(share.Reveal()) || p.Key == "" {
		t.Errorf("%d wards, of %s at %s", len(p.Wards), p.Node, p.Wards[0].Address)
	}
	if in.Node = "gra-1"; len(read().Wards) != 1 {
		t.Error("the other holder has none")
	}
	if in.Node = "fsn-2"; len(read().Wards) != 0 {
		t.Error("the node holds a share of itself")
	}
	if _, err := v.UpdateUnlock("fsn-2", func(s *vault.UnlockState) error { s.Never = &vault.Order{By: "me"}; return nil }); err != nil {
		t.Fatal(err)
	}
	if in.Node = "fsn-1"; len(read().Wards) != 0 {
		t.Error("the kill switch does not reach the peers")
	}
}

type sharesOf struct {
	fakeSecrets
	p   *PeerUnlock
	err error
}

func (s sharesOf) PeerUnlock(string, []string) (*PeerUnlock, error) { return s.p, s.err }

func TestSharesThatCantBeHandedOver(t *testing.T) {
	in := input()
	for name, s := range map[string]sharesOf{
		"of a node nobody has":        {p: &PeerUnlock{Wards: []Ward{{Node: "ams-9"}}}},
		"of one without address":      {p: &PeerUnlock{Wards: []Ward{{Node: "gra-2"}}}},
		"kept by a vault that's sick": {err: errors.New("sick")},
	} {
		in.Secrets = s
		if _, err := Compile(in); err == nil {
			t.Errorf("%s: compiled", name)
		}
	}
}
