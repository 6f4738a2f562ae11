// Package mtlstest makes throw-away authorities and certificates for tests of links between daemons.
package mtlstest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"popfleet/internal/mtls"
)

// Authority signs certificates for tests.
type Authority struct {
	t    *testing.T
	dir  string
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

// New makes an authority whose files live as long as the test.
func New(t *testing.T) *Authority {
	t.Helper()
	a := &Authority{t: t, dir: t.TempDir(), key: newKey(t)}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der := a.sign(template, template, &a.key.PublicKey)
	a.cert, _ = x509.ParseCertificate(der)
	a.write("ca.crt", "CERTIFICATE", der)
	return a
}

// Files issues a certificate for name and returns where it lies.
func (a *Authority) Files(name mtls.Name, dnsNames ...string) mtls.Files {
	a.t.Helper()
	key := newKey(a.t)
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name.Node},
		URIs: []*url.URL{{Scheme: mtls.Scheme, Host: name.Fleet, Path: "/" + name.Service + "/" + name.Node}}, DNSNames: dnsNames,
		KeyUsage: x509.KeyUsageDigitalSignature, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	base := name.Service + "-" + name.Node
	return mtls.Files{
		Cert: a.write(base+".crt", "CERTIFICATE", a.sign(template, a.cert, &key.PublicKey)),
		Key:  a.write(base+".key", "EC PRIVATE KEY", der),
		CA:   filepath.Join(a.dir, "ca.crt"),
	}
}

// Identity is Files, loaded.
func (a *Authority) Identity(name mtls.Name) *mtls.Identity {
	a.t.Helper()
	id, err := mtls.FromFiles(a.Files(name))
	if err != nil {
		a.t.Fatal(err)
	}
	return id
}

func (a *Authority) sign(template, parent *x509.Certificate, public *ecdsa.PublicKey) []byte {
	a.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return der
}

func (a *Authority) write(name, kind string, der []byte) string {
	a.t.Helper()
	path := filepath.Join(a.dir, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return path
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
