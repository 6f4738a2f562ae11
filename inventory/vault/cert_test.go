package vault

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

var spec = LeafSpec{
	Service:  "transport",
	Node:     "fsn-1",
	DNSNames: []string{"demo.test", "*.demo.test", "fsn-1.demo.test"},
	IPs:      []netip.Addr{netip.MustParseAddr("198.18.0.10")},
}

func mustLeaf(t *testing.T, v *Vault, s LeafSpec) Leaf {
	t.Helper()
	l, err := v.Leaf(s)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func parse(t *testing.T, data []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(data)
	if block == nil {
		t.Fatal("no PEM block")
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestLeafVerifies(t *testing.T) {
	v := newTestVault(t)
	leaf := mustLeaf(t, v, spec)
	ca, err := v.CACertPEM()
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	c := parse(t, leaf.CertPEM)
	for _, name := range []string{"demo.test", "www.demo.test", "198.18.0.10"} {
		for _, use := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
			_, err := c.Verify(x509.VerifyOptions{Roots: pool, DNSName: name, KeyUsages: []x509.ExtKeyUsage{use}})
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if got := c.URIs[0].String(); got != "popfleet://demo/transport/fsn-1" {
		t.Errorf("URI %s", got)
	}
	if !leaf.NotAfter.Equal(c.NotAfter) {
		t.Errorf("NotAfter %s, certificate says %s", leaf.NotAfter, c.NotAfter)
	}
	if _, err := leaf.TLS(); err != nil {
		t.Error(err)
	}
}

func TestLeafIsKeptUntilHalfItsLife(t *testing.T) {
	v := newTestVault(t)
	start := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	v.now = func() time.Time { return start }
	first := mustLeaf(t, v, spec)
	for _, c := range []struct {
		name string
		at   time.Duration
		spec func(LeafSpec) LeafSpec
		same bool
	}{
		{"at once", 0, func(s LeafSpec) LeafSpec { return s }, true},
		{"names in another order", 0, func(s LeafSpec) LeafSpec {
			s.DNSNames = []string{"fsn-1.demo.test", "demo.test", "*.demo.test", "demo.test"}
			return s
		}, true},
		{"just before half", 15*24*time.Hour - time.Minute, func(s LeafSpec) LeafSpec { return s }, true},
		{"at half", 15 * 24 * time.Hour, func(s LeafSpec) LeafSpec { return s }, false},
		{"clock went back", -time.Hour, func(s LeafSpec) LeafSpec { return s }, false},
		{"another name", 0, func(s LeafSpec) LeafSpec { s.DNSNames = s.DNSNames[:1]; return s }, false},
		{"another address", 0, func(s LeafSpec) LeafSpec { s.IPs = nil; return s }, false},
		{"shorter life", 0, func(s LeafSpec) LeafSpec { s.TTL = time.Hour; return s }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := reopen(t, v)
			// Each case starts from the first leaf.
			if err := v.put("tls/transport/fsn-1.age", storedPair{string(first.CertPEM), string(first.KeyPEM.Reveal())}); err != nil {
				t.Fatal(err)
			}
			v.now = func() time.Time { return start.Add(c.at) }
			got := mustLeaf(t, v, c.spec(spec))
			if same := string(got.CertPEM) == string(first.CertPEM) && got.KeyPEM.Equal(first.KeyPEM); same != c.same {
				t.Errorf("same certificate: %v, want %v", same, c.same)
			}
		})
	}
}

func TestForgetLeavesControllersAlone(t *testing.T) {
	v := newTestVault(t)
	s := LeafSpec{Service: "controller", Node: "fsn-1"}
	before := mustLeaf(t, v, s)
	if err := v.Forget("fsn-1"); err != nil {
		t.Fatal(err)
	}
	if string(mustLeaf(t, v, s).CertPEM) != string(before.CertPEM) {
		t.Error("the controller's certificate went with the node's")
	}
}

func TestSignOperator(t *testing.T) {
	v := newTestVault(t)
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := v.SignOperator(key, "alice", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := v.UserCA()
	if err != nil {
		t.Fatal(err)
	}
	authority, err := ca.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	if string(cert.SignatureKey.Marshal()) != string(authority.Marshal()) {
		t.Error("not signed by the user CA")
	}
	var checker ssh.CertChecker
	if err := checker.CheckCert("root", cert); err != nil {
		t.Error(err)
	}
	if err := checker.CheckCert("daemon", cert); err == nil {
		t.Error("certificate opens another user than root")
	}
	checker.Clock = func() time.Time { return time.Now().Add(2 * time.Hour) }
	if err := checker.CheckCert("root", cert); err == nil {
		t.Error("certificate outlives its lifetime")
	}
	if _, err := v.SignOperator(key, "alice", 0); err == nil {
		t.Error("a certificate without lifetime was signed")
	}
}
