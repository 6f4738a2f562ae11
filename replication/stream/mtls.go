package stream

import (
	"context"
	"crypto/tls"
	"net"
	"slices"

	"popfleet/internal/mtls"
)

// Service is the name in peers' certificates.
const Service = "replicator"

// protocol is named in the handshake, so that a listener can tell these streams from others.
const protocol = "fleet-replication"

// MTLS proves peers by the fleet's authority and their URI name, in both directions.
type MTLS struct {
	Fleet    string
	Identity *mtls.Identity
	Nodes    []string // let in
}

var _ Transport = MTLS{}

// Dial connects to p and proves that it is that node's replicator.
func (m MTLS) Dial(ctx context.Context, p Peer) (net.Conn, error) {
	config := m.Identity.Client(mtls.Name{Fleet: m.Fleet, Service: Service, Node: p.Node})
	config.NextProtos = []string{protocol}
	d := &tls.Dialer{NetDialer: &net.Dialer{}, Config: config}
	return d.DialContext(ctx, "tcp", p.Address)
}

// Accept lets in the replicators of the fleet's other nodes.
func (m MTLS) Accept(ctx context.Context, c net.Conn) (net.Conn, string, error) {
	config := m.Identity.Server(m.mayCall)
	config.NextProtos = []string{protocol}
	t := tls.Server(c, config)
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, "", err
	}
	name, err := mtls.Peer(t.ConnectionState())
	return t, name.Node, err
}

func (m MTLS) mayCall(n mtls.Name) error {
	if n.Fleet == m.Fleet && n.Service == Service && slices.Contains(m.Nodes, n.Node) {
		return nil
	}
	return &mtls.PeerError{Want: "a replicator of fleet " + m.Fleet + " that is a member", Got: n.String()}
}
