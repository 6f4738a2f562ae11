package bootchain

import (
	"crypto/ed25519"
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
