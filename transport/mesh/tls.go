package mesh

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
)

// clientTLS verifies by hand, because a peer is known by the URI in its certificate and not by a host name. The chain
// is checked as strictly as the library would.
func (m *Mesh) clientTLS(want string) *tls.Config {
	return &tls.Config{
		MinVersion:           tls.VersionTLS13,
		NextProtos:           []string{protocol},
		InsecureSkipVerify:   true, // VerifyConnection below does it all
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return m.cfg.Keys.Certificate(), nil },
		VerifyConnection: func(s tls.ConnectionState) error {
			name, err := m.verify(s, x509.ExtKeyUsageServerAuth)
			if err == nil && name != want {
				err = fmt.Errorf("certificate of %q where %q was expected", name, want)
			}
			return err
		},
	}
}

func (m *Mesh) serverTLS() *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{protocol},
		ClientAuth:             tls.RequireAnyClientCert,
		SessionTicketsDisabled: true,
		GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return m.cfg.Keys.Certificate(), nil },
		VerifyConnection: func(s tls.ConnectionState) error {
			name, err := m.verify(s, x509.ExtKeyUsageClientAuth)
			if err == nil && m.peers[name] == nil {
				err = fmt.Errorf("certificate of %q, which is not a peer", name)
			}
			return err
		},
	}
}

// verify checks the chain and returns the node the certificate names.
func (m *Mesh) verify(s tls.ConnectionState, usage x509.ExtKeyUsage) (string, error) {
	if len(s.PeerCertificates) == 0 {
		return "", errors.New("no certificate")
	}
	between := x509.NewCertPool()
	for _, c := range s.PeerCertificates[1:] {
		between.AddCert(c)
	}
	_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: m.cfg.Keys.Roots(), Intermediates: between, KeyUsages: []x509.ExtKeyUsage{usage}})
	if err != nil {
		return "", err
	}
	return m.identify(s)
}

// identify reads popfleet://<fleet>/transport/<node>.
func (m *Mesh) identify(s tls.ConnectionState) (string, error) {
	prefix := "popfleet://" + m.cfg.Fleet + "/transport/"
	var seen []string
	for _, u := range s.PeerCertificates[0].URIs {
		if name, ok := strings.CutPrefix(u.String(), prefix); ok && name != "" && !strings.Contains(name, "/") {
			return name, nil
		}
		seen = append(seen, u.String())
	}
	return "", fmt.Errorf("certificate names %q, want one of %s<node>", seen, prefix)
}
