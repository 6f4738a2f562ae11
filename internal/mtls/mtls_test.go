package mtls_test

import (
	"crypto/tls"
	"net"
	"strings"
	"testing"

	"popfleet/internal/mtls"
	"popfleet/internal/mtls/mtlstest"
)

var (
	a = mtls.Name{Fleet: "demo", Service: "replicator", Node: "fsn-1"}
	b = mtls.Name{Fleet: "demo", Service: "replicator", Node: "fsn-2"}
)

// handshake runs both ends and returns their errors.
func handshake(t *testing.T, client, server *tls.Config) (clientErr, serverErr error) {
	t.Helper()
	c, s := pair(t)
	defer c.Close()
	defer s.Close()
	done := make(chan error, 1)
	go func() {
		conn := tls.Server(s, server)
		err := conn.Handshake()
		if err == nil {
			_, err = conn.Write([]byte{1})
		}
		s.Close()
		done <- err
	}()
	conn := tls.Client(c, client)
	clientErr = conn.Handshake()
	if clientErr == nil {
		_, clientErr = conn.Read(make([]byte, 1)) // in TLS 1.3 a refused client learns it here
	}
	c.Close()
	return clientErr, <-done
}

func only(want mtls.Name) func(mtls.Name) error {
	return func(got mtls.Name) error {
		if got != want {
			return &mtls.PeerError{Want: want.String(), Got: got.String()}
		}
		return nil
	}
}

func TestBothEndsAreWhoTheySay(t *testing.T) {
	ca, other := mtlstest.New(t), mtlstest.New(t)
	tests := map[string]struct {
		client, server *tls.Config
		want           string // in either end's error; empty: success
	}{
		"expected":              {ca.Identity(a).Client(b), ca.Identity(b).Server(only(a)), ""},
		"another server":        {ca.Identity(a).Client(b), ca.Identity(a).Server(only(a)), "expected popfleet://demo/replicator/fsn-2"},
		"another client":        {ca.Identity(b).Client(b), ca.Identity(b).Server(only(a)), "expected popfleet://demo/replicator/fsn-1"},
		"server of other CA":    {ca.Identity(a).Client(b), other.Identity(b).Server(only(a)), "unknown authority"},
		"client of other CA":    {other.Identity(a).Client(b), ca.Identity(b).Server(only(a)), "unknown authority"},
		"no client certificate": {&tls.Config{InsecureSkipVerify: true}, ca.Identity(b).Server(only(a)), "didn't provide a certificate"},
		"old TLS":               {&tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}, ca.Identity(b).Server(only(a)), "version"},
	}
	for name, c := range tests {
		t.Run(name, func(t *testing.T) {
			clientErr, serverErr := handshake(t, c.client, c.server)
			if c.want == "" {
				if clientErr != nil || serverErr != nil {
					t.Fatalf("client: %v, server: %v", clientErr, serverErr)
				}
				return
			}
			said := ""
			for _, err := range []error{clientErr, serverErr} {
				if err != nil {
					said += err.Error() + "\n"
				}
			}
			if clientErr == nil || !strings.Contains(said, c.want) {
				t.Errorf("client: %v\nserver: %v\nwant %q", clientErr, serverErr, c.want)
			}
		})
	}
}

// pair is a loopback connection: unlike net.Pipe it holds what one end writes while the other writes too.
func pair(t *testing.T) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if client, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return client, server
}
