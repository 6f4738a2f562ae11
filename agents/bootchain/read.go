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

	"golang.org/x/crypto/ssh"

	"popfleet/playbooks/spec"
)

// What the per-node part is made of, by path in the initramfs.
const (
	NetConfFile        = "etc/fleet/net.conf"
	AuthorizedKeysFile = "etc/fleet/authorized_keys"
	DropbearKeyFile    = "etc/dropbear/dropbear_ed25519_host_key"
	CrypttabFile       = "cryptroot/crypttab"
)

// maxPartFile bounds each file of a per-node part.
const maxPartFile = 64 << 10

// ParseNetConf reads what netConf wrote. DNS is not in it.
func ParseNetConf(data []byte) (spec.Network, error) {
	var n spec.Network
	if len(data) > maxPartFile {
		return n, errors.New("too large")
	}
	for line := range strings.Lines(string(data)) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok {
			return n, fmt.Errorf("line %q", line)
		}
		value = strings.Trim(value, `"`)
		switch key {
		case "MAC":
			n.MAC = value
		case "ADDRESSES":
			n.Addresses = strings.Fields(value)
		case "GATEWAY4":
			n.Gateway4 = value
		case "GATEWAY6":
			n.Gateway6 = value
		default:
			return n, fmt.Errorf("line %q", line)
		}
	}
	return n, validNetwork(n)
}

func validNetwork(n spec.Network) error {
	if _, err := net.ParseMAC(n.MAC); err != nil {
		return err
	}
	for _, a := range n.Addresses {
		if _, err := netip.ParsePrefix(a); err != nil {
			return err
		}
	}
	_, err4 := gateway(n.Gateway4)
	_, err6 := gateway(n.Gateway6)
	return errors.Join(err4, err6)
}

// ParseAuthorizedKeys reads the keys that may hand over the disk key, without their options.
func ParseAuthorizedKeys(data []byte) ([]ssh.PublicKey, error) {
	if len(data) > maxPartFile {
		return nil, errors.New("too large")
	}
	var keys []ssh.PublicKey
	for len(bytes.TrimSpace(data)) > 0 {
		k, _, _, rest, err := ssh.ParseAuthorizedKey(data)
		if err != nil {
			return nil, err
		}
		keys, data = append(keys, k), rest
	}
	return keys, nil
}

// ParseDropbearKey reads an ed25519 host key in dropbear's own format.
func ParseDropbearKey(data []byte) (ed25519.PrivateKey, error) {
	kind, rest, ok := lengthPrefixed(data)
	if !ok || string(kind) != "ssh-ed25519" {
		return nil, errors.New("no ed25519 host key in dropbear's format")
	}
	k, rest, ok := lengthPrefixed(rest)
	if !ok || len(k) != ed25519.PrivateKeySize || len(rest) != 0 {
		return nil, errors.New("an ed25519 host key of a wrong size")
	}
	if !bytes.Equal(ed25519.NewKeyFromSeed(k[:ed25519.SeedSize]), k) {
		return nil, errors.New("its public half does not belong to its private one")
	}
	return ed25519.PrivateKey(k), nil
}

func lengthPrefixed(b []byte) (value, rest []byte, ok bool) {
	if len(b) < 4 {
		return nil, nil, false
	}
	n := binary.BigEndian.Uint32(b)
	if uint64(n) > uint64(len(b)-4) {
		return nil, nil, false
	}
	return b[4 : 4+n], b[4+n:], true
}

// CryptEntry is one line of a crypttab (crypttab(5)).
type CryptEntry struct {
	Name, Source, Key string
	Options           []string
}

// ParseCrypttab reads a crypttab.
func ParseCrypttab(data []byte) ([]CryptEntry, error) {
	if len(data) > maxPartFile {
		return nil, errors.New("too large")
	}
	var entries []CryptEntry
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Fields(line)
		if len(f) < 2 || len(f) > 4 {
			return nil, fmt.Errorf("line %q has %d fields", line, len(f))
		}
		e := CryptEntry{Name: f[0], Source: f[1], Key: "none"}
		if len(f) > 2 {
			e.Key = f[2]
		}
		if len(f) > 3 {
			e.Options = strings.Split(f[3], ",")
		}
		entries = append(entries, e)
	}
	return entries, nil
}
