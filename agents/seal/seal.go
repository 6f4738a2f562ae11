// Package seal gives a freshly installed node its lasting secrets and takes the temporary ones away, and at the end of
// a node's life destroys its key slots. Both may be cut anywhere and run again. Keys arrive in memory and leave through
// pipes; nothing here writes one to a file, except the host keys, which have to be there.
//
// It works on the device that really is under /, found through /sys, and refuses a machine that says it is another node.
package seal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"popfleet/agents/bootchain"
	"popfleet/agents/command"
	"popfleet/agents/exchange"
	"popfleet/agents/facts"
	"popfleet/agents/hostkey"
	"popfleet/agents/luks"
	"popfleet/playbooks/spec"
)

// The slots of a sealed node. The install key is in slot 0 until it is sealed; nothing is in it afterwards. The machine
// key begins in the first machine slot and changes over at every rotation.
const (
	installSlot  = 0
	recoverySlot = 2
)

var machineSlots = [2]int{1, 3}

// slotName is "" for a slot that nobody of ours uses.
func slotName(n int) string {
	switch {
	case n == recoverySlot:
		return "recovery"
	case n == installSlot:
		return "install"
	case slices.Contains(machineSlots[:], n):
		return "machine"
	case slices.Contains(peerSlots[:], n):
		return "peers"
	}
	return ""
}

// Handler serves [spec.OpSeal], [spec.OpRotate], [spec.OpPeerKey] and [spec.OpWipe].
type Handler struct {
	Host facts.Host
	Run  command.Runner
	Log  *slog.Logger
	// RootDevice is the LUKS device under /; nil asks Host.
	RootDevice func() (string, error)
}

func (h Handler) luks() luks.Tool { return luks.Tool{Run: h.Run} }

func (h Handler) device() (string, error) {
	if h.RootDevice != nil {
		return h.RootDevice()
	}
	return h.Host.RootDevice()
}

// Seal serves [spec.OpSeal].
func (h Handler) Seal(ctx context.Context, specJSON json.RawMessage, s exchange.Session) (any, error) {
	var req spec.Seal
	if err := exchange.Decode(specJSON, &req); err != nil {
		return nil, err
	}
	keys, err := validate(req)
	if err != nil {
		return nil, err
	}
	if err := h.isNode(req.Node); err != nil {
		return nil, err
	}
	dev, err := h.device()
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	j := &job{h: h, luks: h.luks(), dev: dev, req: req, keys: keys}
	steps := []struct {
		name string
		do   func(context.Context) error
	}{
		{"machine key", j.machine}, {"recovery key", j.recovery}, {"host keys", j.hostKeys},
		{"install key", j.destroyInstall}, {"sealed", j.finish},
	}
	for _, st := range steps {
		s.Emit(spec.Event{Kind: spec.KindStep, Step: st.name, Status: "doing"})
		if err := st.do(ctx); err != nil {
			return nil, fmt.Errorf("seal: %s: %w", st.name, err)
		}
		s.Emit(spec.Event{Kind: spec.KindStep, Step: st.name, Status: "done"})
	}
	return j.result, nil
}

type hostKeys struct{ initramfs, system hostkey.Key }

func validate(s spec.Seal) (hostKeys, error) {
	bad := func(err error) (hostKeys, error) {
		return hostKeys{}, &spec.Error{Code: spec.CodeBadSpec, Message: "seal: " + err.Error()}
	}
	switch {
	case s.Version != 1:
		return bad(fmt.Errorf("version %d is not 1", s.Version))
	case len(s.MachineKey) < 32:
		return bad(fmt.Errorf("machine_key has %d bytes, fewer than 32", len(s.MachineKey)))
	case len(s.RecoveryKey) < 16 || len(s.RecoveryKey) > 512:
		return bad(fmt.Errorf("recovery_key has %d bytes", len(s.RecoveryKey)))
	}
	i, err := hostkey.Parse(s.InitramfsHostKey)
	if err != nil {
		return bad(fmt.Errorf("initramfs_host_key: %w", err))
	}
	y, err := hostkey.Parse(s.SystemHostKey)
	if err != nil {
		return bad(fmt.Errorf("system_host_key: %w", err))
	}
	if i.Equal(y) {
		return bad(errors.New("initramfs and system host key are the same"))
	}
	return hostKeys{i, y}, nil
}

func (h Handler) isNode(want string) error {
	id, err := h.Host.Identity()
	if err != nil {
		return &spec.Error{Code: spec.CodeWrongNode, Message: fmt.Sprintf("this machine is no installed node: %v", err)}
	}
	if id.Node != want {
		return &spec.Error{Code: spec.CodeWrongNode, Message: fmt.Sprintf("this machine is node %q, not %q", id.Node, want)}
	}
	return nil
}

type job struct {
	h      Handler
	luks   luks.Tool
	dev    string
	req    spec.Seal
	keys   hostKeys
	result spec.Sealed
}

// authority is a key that opens some slot now: the install key, or the machine key once the install key is gone.
func (j *job) authority(ctx context.Context) ([]byte, error) {
	for _, k := range [][]byte{j.req.MachineKey, j.req.InstallKey} {
		if len(k) == 0 {
			continue
		}
		opens, err := j.luks.Opens(ctx, j.dev, -1, k)
		if err != nil || opens {
			return k, err
		}
	}
	return nil, &spec.Error{Code: exchange.CodeFailed, Message: "neither the install key nor the machine key opens the disk",
		Hint: "the node was sealed with other keys; the vault in use is not the one it was sealed with"}
}

