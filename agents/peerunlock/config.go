// Package peerunlock is a node's part in unlocking others when no controller does: it watches the nodes that it holds a
// share of a key for (its wards), and hands the share over to one that was alive lately and now waits in its initramfs
// (docs/protocols/peer-unlock.md). With fewer than the threshold of shares nothing opens, so every peer decides for
// itself, by what it saw itself.
//
// It never holds a key, never sends a share but to the pinned host key of its ward's initramfs, and takes no orders from
// anybody: what it may do is in the file that the operator's spec writes. A share that is refused is not sent again.
package peerunlock

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"popfleet/internal/shares"
	"popfleet/internal/strictjson"
)

// File is where the spec puts the wards.
const File = "/etc/fleet/peer-unlock.json"

// Config is the file. It holds secrets: neither it nor a part of it is to be printed.
type Config struct {
	Version int    `json:"version"` // 1
	Node    string `json:"node"`    // this one
	Key     string `json:"key"`     // the login, OpenSSH PEM
	Wards   []Ward `json:"wards"`
}

// Ward is a node this one holds a share of.
type Ward struct {
	Node    string `json:"node"`
	Address string `json:"address"`  // host:port of its initramfs' dropbear
	HostKey string `json:"host_key"` // pinned, authorized_keys form
	Share   string `json:"share"`    // the line to hand over
}

const (
	maxFile  = 256 << 10
	maxWards = 256
)

// Load reads and checks the file at path; no file is an empty Config.
func Load(path string) (Config, error) {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return Config{}, nil
	}
	if err != nil {
		return Config{}, err
	}
	if info.Size() > maxFile {
		return Config{}, fmt.Errorf("%s: larger than %d bytes", path, maxFile)
	}
	var c Config
	if err := strictjson.File(path, &c); err != nil {
		return Config{}, err
	}
	if err := c.Validate(); err != nil {
		return Config{}, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// Validate reports every problem at once, and quotes nothing secret.
func (c Config) Validate() error {
	var all []error
	if c.Version != 1 {
		all = append(all, fmt.Errorf("version %d is not 1", c.Version))
	}
	if _, err := ssh.ParsePrivateKey([]byte(c.Key)); err != nil {
		all = append(all, errors.New("key: not an SSH private key"))
	}
	if len(c.Wards) > maxWards {
		return fmt.Errorf("%d wards, at most %d", len(c.Wards), maxWards)
	}
	var names []string
	for i, w := range c.Wards {
		if err := w.validate(); err != nil {
			all = append(all, fmt.Errorf("wards[%d]: %w", i, err))
		}
		if w.Node == c.Node || slices.Contains(names, w.Node) {
			all = append(all, fmt.Errorf("wards[%d]: node %s is there twice, or is this one", i, w.Node))
		}
		names = append(names, w.Node)
	}
	return errors.Join(all...)
}

func (w Ward) validate() error {
	h, err := shares.ParseShare(w.Share)
	if err != nil {
		return err
	}
	if h.Node != w.Node {
		return fmt.Errorf("node %s has a share of node %s", w.Node, h.Node)
	}
	if host, port, err := net.SplitHostPort(w.Address); err != nil || host == "" || port == "" {
		return fmt.Errorf("address %q: expected host:port", w.Address)
	}
	if _, err := w.pin(); err != nil {
		return fmt.Errorf("host_key: %w", err)
	}
	return nil
}

func (w Ward) pin() (ssh.PublicKey, error) {
	k, _, _, _, err := ssh.ParseAuthorizedKey([]byte(strings.TrimSpace(w.HostKey)))
	return k, err
}

// generation is the share's, for people.
func (w Ward) generation() int {
	h, _ := shares.ParseShare(w.Share) // Validate has read it
	return h.Generation
}
