// Package mtls makes the TLS configurations of links between the fleet's own daemons: TLS 1.3, both ends verified by
// the fleet's authority, and the peer's URI name popfleet://<fleet>/<service>/<node> compared with who is expected. Host
// names and addresses do not count. Certificates are read again when their files change, so renewal needs no restart.
package mtls

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"
)

// Scheme is the scheme of the fleet's URI names.
const Scheme = "popfleet"

// Name is who a certificate speaks for.
type Name struct{ Fleet, Service, Node string }

func (n Name) String() string { return Scheme + "://" + n.Fleet + "/" + n.Service + "/" + n.Node }

// Parse reads a URI name.
func Parse(u *url.URL) (Name, error) {
	service, node, ok := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	if u.Scheme != Scheme || !ok || u.Host == "" || service == "" || node == "" || strings.Contains(node, "/") {
		return Name{}, fmt.Errorf("%s is not a name of the form %s://fleet/service/node", u, Scheme)
	}
	return Name{u.Host, service, node}, nil
}

// Files are the paths of a daemon's own certificate and key and of the authority, all PEM.
type Files struct {
	Cert string `json:"cert"`
	Key  string `json:"key"`
	CA   string `json:"ca"`
}

// Validate reports every missing path at once.
func (f Files) Validate() error {
	var all []error
	for _, p := range []struct{ name, path string }{{"tls.cert", f.Cert}, {"tls.key", f.Key}, {"tls.ca", f.CA}} {
		if p.path == "" {
			all = append(all, fmt.Errorf("%s: expected a path", p.name))
		}
	}
	return errors.Join(all...)
}

// PeerError says that whoever answered, or called, is not who may.
type PeerError struct{ Want, Got string }

func (e *PeerError) Error() string {
	return fmt.Sprintf("the other side's certificate is for %s; expected %s", e.Got, e.Want)
}

// Identity is a daemon's certificate and the authority it trusts.
type Identity struct {
	load func() (tls.Certificate, *x509.CertPool, error)
}

// Fixed is an identity held in memory, as the operator's side has it from the vault.
func Fixed(cert tls.Certificate, authorityPEM []byte) (*Identity, error) {
	pool, err := pool(authorityPEM)
	if err != nil {
		return nil, err
	}
	return &Identity{func() (tls.Certificate, *x509.CertPool, error) { return cert, pool, nil }}, nil
}

// FromFiles reads the files now, and again whenever one of them changed. A change that cannot be read leaves the one
// before in force.
func FromFiles(f Files) (*Identity, error) {
	r := &reloader{files: f}
	if err := r.read(); err != nil {
		return nil, err
	}
	return &Identity{r.current}, nil
}

// Client expects the server to be exactly want.
func (i *Identity) Client(want Name) *tls.Config {
	return i.config(func(got Name) error {
		if got != want {
			return &PeerError{want.String(), got.String()}
		}
		return nil
	})
}

// ClientAllow talks to whom allow accepts, for a server whose node part is not known beforehand.
func (i *Identity) ClientAllow(allow func(Name) error) *tls.Config { return i.config(allow) }

// Server lets in whom allow lets in; its error ends the handshake.
func (i *Identity) Server(allow func(Name) error) *tls.Config { return i.config(allow) }

func (i *Identity) config(allow func(Name) error) *tls.Config {
	own := func() (*tls.Certificate, error) {
		cert, _, err := i.load()
		return &cert, err
	}
	return &tls.Config{
		MinVersion:           tls.VersionTLS13,
		ClientAuth:           tls.RequireAnyClientCert,
		GetCertificate:       func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return own() },
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return own() },
		// The usual check compares host names, which our certificates do not carry; VerifyConnection replaces it whole,
		// and unlike VerifyPeerCertificate it also runs when a session is resumed.
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			_, authority, err := i.load()
			if err != nil {
				return err
			}
			name, err := verify(s.PeerCertificates, authority)
			if err != nil {
				return err
			}
			return allow(name)
		},
	}
}

// Peer is the name the other side of a finished handshake proved.
func Peer(s tls.ConnectionState) (Name, error) {
	if len(s.PeerCertificates) == 0 {
		return Name{}, errors.New("the other side showed no certificate")
	}
	return nameOf(s.PeerCertificates[0])
}

func verify(chain []*x509.Certificate, authority *x509.CertPool) (Name, error) {
	if len(chain) == 0 {
		return Name{}, errors.New("the other side showed no certificate")
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{Roots: authority, Intermediates: between,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil {
		return Name{}, fmt.Errorf("the other side's certificate: %w", err)
	}
	return nameOf(chain[0])
}

func nameOf(c *x509.Certificate) (Name, error) {
	if len(c.URIs) != 1 {
		return Name{}, fmt.Errorf("the other side's certificate carries %d URI names; expected one", len(c.URIs))
	}
	return Parse(c.URIs[0])
}

func pool(authorityPEM []byte) (*x509.CertPool, error) {
	p := x509.NewCertPool()
	if !p.AppendCertsFromPEM(authorityPEM) {
		return nil, errors.New("the authority's file holds no PEM certificate")
	}
	return p, nil
}

// checkEvery bounds how often files are looked at, however many handshakes there are.
const checkEvery = 5 * time.Second

type reloader struct {
	files Files

	mu      sync.Mutex
	cert    tls.Certificate
	pool    *x509.CertPool
	stamps  [3]time.Time
	checked time.Time
}

func (r *reloader) current() (tls.Certificate, *x509.CertPool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.checked) >= checkEvery {
		if stamps, err := r.stat(); err == nil && stamps != r.stamps {
			_ = r.readLocked() // a half-written renewal: what was valid stays in force, the next look tries again
		}
		r.checked = time.Now()
	}
	return r.cert, r.pool, nil
}

func (r *reloader) read() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.readLocked()
}

func (r *reloader) readLocked() error {
	stamps, err := r.stat()
	if err != nil {
		return err
	}
	cert, err := tls.LoadX509KeyPair(r.files.Cert, r.files.Key)
	if err != nil {
		return fmt.Errorf("load %s and %s: %w", r.files.Cert, r.files.Key, err)
	}
	authorityPEM, err := os.ReadFile(r.files.CA)
	if err != nil {
		return err
	}
	authority, err := pool(authorityPEM)
	if err != nil {
		return fmt.Errorf("%s: %w", r.files.CA, err)
	}
	r.cert, r.pool, r.stamps, r.checked = cert, authority, stamps, time.Now()
	return nil
}

func (r *reloader) stat() (stamps [3]time.Time, err error) {
	for i, path := range []string{r.files.Cert, r.files.Key, r.files.CA} {
		info, err := os.Stat(path)
		if err != nil {
			return stamps, err
		}
		stamps[i] = info.ModTime()
	}
	return stamps, nil
}
