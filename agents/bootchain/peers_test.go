package bootchain

import (
	"crypto/ed25519"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"popfleet/internal/shares"
	"popfleet/playbooks/spec"
)

func login(t *testing.T, node string, seed byte) spec.PeerLogin {
	t.Helper()
	pub, err := ssh.NewPublicKey(ed25519.NewKeyFromSeed([]byte(strings.Repeat(string(rune(seed)), 32))).Public())
	if err != nil {
		t.Fatal(err)
	}
	return spec.PeerLogin{Node: node, Key: strings.TrimSpace(string(ssh.MarshalAuthorizedKey(pub)))}
}

func TestPeersAreLoginsWithAComment(t *testing.T) {
	g, err := shares.New("n-1", 1, 2, []string{"a-1", "b-1"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	text := shares.Commitments{Node: "n-1", Generations: []shares.Commitment{g.Commit()}}.Text()
	good := Peers{Commitments: text, Logins: []spec.PeerLogin{login(t, "a-1", 'a'), login(t, "b-1", 'b')}}
	if err := good.Check("n-1"); err != nil {
		t.Fatal(err)
	}
	for _, l := range strings.Split(strings.TrimSpace(string(good.authorizedKeys())), "\n") {
		if !strings.HasPrefix(l, loginOptions+"ssh-ed25519 ") || !strings.HasSuffix(l, " peer.a-1") && !strings.HasSuffix(l, " peer.b-1") {
			t.Errorf("%s", l)
		}
	}
	back, err := ParsePeerLogins(append([]byte(loginOptions+login(t, "fleet", 'f').Key+"\n"), good.authorizedKeys()...))
	if err != nil || !slices.Equal(back, good.Logins) {
		t.Errorf("%+v, %v", back, err)
	}
	if err := (Peers{}).Check("n-1"); err != nil {
		t.Error(err)
	}
	for name, p := range map[string]Peers{
		"a login without a share": {text, append(good.Logins[:2:2], login(t, "c-1", 'c'))},
		"a share without a login": {text, good.Logins[:1]},
		"one key for two":         {text, []spec.PeerLogin{login(t, "a-1", 'a'), login(t, "b-1", 'a')}},
		"no key":                  {text, []spec.PeerLogin{good.Logins[0], {Node: "b-1", Key: "none"}}},
		"logins of nothing":       {"", good.Logins},
		"another node":            {strings.ReplaceAll(text, "n-1", "m-1"), good.Logins},
		"not understood":          {text + "x", good.Logins},
	} {
		if p.Check("n-1") == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func FuzzPeerLogins(f *testing.F) {
	f.Add([]byte(loginOptions + "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGk24VWnAO0gqMNcOb5kRjqslTg57MSWEI/pNJmgogpW peer.a-1\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		logins, err := ParsePeerLogins(data)
		for _, l := range logins {
			if _, _, _, _, bad := ssh.ParseAuthorizedKey([]byte(l.Key)); bad != nil || err != nil {
				t.Errorf("%+v: %v, %v", l, bad, err)
			}
		}
	})
}
