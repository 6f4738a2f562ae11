// Package vault keeps the fleet's secrets at rest in the operator's secrets folder: disk keys, host keys, the SSH and
// X.509 authorities and what was learnt about each node. Every file but the identity and the recipients is encrypted
// by age to the recipients; the identity is encrypted with the operators' passphrase. The folder is safe to commit.
//
// A secret is on disk, synced, before it is handed out, and a file appears whole or not at all; a process killed at any
// moment leaves a folder that opens. A file that was changed, or moved to another name, by somebody without the
// passphrase is refused; an older state of the same file put back is not noticed.
//
// It never prints, never talks to a network and never changes a key that exists, except a machine key by its rotation,
// which keeps one that opens the disk at every moment: see [Vault.BeginRotation] and [Vault.Forget].
// The layout is drawn in docs/formats/secrets.md.
package vault

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"filippo.io/age"

	"popfleet/inventory"
)

// Conditions a caller can act on.
var (
	ErrNoVault         = errors.New("no vault")
	ErrExists          = errors.New("a vault is already there")
	ErrWrongPassphrase = errors.New("wrong passphrase")
	ErrTampered        = errors.New("file was not written by this vault under this name")
)

const (
	minPassphraseBytes = 8
	// defaultWorkFactor is below age's own 18, for which the length asked of a passphrase makes up (docs/decisions/016).
	defaultWorkFactor = 16
)

// Options of [Create].
type Options struct {
	// Fleet is the fleet's name, kept for the life of the vault; it is part of every certificate.
	Fleet string
	// WorkFactor is log2 of scrypt's cost for the passphrase, 0 means 16 (64 MiB, a third of a second). Tests use 10.
	WorkFactor int
}

// Vault is an opened secrets folder. Its methods may be called from several goroutines at once.
type Vault struct {
	dir   string
	fleet string
	now   func() time.Time
	files sealer
	mu    sync.Mutex // one writer at a time in this process; between processes, first-writer-wins by link(2)
}

// about is the content of vault.age.
type about struct {
	Version int    `json:"version"`
	Fleet   string `json:"fleet"`
}

const (
	identityFile   = "identity.age"
	recipientsFile = "recipients.txt"
	aboutFile      = "vault.age"
)

// Create makes a vault at dir, which must not exist or be empty, and opens it. The folder appears by one rename, so an
// interrupted Create leaves none.
func Create(dir string, passphrase inventory.Secret, o Options) (*Vault, error) {
	if err := creatable(dir, passphrase, o); err != nil {
		return nil, fmt.Errorf("create vault %s: %w", dir, err)
	}
	v, err := create(dir, passphrase, o)
	if err != nil {
		return nil, fmt.Errorf("create vault %s: %w", dir, err)
	}
	return v, nil
}

func creatable(dir string, passphrase inventory.Secret, o Options) error {
	if !validName(o.Fleet) {
		return fmt.Errorf("fleet name %q: want a DNS label", o.Fleet)
	}
	if n := len(passphrase.Reveal()); n < minPassphraseBytes {
		return fmt.Errorf("passphrase of %d bytes is too short (want %d or more; it protects every disk of the fleet)", n, minPassphraseBytes)
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if e.Name() == identityFile {
			return ErrExists
		}
	}
	if len(entries) > 0 {
		return fmt.Errorf("the folder holds %s already (give an empty or absent folder)", entries[0].Name())
	}
	return nil
}

func create(dir string, passphrase inventory.Secret, o Options) (*Vault, error) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, err
	}
	parent := filepath.Dir(dir)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return nil, err
	}
	fresh, err := os.MkdirTemp(parent, ".secrets.new-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(fresh) // gone after the rename; left only by an error
	if err := writeIdentity(fresh, id, passphrase, o.WorkFactor); err != nil {
		return nil, err
	}
	v := newVault(fresh, newSealer(id, []age.Recipient{id.Recipient()}))
	if err := v.put(aboutFile, about{Version: 1, Fleet: o.Fleet}); err != nil {
		return nil, err
	}
	// An empty folder that is there makes way; Remove refuses one that is not empty.
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err := os.Rename(fresh, dir); err != nil {
		return nil, err
	}
	v.dir, v.fleet = dir, o.Fleet
	return v, syncDir(parent)
}

func newVault(dir string, s sealer) *Vault {
	return &Vault{dir: dir, files: s, now: time.Now}
}

// Open opens the vault at dir. Errors: [ErrNoVault], [ErrWrongPassphrase], [ErrTampered].
func Open(dir string, passphrase inventory.Secret) (*Vault, error) {
	v, err := open(dir, passphrase)
	if err != nil {
		return nil, fmt.Errorf("open vault %s: %w", dir, err)
	}
	return v, nil
}

func open(dir string, passphrase inventory.Secret) (*Vault, error) {
	id, err := readIdentity(filepath.Join(dir, identityFile), passphrase)
	if err != nil {
		return nil, err
	}
	recipients, err := readRecipients(filepath.Join(dir, recipientsFile), id)
	if err != nil {
		return nil, err
	}
	v := newVault(dir, newSealer(id, recipients))
	var a about
	if err := v.get(aboutFile, &a); err != nil {
		return nil, err
	}
	if a.Version != 1 {
		return nil, fmt.Errorf("%s: version %d is not known (this build reads version 1)", aboutFile, a.Version)
	}
	v.fleet = a.Fleet
	return v, v.sweepForgotten()
}

// Exists reports whether dir holds a vault, whatever its passphrase.
func Exists(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, identityFile))
	return err == nil
}

// Fleet is the fleet's name as given to [Create].
func (v *Vault) Fleet() string { return v.fleet }

// validName is a DNS label: what a fleet, node or service name must be, and nothing that could leave its folder.
func validName(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	return !strings.ContainsFunc(s, func(c rune) bool {
		return !(c == '-' || c >= 'a' && c <= 'z' || c >= '0' && c <= '9')
	})
}

func checkName(kind, name string) error {
	if !validName(name) {
		return fmt.Errorf("%s name %q: want a DNS label (a–z, 0–9, -)", kind, name)
	}
	return nil
}
