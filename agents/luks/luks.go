// Package luks is what fleet-agent does to a LUKS2 device through cryptsetup: format, open, and look after its key
// slots. Keys go through pipes only. It decides nothing: which slot is whose is the caller's business.
package luks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"popfleet/agents/command"
)

// Label is the LUKS2 label of every node's root; the generic initramfs finds it by this when nothing better is known.
const Label = "fleet-luks"

// KDF is how a slot's key is stretched. The parameters are fixed: cryptsetup's own choice depends on the machine that
// adds the slot, and a big rescue machine would choose what a small node can't unlock with (facts/machines.md A3).
type KDF []string

// Machine is for keys that are random already: stretching adds nothing, time at every boot would be lost.
func Machine() KDF { return KDF{"--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"} }

// Human is for keys a person types.
func Human() KDF {
	return KDF{"--pbkdf", "argon2id", "--pbkdf-memory", "262144", "--pbkdf-parallel", "1", "--pbkdf-force-iterations", "4"}
}

// Tool runs cryptsetup.
type Tool struct{ Run command.Runner }

// slow bounds calls that stretch a key: argon2id over 256 MiB takes a minute on an emulated machine.
const slow = 10 * time.Minute

func (t Tool) cryptsetup(ctx context.Context, secrets [][]byte, args ...string) ([]byte, error) {
	return t.Run.Run(ctx, command.Cmd{Argv: append([]string{"cryptsetup"}, args...), Secrets: secrets, Timeout: slow})
}

// Format makes a new header on dev with key in slot 0. Everything on dev is lost.
func (t Tool) Format(ctx context.Context, dev string, key []byte, subsystem string) error {
	args := []string{"luksFormat", "--batch-mode", "--type", "luks2", "--label", Label, "--subsystem", subsystem,
		"--cipher", "aes-xts-plain64", "--key-size", "512", "--hash", "sha256", "--sector-size", "4096",
		"--key-slot", "0", "--use-urandom"}
	args = append(args, Machine()...)
	_, err := t.cryptsetup(ctx, [][]byte{key}, append(args, "--key-file", command.Secret(0), dev)...)
	return err
}

// Open maps dev to /dev/mapper/name. TRIM passes through; the work queues of dm-crypt are skipped, which is faster on
// SSDs and on emulated machines.
func (t Tool) Open(ctx context.Context, dev, name string, key []byte) error {
	_, err := t.cryptsetup(ctx, [][]byte{key}, "open", "--type", "luks2", "--allow-discards",
		"--perf-no_read_workqueue", "--perf-no_write_workqueue", "--key-file", command.Secret(0), dev, name)
	return err
}

// Close unmaps name.
func (t Tool) Close(ctx context.Context, name string) error {
	_, err := t.cryptsetup(ctx, nil, "close", name)
	return err
}

// Opens tells whether key opens slot of dev; slot -1 is any slot.
func (t Tool) Opens(ctx context.Context, dev string, slot int, key []byte) (bool, error) {
	args := []string{"open", "--type", "luks2", "--test-passphrase", "--key-file", command.Secret(0)}
	if slot >= 0 {
		args = append(args, "--key-slot", strconv.Itoa(slot))
	}
	_, err := t.cryptsetup(ctx, [][]byte{key}, append(args, dev)...)
	// 2: no key with this passphrase; 1 is also what cryptsetup says of a slot that is not active.
	if code := command.ExitCode(err); code == 2 || (code == 1 && slot >= 0) {
		return false, nil
	}
	return err == nil, err
}

// AddKey puts key into slot of dev, which must be free, authorised by existing.
func (t Tool) AddKey(ctx context.Context, dev string, slot int, existing, key []byte, kdf KDF) error {
	args := append([]string{"luksAddKey", "--batch-mode", "--key-slot", strconv.Itoa(slot), "--key-file", command.Secret(0)}, kdf...)
	_, err := t.cryptsetup(ctx, [][]byte{existing, key}, append(args, dev, command.Secret(1))...)
	return err
}

// Prefer makes slot the first one tried.
func (t Tool) Prefer(ctx context.Context, dev string, slot int) error {
	_, err := t.cryptsetup(ctx, nil, "config", "--priority", "prefer", "--key-slot", strconv.Itoa(slot), dev)
	return err
}

// KillSlot destroys slot, authorised by a key of another slot.
func (t Tool) KillSlot(ctx context.Context, dev string, slot int, authority []byte) error {
	_, err := t.cryptsetup(ctx, [][]byte{authority}, "luksKillSlot", "--batch-mode", "--key-file", command.Secret(0), dev, strconv.Itoa(slot))
	return err
}

// Erase destroys every slot of dev.
func (t Tool) Erase(ctx context.Context, dev string) error {
	_, err := t.cryptsetup(ctx, nil, "erase", "--batch-mode", dev)
	return err
}

// Slot is one active key slot.
type Slot struct {
	N   int
	KDF string // pbkdf2 | argon2id
}

// ErrNoHeader means that a device carries no LUKS2 header.
var ErrNoHeader = errors.New("no LUKS2 header")

// Slots reads the active slots of dev, in order.
func (t Tool) Slots(ctx context.Context, dev string) ([]Slot, error) {
	if _, err := t.cryptsetup(ctx, nil, "isLuks", "--type", "luks2", dev); err != nil {
		return nil, fmt.Errorf("%s: %w", dev, ErrNoHeader)
	}
	out, err := t.cryptsetup(ctx, nil, "luksDump", "--dump-json-metadata", dev)
	if err != nil {
		return nil, err
	}
	return parseSlots(out)
}

func parseSlots(metadata []byte) ([]Slot, error) {
	var m struct {
		Keyslots map[string]struct {
			KDF struct {
				Type string `json:"type"`
			} `json:"kdf"`
		} `json:"keyslots"`
	}
	if err := json.Unmarshal(metadata, &m); err != nil {
		return nil, fmt.Errorf("read LUKS2 metadata: %w", err)
	}
	var slots []Slot
	for name, s := range m.Keyslots {
		n, err := strconv.Atoi(name)
		if err != nil {
			return nil, fmt.Errorf("read LUKS2 metadata: slot %q", name)
		}
		slots = append(slots, Slot{n, s.KDF.Type})
	}
	slices.SortFunc(slots, func(a, b Slot) int { return a.N - b.N })
	return slots, nil
}
