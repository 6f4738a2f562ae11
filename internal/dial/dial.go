// Package dial is the one way the operator's side opens TCP connections to nodes and controllers: directly, or through
// the SOCKS5 proxy named by FLEET_PROXY (a bastion, or the lab). It never falls back from one to the other.
package dial

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"time"

	"golang.org/x/net/proxy"
)

// EnvProxy names the environment variable that holds the proxy, e.g. socks5://127.0.0.1:1080.
const EnvProxy = "FLEET_PROXY"

// Dialer opens a connection; the caller's context bounds it.
type Dialer interface {
	DialContext(ctx context.Context, network, addr string) (net.Conn, error)
}

// Direct connects without a proxy and gives up on a silent peer after ten seconds.
func Direct() Dialer { return &net.Dialer{Timeout: 10 * time.Second} }

// New returns a dialer through the proxy at rawURL, or [Direct] when it is empty.
func New(rawURL string) (Dialer, error) {
	if rawURL == "" {
		return Direct(), nil
	}
	u, err := url.Parse(rawURL)
	if err != nil || u.Scheme != "socks5" || u.Host == "" {
		return nil, fmt.Errorf("%s %q: expected socks5://HOST:PORT", EnvProxy, rawURL)
	}
	var auth *proxy.Auth
	if u.User != nil {
		pw, _ := u.User.Password()
		auth = &proxy.Auth{User: u.User.Username(), Password: pw}
	}
	d, err := proxy.SOCKS5("tcp", u.Host, auth, &net.Dialer{Timeout: 10 * time.Second})
	if err != nil {
		return nil, fmt.Errorf("%s %q: %w", EnvProxy, rawURL, err)
	}
	cd, ok := d.(proxy.ContextDialer)
	if !ok {
		panic("dial: the SOCKS5 dialer takes no context")
	}
	return cd, nil
}
