package vault

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"time"

	"popfleet/inventory"
)

const (
	caLife         = 10 * 365 * 24 * time.Hour
	defaultLeafTTL = 30 * 24 * time.Hour
)

// CA is the fleet's X.509 authority: ECDSA P-256, ten years, signs leaves only.
//
// It carries no name constraint. The name that matters is the leaf's URI, and a critical URI constraint makes clients
// that do not implement it refuse the chain; who may speak is decided by comparing the URI, see [URI].
type CA struct {
	CertPEM []byte
	KeyPEM  inventory.Secret
}

type storedPair struct {
	Cert string `json:"cert"`
	Key  string `json:"key"`
}

// CA returns the fleet's authority, made on the first call.
func (v *Vault) CA() (CA, error) {
	s, err := v.storedCA()
	if err != nil {
		return CA{}, err
	}
	return CA{CertPEM: []byte(s.Cert), KeyPEM: inventory.SecretText(s.Key)}, nil
}

// CACertPEM is the authority's certificate, which every node trusts.
func (v *Vault) CACertPEM() ([]byte, error) {
	s, err := v.storedCA()
	return []byte(s.Cert), err
}

func (v *Vault) storedCA() (storedPair, error) {
	return once(v, "tls/ca.age", func() (storedPair, error) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return storedPair{}, err
		}
		t := caTemplate(v.fleet, v.now())
		return certify(t, t, key, key)
	})
}

func caTemplate(fleet string, now time.Time) *x509.Certificate {
	return &x509.Certificate{
		Subject:               pkix.Name{CommonName: "popfleet " + fleet + " CA"},
		NotBefore:             now.Add(-clockSlack),
		NotAfter:              now.Add(caLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
}

// certify signs template with the parent's key; x509 picks a random serial number when the template has none.
func certify(template, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) (storedPair, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		return storedPair{}, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return storedPair{}, err
	}
	return storedPair{
		Cert: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		Key:  string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})),
	}, nil
}

// LeafSpec says who a certificate is for. Service "operator" names a person in Node, "controller" a controller.
type LeafSpec struct {
	Service  string
	Node     string
	DNSNames []string
	IPs      []netip.Addr
	TTL      time.Duration // 0 means 30 days
}

// Leaf is a certificate for both ends of mTLS, signed by the fleet's authority.
type Leaf struct {
	CertPEM  []byte // the leaf alone; peers hold the authority
	KeyPEM   inventory.Secret
	NotAfter time.Time
}

// TLS is the leaf as crypto/tls wants it.
func (l Leaf) TLS() (tls.Certificate, error) {
	return tls.X509KeyPair(l.CertPEM, l.KeyPEM.Reveal())
}

// URI is the name that a service's certificate carries: popfleet://<fleet>/<service>/<node>.
func URI(fleet, service, node string) *url.URL {
	return &url.URL{Scheme: "popfleet", Host: fleet, Path: "/" + service + "/" + node}
}

// Leaf returns the certificate for spec. The same one is returned until half its life is over, its names change or the
// authority is another, so that a second run changes nothing on the nodes.
func (v *Vault) Leaf(spec LeafSpec) (Leaf, error) {
	if err := errors.Join(checkName("service", spec.Service), checkName("node", spec.Node)); err != nil {
		return Leaf{}, err
	}
	ca, err := v.loadCA()
	if err != nil {
		return Leaf{}, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	leaf, err := v.leaf(spec, ca)
	if err != nil {
		return Leaf{}, fmt.Errorf("certificate of %s on %s: %w", spec.Service, spec.Node, err)
	}
	return leaf, nil
}

type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func (v *Vault) loadCA() (authority, error) {
	s, err := v.storedCA()
	if err != nil {
		return authority{}, err
	}
	pair, err := tls.X509KeyPair([]byte(s.Cert), []byte(s.Key))
	if err != nil {
		return authority{}, fmt.Errorf("fleet CA: %w", err)
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return authority{}, fmt.Errorf("fleet CA: key is %T, want ECDSA", pair.PrivateKey)
	}
	return authority{pair.Leaf, key}, nil
}

func (v *Vault) leaf(spec LeafSpec, ca authority) (Leaf, error) {
	want := v.leafTemplate(spec)
	file := "tls/" + spec.Service + "/" + spec.Node + ".age"
	var have storedPair
	err := v.get(file, &have)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Leaf{}, err
	}
	if err == nil {
		if leaf, ok := reusable(have, want, ca, v.now()); ok {
			return leaf, nil
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Leaf{}, err
	}
	fresh, err := certify(want, ca.cert, key, ca.key)
	if err != nil {
		return Leaf{}, err
	}
	if err := v.put(file, fresh); err != nil {
		return Leaf{}, err
	}
	return fresh.leaf(want.NotAfter), nil
}

func (p storedPair) leaf(notAfter time.Time) Leaf {
	return Leaf{CertPEM: []byte(p.Cert), KeyPEM: inventory.SecretText(p.Key), NotAfter: notAfter.UTC().Truncate(time.Second)}
}

func (v *Vault) leafTemplate(spec LeafSpec) *x509.Certificate {
	ttl := spec.TTL
	if ttl <= 0 {
		ttl = defaultLeafTTL
	}
	now := v.now()
	return &x509.Certificate{
		Subject:     pkix.Name{CommonName: spec.Service + " " + spec.Node},
		NotBefore:   now.Add(-clockSlack),
		NotAfter:    now.Add(ttl),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		URIs:        []*url.URL{URI(v.fleet, spec.Service, spec.Node)},
		DNSNames:    sorted(spec.DNSNames),
		IPAddresses: sortedIPs(spec.IPs),
	}
}

// reusable reports whether have still says what want says, with more than half of its life ahead.
func reusable(have storedPair, want *x509.Certificate, ca authority, now time.Time) (Leaf, bool) {
	pair, err := tls.X509KeyPair([]byte(have.Cert), []byte(have.Key))
	if err != nil {
		return Leaf{}, false
	}
	c := pair.Leaf
	issued := c.NotBefore.Add(clockSlack)
	fresh := now.Before(issued.Add(c.NotAfter.Sub(issued)/2)) && !now.Before(c.NotBefore)
	// A shorter lifetime asked for is honoured at once, a longer one at the next renewal.
	short := c.NotAfter.Sub(issued) <= want.NotAfter.Sub(now)+time.Second
	same := names(c) == names(want) && c.CheckSignatureFrom(ca.cert) == nil
	return have.leaf(c.NotAfter), fresh && short && same
}

func names(c *x509.Certificate) string {
	return fmt.Sprint(c.Subject.CommonName, c.URIs, c.DNSNames, c.IPAddresses)
}

func sorted(names []string) []string {
	s := slices.Clone(names)
	slices.Sort(s)
	return slices.Compact(s)
}

func sortedIPs(addrs []netip.Addr) []net.IP {
	addrs = slices.Clone(addrs)
	slices.SortFunc(addrs, netip.Addr.Compare)
	var ips []net.IP
	for _, a := range slices.Compact(addrs) {
		ips = append(ips, a.Unmap().AsSlice())
	}
	return ips
}

// forgetLeaves removes the node's certificates; controllers and operators are no nodes, whatever they are called.
func (v *Vault) forgetLeaves(node string) error {
	files, err := filepath.Glob(v.path("tls/*/" + node + ".age"))
	for _, f := range files {
		service := filepath.Base(filepath.Dir(f))
		if service == "controller" || service == "operator" {
			continue
		}
		if e := os.Remove(f); e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}
