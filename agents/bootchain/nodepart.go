// Package bootchain is everything between the firmware and the unlocked root that differs from node to node or from
// disk to disk: the per-node part of the initramfs, the boot loaders, and the check that a machine would come back from
// a reboot. The generic parts come with the image and are only copied here.
package bootchain

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/crypto/ssh"

	"popfleet/playbooks/spec"
)

// NodePartFile is the per-node part, relative to the root: GRUB loads it behind the generic initramfs, and what is in it
// wins. It holds no disk key, but the initramfs' own host key: who reads /boot can pretend to be this node's initramfs
// (facts/machines.md A5, T2).
const NodePartFile = "/boot/fleet-node.cpio.zst"

// NodePart is what one node's initramfs needs besides the generic one.
type NodePart struct {
	HostKey        ed25519.PrivateKey
	AuthorizedKeys []string
	Network        spec.Network
	LUKSUUID       string
	Peers          Peers
}

// Build returns the compressed archive.
func (p NodePart) Build() ([]byte, error) {
	conf, err := netConf(p.Network)
	if err != nil {
		return nil, err
	}
	keys, err := authorizedKeys(p.AuthorizedKeys)
	if err != nil {
		return nil, err
	}
	crypttab, err := Crypttab(p.LUKSUUID)
	if err != nil {
		return nil, err
	}
	peers, err := p.Peers.files()
	if err != nil {
		return nil, err
	}
	raw, err := archive(append([]file{
		{NetConfFile, 0o644, conf},
		{AuthorizedKeysFile, 0o600, append(keys, p.Peers.authorizedKeys()...)},
		{DropbearKeyFile, 0o600, dropbearKey(p.HostKey)},
		{CrypttabFile, 0o644, crypttab},
	}, peers...))
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	// One frame, small window: the kernel's decompressor refuses windows over 128 MiB, and a small one costs nothing.
	w, err := zstd.NewWriter(&out, zstd.WithWindowSize(64<<10), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(raw); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// Crypttab is the line that unlocks the root, in the initramfs and on the system.
func Crypttab(luksUUID string) ([]byte, error) {
	if luksUUID == "" || strings.Trim(luksUUID, "0123456789abcdef-") != "" {
		return nil, fmt.Errorf("LUKS UUID %q", luksUUID)
	}
	return fmt.Appendf(nil, "fleet-root UUID=%s none luks,discard,initramfs,no-read-workqueue,no-write-workqueue\n", luksUUID), nil
}

// netConf is sourced by a shell in the initramfs, so every value is parsed and printed anew, never copied.
func netConf(n spec.Network) ([]byte, error) {
	mac, err := net.ParseMAC(n.MAC)
	if err != nil {
		return nil, fmt.Errorf("network: %w", err)
	}
	var addresses []string
	for _, a := range n.Addresses {
		p, err := netip.ParsePrefix(a)
		if err != nil {
			return nil, fmt.Errorf("network: address: %w", err)
		}
		addresses = append(addresses, p.String())
	}
	gw4, err4 := gateway(n.Gateway4)
	gw6, err6 := gateway(n.Gateway6)
	if err := errors.Join(err4, err6); err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, "MAC=%s\nADDRESSES=\"%s\"\nGATEWAY4=%s\nGATEWAY6=%s\n", mac, strings.Join(addresses, " "), gw4, gw6), nil
}

func gateway(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return "", fmt.Errorf("network: gateway %q is no address", s)
	}
	return a.String(), nil
}

const loginOptions = "no-port-forwarding,no-agent-forwarding,no-X11-forwarding,no-pty "

// authorizedKeys prints keys anew, each without options of its own; dropbear's forced command is on its command line.
func authorizedKeys(lines []string) ([]byte, error) {
	var out bytes.Buffer
	for _, l := range lines {
		k, _, _, _, err := ssh.ParseAuthorizedKey([]byte(l))
		if err != nil {
			return nil, fmt.Errorf("authorized key: %w", err)
		}
		out.WriteString(loginOptions)
		out.Write(ssh.MarshalAuthorizedKey(k))
	}
	if out.Len() == 0 {
		return nil, errors.New("no authorized key: nobody could unlock this machine from outside")
	}
	return out.Bytes(), nil
}

// dropbearKey is dropbear's own file format: the key type and the 64 bytes of seed and public key, each with its length.
func dropbearKey(k ed25519.PrivateKey) []byte {
	const kind = "ssh-ed25519"
	b := binary.BigEndian.AppendUint32(nil, uint32(len(kind)))
	b = append(b, kind...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(k)))
	return append(b, k...)
}
