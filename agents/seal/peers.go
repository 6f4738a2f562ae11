package seal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"popfleet/agents/bootchain"
	"popfleet/agents/command"
	"popfleet/agents/exchange"
	"popfleet/agents/hostkey"
	"popfleet/agents/luks"
	"popfleet/playbooks/spec"
)

// peerSlots hold the key that peers open the node with; it is in one of them, and in both while one follows another.
// Nothing depends on what is in them: the machine key opens the disk all the same, so a stranger's may be destroyed.
var peerSlots = [2]int{4, 5}

// PeerKey serves [spec.OpPeerKey]. What the initramfs expects never names a key that opens nothing: a slot is there
// before its commitments and goes after them.
func (h Handler) PeerKey(ctx context.Context, specJSON json.RawMessage, s exchange.Session) (any, error) {
	var req spec.PeerKey
	if err := exchange.Decode(specJSON, &req); err != nil {
		return nil, err
	}
	if err := h.checkPeerKey(req); err != nil {
		return nil, &spec.Error{Code: spec.CodeBadSpec, Message: "peer-key: " + err.Error()}
	}
	if err := h.isNode(req.Node); err != nil {
		return nil, err
	}
	if err := h.takesShares(req); err != nil {
		return nil, err
	}
	dev, err := h.device()
	if err != nil {
		return nil, fmt.Errorf("peer-key: %w", err)
	}
	p := &peerKey{h: h, luks: h.luks(), dev: dev, req: req}
	steps := []func(context.Context) error{p.authorised, p.add, p.expect}
	if req.Step == spec.PeerKeyRetire {
		steps = []func(context.Context) error{p.authorised, p.proven, p.expect, p.retire}
	}
	s.Emit(spec.Event{Kind: spec.KindStep, Step: req.Step + " peers' key", Status: "doing"})
	for _, do := range steps {
		if err := do(ctx); err != nil {
			return nil, fmt.Errorf("peer-key: %s: %w", req.Step, err)
		}
	}
	unix.Sync() // what is answered must outlive a power cut
	s.Emit(spec.Event{Kind: spec.KindStep, Step: req.Step + " peers' key", Status: "done"})
	return p.result(ctx)
}

func (h Handler) checkPeerKey(r spec.PeerKey) error {
	switch {
	case r.Version != 1:
		return fmt.Errorf("version %d is not 1", r.Version)
	case r.Step != spec.PeerKeyAdd && r.Step != spec.PeerKeyRetire:
		return fmt.Errorf("step %q is neither %s nor %s", r.Step, spec.PeerKeyAdd, spec.PeerKeyRetire)
	case len(r.MachineKey) < 32:
		return fmt.Errorf("machine_key has %d bytes, fewer than 32", len(r.MachineKey))
	case len(r.Key) == 0 && r.Step == spec.PeerKeyAdd:
		return errors.New("no key to add")
	case len(r.Key) != 0 && len(r.Key) != 64:
		return fmt.Errorf("a key of %d bytes, expected 64", len(r.Key))
	case (len(r.Key) == 0) != (r.Commitments == ""):
		return errors.New("a key goes with commitments")
	case slices.Equal(r.Key, r.MachineKey):
		return errors.New("the peers' key is the machine key")
	}
	return bootchain.Peers{Commitments: r.Commitments, Logins: r.Logins}.Check(r.Node)
}

// takesShares refuses a node whose initramfs would take a share for a wrong key.
func (h Handler) takesShares(r spec.PeerKey) error {
	_, err := os.Stat(filepath.Join("/", h.Host.Root, bootchain.ShareScript))
	if !errors.Is(err, fs.ErrNotExist) || r.Commitments == "" {
		return nil
	}
	return &spec.Error{Code: exchange.CodeFailed, Message: "the image of this node is older than unlocking by peers",
		Hint: "install the node anew (fleet replace), or leave it out of unlock.peers"}
}

type peerKey struct {
	h    Handler
	luks luks.Tool
	dev  string
	req  spec.PeerKey
	sha  string
}

// authorised makes sure that the machine key is current before anything is changed.
func (p *peerKey) authorised(ctx context.Context) error {
	for _, slot := range machineSlots {
		if opens, err := p.opens(ctx, slot, p.req.MachineKey); err != nil || opens {
			return err
		}
	}
	return &spec.Error{Code: spec.CodeStaleKey, Message: "the machine key given opens no machine slot",
		Hint: "another copy of the secrets folder has rotated it: bring this one up to date"}
}

