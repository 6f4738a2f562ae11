package bootchain

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"popfleet/internal/shares"
	"popfleet/playbooks/spec"
)

// Peers is what the initramfs knows of those who may open it together (docs/protocols/peer-unlock.md). The zero value
// lets nobody.
type Peers struct {
	Commitments string           `json:"commitments,omitempty"`
	Logins      []spec.PeerLogin `json:"logins,omitempty"`
}

// PeersFile is the commitments' path in the initramfs.
const PeersFile = "etc/fleet/peers"

// ShareScript is what the door of the initramfs reads shares with, as the image has it; an image without it would take
// a peer's share for a wrong key.
const ShareScript = "/usr/lib/fleet/initramfs/shares.sh"

// Check refuses what the initramfs' script would not understand, and a login that is no peer's: the comment of a key is
// all that keeps it from the other half of the door.
func (p Peers) Check(node string) error {
	if p.Commitments == "" && len(p.Logins) == 0 {
		return nil
	}
	c, err := shares.ParseCommitments(p.Commitments)
	if err != nil {
		return err
	}
	if c.Node != node {
		return fmt.Errorf("peers: commitments of node %s", c.Node)
	}
	return p.checkLogins(c.Peers())
}

func (p Peers) checkLogins(peers []string) error {
	var names []string
	var keys [][]byte
	for _, l := range p.Logins {
		k, _, _, _, err := ssh.ParseAuthorizedKey([]byte(l.Key))
		if err != nil {
			return fmt.Errorf("peers: login of %s: %w", l.Node, err)
		}
		if slices.ContainsFunc(keys, func(have []byte) bool { return bytes.Equal(have, k.Marshal()) }) {
			return fmt.Errorf("peers: login of %s: another peer has the same key", l.Node)
		}
		names, keys = append(names, l.Node), append(keys, k.Marshal())
	}
	slices.Sort(names)
	if !slices.Equal(names, peers) {
		return fmt.Errorf("peers: logins of %v, shares of %v", names, peers)
	}
	return nil
}

// authorizedKeys are the logins' lines. dropbear hands the comment to the forced command as SSH_PUBKEYINFO, whatever the
// client says (dropbear(8)); the keys of the fleet itself have none.
func (p Peers) authorizedKeys() []byte {
	var out bytes.Buffer
	for _, l := range p.Logins {
		k, _, _, _, err := ssh.ParseAuthorizedKey([]byte(l.Key))
		if err != nil {
			continue // files has refused it
		}
		fmt.Fprintf(&out, "%s%s %s%s\n", loginOptions, bytes.TrimSpace(ssh.MarshalAuthorizedKey(k)), peerComment, l.Node)
	}
	return out.Bytes()
}

// peerComment marks a login of a peer; the node's name follows.
const peerComment = "peer."

// ParsePeerLogins reads the peers among the keys of an initramfs' authorized_keys.
func ParsePeerLogins(data []byte) (logins []spec.PeerLogin, err error) {
	if len(data) > maxPartFile {
		return nil, errors.New("too large")
	}
	for len(bytes.TrimSpace(data)) > 0 {
		k, comment, _, rest, err := ssh.ParseAuthorizedKey(data)
		if err != nil {
			return nil, err
		}
		if node, ok := strings.CutPrefix(comment, peerComment); ok {
			logins = append(logins, spec.PeerLogin{Node: node, Key: string(bytes.TrimSpace(ssh.MarshalAuthorizedKey(k)))})
		}
		data = rest
	}
	return logins, nil
}

func (p Peers) files() ([]file, error) {
	if p.Commitments == "" {
		return nil, p.Check("")
	}
	c, err := shares.ParseCommitments(p.Commitments)
	if err != nil {
		return nil, err
	}
	return []file{{PeersFile, 0o644, []byte(p.Commitments)}}, p.Check(c.Node)
}
