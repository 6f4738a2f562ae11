package playbooks

import (
	"fmt"
	"net"
	"net/netip"

	"popfleet/inventory/vault"
)

// PeerShares is an optional half of [Secrets]: who keeps peers' shares answers what node holds (docs/protocols/
// peer-unlock.md). It is asked once per compilation, for the shares of nodes that have an address.
type PeerShares interface {
	// PeerUnlock returns nil for a fleet that never cut a key: then there is nothing on the nodes.
	PeerUnlock(node string, nodes []string) (*PeerUnlock, error)
}

// PeerUnlock is /etc/fleet/peer-unlock.json: the shares a node may hand over, and its login. All of it is secret.
type PeerUnlock struct {
	Version int    `json:"version"`
	Node    string `json:"node"`
	Key     string `json:"key"`
	Wards   []Ward `json:"wards"`
}

// Ward is a node that another one holds a share of.
type Ward struct {
	Node    string `json:"node"`
	Address string `json:"address"` // set by Compile
	HostKey string `json:"host_key"`
	Share   string `json:"share"`
}

// unlockPort is where a locked node waits for its key.
const unlockPort = "2222"

// peerUnlock asks for the node's shares and says where the wards are.
func peerUnlock(s Secrets, v Vars) (*PeerUnlock, error) {
	keeper, ok := s.(PeerShares)
	if !ok {
		return nil, nil
	}
	at := map[string]netip.Addr{}
	var names []string
	for _, n := range v.Nodes {
		at[n.Name] = n.Addresses[0]
		names = append(names, n.Name)
	}
	p, err := keeper.PeerUnlock(v.Node.Name, names)
	if err != nil || p == nil {
		return nil, err
	}
	for i, w := range p.Wards {
		if !at[w.Node].IsValid() {
			return nil, fmt.Errorf("a share of node %s, which has no address", w.Node)
		}
		p.Wards[i].Address = net.JoinHostPort(at[w.Node].String(), unlockPort)
	}
	return p, nil
}

// PeerUnlock lets the fleet's vault answer.
func (s vaultSecrets) PeerUnlock(node string, nodes []string) (*PeerUnlock, error) {
	wards, held, err := s.v.Wards(node, nodes)
	if err != nil || !held {
		return nil, err
	}
	login, err := s.v.PeerLogin(node)
	if err != nil {
		return nil, err
	}
	return newPeerUnlock(node, login, wards), nil
}

func newPeerUnlock(node string, login vault.KeyPair, wards []vault.Ward) *PeerUnlock {
	p := &PeerUnlock{Version: 1, Node: node, Key: string(login.Private.Reveal()), Wards: []Ward{}}
	for _, w := range wards {
		p.Wards = append(p.Wards, Ward{Node: w.Node, HostKey: w.HostKey, Share: string(w.Share.Reveal())})
	}
	return p
}
