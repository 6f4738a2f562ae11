package bootchain

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"popfleet/playbooks/spec"
)

// nodeFile keeps what the per-node part is made of, on the encrypted root, so that it can be made again.
const nodeFile = "/etc/fleet/initramfs.json"

// Node is what the per-node part says besides the host key.
type Node struct {
	Network        spec.Network `json:"network"`
	AuthorizedKeys []string     `json:"authorized_keys"`
	LUKSUUID       string       `json:"luks_uuid"`
	Peers          Peers        `json:"peers,omitzero"`
}

// Save keeps it below root.
func (n Node) Save(root string) error {
	b, err := json.MarshalIndent(n, "", "  ")
	if err != nil {
		return err
	}
	path := filepath.Join(root, nodeFile)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return WriteFile(path, append(b, '\n'), 0o600)
}

// ReadNode reads what Save kept.
func ReadNode(root string) (Node, error) {
	var n Node
	data, err := os.ReadFile(filepath.Join(root, nodeFile))
	if err != nil {
		return n, err
	}
	if err := json.Unmarshal(data, &n); err != nil {
		return n, fmt.Errorf("%s: %w", nodeFile, err)
	}
	return n, nil
}

// WriteNodePart makes the per-node part from what [Node.Save] kept and the host key, and puts it on /boot. It returns
// its digest. A part that is already so is left alone: the archive of the same content is the same bytes.
func WriteNodePart(root string, hostKey ed25519.PrivateKey) (sha string, err error) {
	n, err := ReadNode(root)
	if err != nil {
		return "", err
	}
	part, err := NodePart{HostKey: hostKey, AuthorizedKeys: n.AuthorizedKeys, Network: n.Network, LUKSUUID: n.LUKSUUID, Peers: n.Peers}.Build()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(part)
	sha = hex.EncodeToString(sum[:])
	path := filepath.Join(root, NodePartFile)
	if have, err := os.ReadFile(path); err == nil && sha256.Sum256(have) == sum {
		return sha, nil
	}
	return sha, WriteFile(path, part, 0o600)
}
