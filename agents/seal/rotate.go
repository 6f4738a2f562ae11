package seal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"popfleet/agents/bootchain"
	"popfleet/agents/exchange"
	"popfleet/agents/luks"
	"popfleet/playbooks/spec"
)

// Rotate serves [spec.OpRotate]. The machine key lives in one of two slots and moves to the other at every rotation, so
// that the new key is proven while the old one still opens. A slot with a key that was not named is never touched: it
// belongs to another operator's vault, which would lose the disk with it.
func (h Handler) Rotate(ctx context.Context, specJSON json.RawMessage, s exchange.Session) (any, error) {
	var req spec.Rotate
	if err := exchange.Decode(specJSON, &req); err != nil {
		return nil, err
	}
	if err := checkRotate(req); err != nil {
		return nil, &spec.Error{Code: spec.CodeBadSpec, Message: "rotate: " + err.Error()}
	}
	if err := h.isNode(req.Node); err != nil {
		return nil, err
	}
	dev, err := h.device()
	if err != nil {
		return nil, fmt.Errorf("rotate: %w", err)
	}
	r := &rotation{luks: h.luks(), dev: dev, req: req, box: h.boxFile()}
	step := r.add
	if req.Step == spec.RotateRetire {
		step = r.retire
	}
	s.Emit(spec.Event{Kind: spec.KindStep, Step: req.Step + " key", Status: "doing"})
	if err := r.look(ctx); err != nil {
		return nil, fmt.Errorf("rotate: %w", err)
	}
	if err := step(ctx); err != nil {
		return nil, fmt.Errorf("rotate: %s: %w", req.Step, err)
	}
	s.Emit(spec.Event{Kind: spec.KindStep, Step: req.Step + " key", Status: "done"})
	return r.result(ctx)
}

// boxFile is where a sealed copy of the machine key waits for those who share the fleet's secrets.
func (h Handler) boxFile() string {
	return filepath.Join("/", h.Host.Root, "var/lib/fleet/machine-key.box")
}