func (p *peerKey) taken(ctx context.Context, slot int) (bool, error) {
	slots, err := p.luks.Slots(ctx, p.dev)
	return slices.ContainsFunc(slots, func(s luks.Slot) bool { return s.N == slot }), err
}

func (p *peerKey) opens(ctx context.Context, slot int, key []byte) (bool, error) {
	taken, err := p.taken(ctx, slot)
	if err != nil || !taken || len(key) == 0 {
		return false, err
	}
	return p.luks.Opens(ctx, p.dev, slot, key)
}

// holds is the slot that Key opens, or -1.
func (p *peerKey) holds(ctx context.Context) (int, error) {
	for _, slot := range peerSlots {
		if opens, err := p.opens(ctx, slot, p.req.Key); err != nil || opens {
			return slot, err
		}
	}
	return -1, nil
}

func (p *peerKey) add(ctx context.Context) error {
	slot, err := p.holds(ctx)
	if err != nil {
		return err
	}
	if slot < 0 {
		if slot, err = p.room(ctx); err != nil {
			return err
		}
		if err := p.luks.AddKey(ctx, p.dev, slot, p.req.MachineKey, p.req.Key, luks.Machine()); err != nil {
			return err
		}
	}
	// First to be tried, beside the machine key: the recovery slot before it would cost its stretching.
	if err := p.luks.Prefer(ctx, p.dev, slot); err != nil {
		return err
	}
	return p.proven(ctx)
}

// room is a free slot. With both taken, one holds a key that was added and never called the current one: it goes.
func (p *peerKey) room(ctx context.Context) (int, error) {
	for _, slot := range peerSlots {
		if taken, err := p.taken(ctx, slot); err != nil || !taken {
			return slot, err
		}
	}
	stray := peerSlots[1]
	if current, err := p.opens(ctx, stray, p.req.Current); err != nil || current {
		if stray = peerSlots[0]; err != nil {
			return 0, err
		}
	}
	return stray, p.luks.KillSlot(ctx, p.dev, stray, p.req.MachineKey)
}

// proven refuses to go on without the key that is to stay.
func (p *peerKey) proven(ctx context.Context) error {
	if len(p.req.Key) == 0 {
		return nil
	}
	slot, err := p.holds(ctx)
	if err == nil && slot < 0 {
		err = &spec.Error{Code: spec.CodeStaleKey, Message: "the peers' key given opens no peers' slot", Hint: "add it first"}
	}
	return err
}

// expect tells the initramfs whom to expect what of, and proves that the node would come back with it.
func (p *peerKey) expect(ctx context.Context) error {
	root := filepath.Join("/", p.h.Host.Root)
	if _, err := p.h.Run.Run(ctx, command.Cmd{Argv: bootchain.MountBoot()}); err != nil {
		return err
	}
	data, err := os.ReadFile(filepath.Join(root, hostkey.InitramfsFile))
	if err != nil {
		return err
	}
	key, err := hostkey.Parse(data)
	if err != nil {
		return fmt.Errorf("%s: %w", hostkey.InitramfsFile, err)
	}
	n, err := bootchain.ReadNode(root)
	if err != nil {
		return err
	}
	n.Peers = bootchain.Peers{Commitments: p.req.Commitments, Logins: p.req.Logins}
	if err := n.Save(root); err != nil {
		return err
	}
	if p.sha, err = bootchain.WriteNodePart(root, key.Private); err != nil {
		return err
	}
	return bootchain.Check(root)
}

func (p *peerKey) retire(ctx context.Context) error {
	kept, err := p.holds(ctx)
	if err != nil {
		return err
	}
	for _, slot := range peerSlots {
		taken, err := p.taken(ctx, slot)
		if err != nil {
			return err
		}
		if !taken || slot == kept {
			continue
		}
		if err := p.luks.KillSlot(ctx, p.dev, slot, p.req.MachineKey); err != nil {
			return err
		}
	}
	return nil
}

func (p *peerKey) result(ctx context.Context) (any, error) {
	slots, err := p.luks.Slots(ctx, p.dev)
	out := spec.PeerKeyed{InitramfsSHA: p.sha}
	for _, s := range slots {
		out.Slots = append(out.Slots, fmt.Sprintf("%d %s %s", s.N, slotName(s.N), s.KDF))
	}
	return out, err
}
