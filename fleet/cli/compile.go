package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"time"

	"popfleet/internal/dial"
	"popfleet/playbooks"
	"popfleet/playbooks/release"
	"popfleet/playbooks/spec"
	"popfleet/provision/lifecycle"
	"popfleet/provision/provider"
	"popfleet/provision/remote"
)

// compiler gives lifecycle each node's spec. It is made once a run, when the servers' addresses are known.
type compiler struct {
	session   *session
	addresses map[string][]netip.Addr
	release   spec.Release
	sources   release.Sources
	playbooks *playbooks.Set
	fenced    map[string]bool // nodes in quarantine: no other node's peer
}

func (s *session) compiler(addresses map[string][]netip.Addr) (*compiler, error) {
	r, sources, err := s.scanRelease()
	if err != nil {
		return nil, err
	}
	set, err := playbooks.Load(s.app.path("playbooks"))
	if err != nil {
		return nil, err
	}
	fenced, err := s.quarantined()
	return &compiler{s, addresses, r, sources, set, fenced}, err
}

// Compile is lifecycle.Compiler.
func (c *compiler) Compile(_ context.Context, node string) (spec.Node, remote.Blobs, error) {
	n, err := playbooks.Compile(playbooks.Input{Fleet: without(c.session.fleet, c.fenced, node), Node: node, Addresses: c.addresses, Release: &c.release,
		Secrets: playbooks.FromVault(c.session.vault), Pace: c.session.pace, Playbooks: c.playbooks})
	return n, c.sources, err
}

// servingProbe asks a node's edge from outside, as a client would: TLS with the fleet's authority, then the app.
func (s *session) servingProbe(d dial.Dialer) func(context.Context, lifecycle.Node, provider.Server) error {
	return func(ctx context.Context, n lifecycle.Node, server provider.Server) error {
		authority, err := s.vault.CACertPEM()
		if err != nil {
			return err
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(authority)
		client := &http.Client{Timeout: s.pace.Of(15 * time.Second), Transport: &http.Transport{
			DisableKeepAlives: true,
			TLSClientConfig:   &tls.Config{RootCAs: roots, ServerName: s.fleet.Domain, MinVersion: tls.VersionTLS12},
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return d.DialContext(ctx, network, net.JoinHostPort(server.Addr4.String(), "443"))
			},
		}}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+s.fleet.Domain+"/healthz", nil)
		if err != nil {
			return err
		}
		res, err := client.Do(req)
		if err != nil {
			return fmt.Errorf("ask its edge from outside: %w", err)
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK {
			said, _ := io.ReadAll(io.LimitReader(res.Body, 200))
			return fmt.Errorf("its edge answers GET /healthz with %s: %q", res.Status, said)
		}
		return nil
	}
}