func (j *job) machine(ctx context.Context) error {
	authority, err := j.authority(ctx)
	if err != nil {
		return err
	}
	slot, err := j.machineSlot(ctx)
	if err != nil {
		return err
	}
	if err := j.ensure(ctx, slot, authority, j.req.MachineKey, luks.Machine()); err != nil {
		return err
	}
	return j.luks.Prefer(ctx, j.dev, slot)
}

// machineSlot is where the machine key is: a node that is sealed again may have rotated it to the second slot.
func (j *job) machineSlot(ctx context.Context) (int, error) {
	second := machineSlots[1]
	if taken, err := j.taken(ctx, second); err != nil || !taken {
		return machineSlots[0], err
	}
	opens, err := j.luks.Opens(ctx, j.dev, second, j.req.MachineKey)
	if err != nil || opens {
		return second, err
	}
	return machineSlots[0], nil
}

// recovery authorises with the machine key: from here on nothing depends on the install key.
func (j *job) recovery(ctx context.Context) error {
	return j.ensure(ctx, recoverySlot, j.req.MachineKey, j.req.RecoveryKey, luks.Human())
}

// ensure has key in slot and proves it by opening. A slot that holds something else is an earlier attempt's and goes.
func (j *job) ensure(ctx context.Context, slot int, authority, key []byte, kdf luks.KDF) error {
	taken, err := j.taken(ctx, slot)
	if err != nil {
		return err
	}
	if taken {
		opens, err := j.luks.Opens(ctx, j.dev, slot, key)
		if err != nil || opens {
			return err
		}
		if err := j.luks.KillSlot(ctx, j.dev, slot, authority); err != nil {
			return err
		}
	}
	if err := j.luks.AddKey(ctx, j.dev, slot, authority, key, kdf); err != nil {
		return err
	}
	opens, err := j.luks.Opens(ctx, j.dev, slot, key)
	if err == nil && !opens {
		err = fmt.Errorf("slot %d does not open with the key just put into it", slot)
	}
	return err
}

func (j *job) taken(ctx context.Context, slot int) (bool, error) {
	slots, err := j.luks.Slots(ctx, j.dev)
	return slices.ContainsFunc(slots, func(s luks.Slot) bool { return s.N == slot }), err
}

// hostKeys puts the vault's in place of those made at installation. The initramfs' goes into the per-node part, which is
// proven to be bootable; sshd takes the new key by a reload, which keeps this connection.
func (j *job) hostKeys(ctx context.Context) error {
	root := filepath.Join("/", j.h.Host.Root)
	if _, err := j.h.Run.Run(ctx, command.Cmd{Argv: bootchain.MountBoot()}); err != nil {
		return err
	}
	if err := j.keys.initramfs.Save(filepath.Join(root, hostkey.InitramfsFile)); err != nil {
		return err
	}
	sha, err := bootchain.WriteNodePart(root, j.keys.initramfs.Private)
	if err != nil {
		return err
	}
	if err := bootchain.Check(root); err != nil {
		return err
	}
	j.result.InitramfsSHA = sha
	j.result.SystemHostKey = j.keys.system.Authorized()
	path := filepath.Join(root, hostkey.SystemFile)
	if have, err := os.ReadFile(path); err == nil {
		if k, err := hostkey.Parse(have); err == nil && k.Equal(j.keys.system) {
			return nil
		}
	}
	if err := j.keys.system.Save(path); err != nil {
		return err
	}
	_, err = j.h.Run.Run(ctx, command.Cmd{Argv: []string{"systemctl", "reload", "ssh.service"}})
	return err
}

// destroyInstall is last of all that changes keys: until here the node could still be opened with the install key.
func (j *job) destroyInstall(ctx context.Context) error {
	unix.Sync()
	taken, err := j.taken(ctx, installSlot)
	if err != nil {
		return err
	}
	if taken {
		if err := j.luks.KillSlot(ctx, j.dev, installSlot, j.req.MachineKey); err != nil {
			return err
		}
	}
	slots, err := j.luks.Slots(ctx, j.dev)
	if err != nil {
		return err
	}
	j.result.Slots = nil
	have := map[string]int{}
	for _, s := range slots {
		name := slotName(s.N)
		if name == "" {
			return fmt.Errorf("slot %d is in use and nobody's: remove it by hand if it is not yours", s.N)
		}
		have[name]++
		j.result.Slots = append(j.result.Slots, name+" "+s.KDF)
	}
	if have["install"] != 0 || have["machine"] == 0 || have["recovery"] != 1 { // two machine keys: a rotation was cut
		return fmt.Errorf("the key slots left are %v", j.result.Slots)
	}
	j.result.InstallSlot = "destroyed"
	return nil
}

func (j *job) finish(context.Context) error {
	path := filepath.Join("/", j.h.Host.Root, facts.SealedFile)
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	return bootchain.WriteFile(path, []byte("1\n"), 0o644)
}

// Slots is the number of active key slots of the device under /.
func (h Handler) Slots(ctx context.Context) (int, error) {
	dev, err := h.device()
	if err != nil {
		return 0, err
	}
	slots, err := h.luks().Slots(ctx, dev)
	return len(slots), err
}