// KeyBox serves [spec.OpKeyBox].
func (h Handler) KeyBox(_ context.Context, specJSON json.RawMessage, _ exchange.Session) (any, error) {
	var given spec.KeyBox
	if len(specJSON) > 0 && string(specJSON) != "null" {
		if err := exchange.Decode(specJSON, &given); err != nil {
			return nil, err
		}
	}
	if len(given.Box) > spec.MaxBoxBytes {
		return nil, &spec.Error{Code: spec.CodeBadSpec, Message: fmt.Sprintf("a box of %d bytes; at most %d", len(given.Box), spec.MaxBoxBytes)}
	}
	if len(given.Box) > 0 {
		return given, keepBox(h.boxFile(), given.Box)
	}
	f, err := os.Open(h.boxFile())
	if errors.Is(err, fs.ErrNotExist) {
		return spec.KeyBox{}, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	box, err := io.ReadAll(io.LimitReader(f, spec.MaxBoxBytes))
	return spec.KeyBox{Box: box}, err
}

func keepBox(path string, box []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return bootchain.WriteFile(path, box, 0o600)
}

func checkRotate(r spec.Rotate) error {
	switch {
	case r.Version != 1:
		return fmt.Errorf("version %d is not 1", r.Version)
	case r.Step != spec.RotateAdd && r.Step != spec.RotateRetire:
		return fmt.Errorf("step %q is neither %s nor %s", r.Step, spec.RotateAdd, spec.RotateRetire)
	case len(r.Current) < 32 || len(r.Other) < 32:
		return fmt.Errorf("keys of %d and %d bytes, fewer than 32", len(r.Current), len(r.Other))
	case len(r.Box) > spec.MaxBoxBytes:
		return fmt.Errorf("a box of %d bytes; at most %d", len(r.Box), spec.MaxBoxBytes)
	case bytes.Equal(r.Current, r.Other):
		return fmt.Errorf("current and other are the same key")
	}
	return nil
}

type rotation struct {
	luks   luks.Tool
	dev    string
	req    spec.Rotate
	box    string
	active []luks.Slot
	holds  int // the machine slot that Current opens
	beside int // the other machine slot
	done   int
}

// look finds the slot of the current key.
func (r *rotation) look(ctx context.Context) (err error) {
	if r.active, err = r.luks.Slots(ctx, r.dev); err != nil {
		return err
	}
	for i, slot := range machineSlots {
		opens, err := r.opens(ctx, slot, r.req.Current)
		if err != nil {
			return err
		}
		if opens {
			r.holds, r.beside = slot, machineSlots[1-i]
			return nil
		}
	}
	return &spec.Error{Code: spec.CodeStaleKey, Message: "the machine key given opens no machine slot",
		Hint: "another copy of the secrets folder has rotated it: bring this one up to date"}
}

func (r *rotation) opens(ctx context.Context, slot int, key []byte) (bool, error) {
	if !r.taken(slot) {
		return false, nil
	}
	return r.luks.Opens(ctx, r.dev, slot, key)
}

func (r *rotation) taken(slot int) bool {
	return slices.ContainsFunc(r.active, func(s luks.Slot) bool { return s.N == slot })
}

func (r *rotation) add(ctx context.Context) error {
	r.done = r.beside
	if r.taken(r.beside) {
		if err := r.ours(ctx); err != nil {
			return err
		}
	} else if err := r.luks.AddKey(ctx, r.dev, r.beside, r.req.Current, r.req.Other, luks.Machine()); err != nil {
		return err
	}
	if err := r.luks.Prefer(ctx, r.dev, r.beside); err != nil {
		return err
	}
	opens, err := r.luks.Opens(ctx, r.dev, r.beside, r.req.Other)
	if err == nil && !opens {
		err = fmt.Errorf("slot %d does not open with the key just put into it", r.beside)
	}
	unix.Sync() // what is answered must outlive a power cut
	return err
}

// ours refuses a slot beside the current one whose key was not named.
func (r *rotation) ours(ctx context.Context) error {
	opens, err := r.opens(ctx, r.beside, r.req.Other)
	if err == nil && !opens {
		err = &spec.Error{Code: spec.CodeForeignSlot, Message: fmt.Sprintf("slot %d holds a key that was not named", r.beside),
			Hint: "another copy of the secrets folder is rotating this node; bring the copies together before one goes on"}
	}
	return err
}

func (r *rotation) retire(ctx context.Context) error {
	r.done = r.holds
	if len(r.req.Box) > 0 {
		if err := keepBox(r.box, r.req.Box); err != nil {
			return err
		}
	}
	if r.taken(r.beside) {
		if err := r.ours(ctx); err != nil {
			return err
		}
		if err := r.luks.KillSlot(ctx, r.dev, r.beside, r.req.Current); err != nil {
			return err
		}
	}
	left, err := r.luks.Slots(ctx, r.dev)
	if err != nil {
		return err
	}
	for _, s := range left {
		if s.N != r.holds && s.N != recoverySlot && !slices.Contains(peerSlots[:], s.N) {
			return fmt.Errorf("slot %d is in use, besides the machine key's, the recovery key's and the peers'", s.N)
		}
	}
	opens, err := r.luks.Opens(ctx, r.dev, r.holds, r.req.Current)
	if err == nil && !opens {
		err = fmt.Errorf("slot %d does not open with the key that was kept", r.holds)
	}
	unix.Sync()
	return err
}

func (r *rotation) result(ctx context.Context) (any, error) {
	slots, err := r.luks.Slots(ctx, r.dev)
	if err != nil {
		return nil, err
	}
	out := spec.Rotated{Slot: r.done}
	for _, s := range slots {
		out.Slots = append(out.Slots, fmt.Sprintf("%d %s %s", s.N, slotName(s.N), s.KDF))
	}
	return out, nil
}
