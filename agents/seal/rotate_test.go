package seal

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"testing"

	"popfleet/playbooks/spec"
)

const (
	oldKey   = "0123456789abcdef0123456789abcdef"
	newKey   = "fedcba9876543210fedcba9876543210"
	thirdKey = "zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz"
	human    = "correct-horse-battery"
)

func sealedDevice() *luksDevice {
	return &luksDevice{slots: map[int]string{1: oldKey, 2: human}, kdf: map[int]string{1: "pbkdf2", 2: "argon2id"}}
}

func rotate(ctx context.Context, root string, d *luksDevice, step, current, other string) (spec.Rotated, error) {
	return rotateWith(ctx, handler(root, d), step, current, other)
}

func rotateWith(ctx context.Context, h Handler, step, current, other string) (spec.Rotated, error) {
	req, _ := json.Marshal(spec.Rotate{Version: 1, Node: "fsn-1", Step: step, Current: []byte(current), Other: []byte(other)})
	r, err := h.Rotate(ctx, req, silent{})
	if err != nil {
		return spec.Rotated{}, err
	}
	return r.(spec.Rotated), nil
}

func TestRotateThereAndBack(t *testing.T) {
	root, d := node(t), sealedDevice()
	current, other := oldKey, newKey
	for _, wantSlot := range []int{3, 1, 3} {
		for range 2 { // each step may be repeated
			if r, err := rotate(t.Context(), root, d, spec.RotateAdd, current, other); err != nil || r.Slot != wantSlot || len(r.Slots) != 3 {
				t.Fatalf("add: %+v, %v", r, err)
			}
		}
		for range 2 {
			if r, err := rotate(t.Context(), root, d, spec.RotateRetire, other, current); err != nil || r.Slot != wantSlot || len(r.Slots) != 2 {
				t.Fatalf("retire: %+v, %v", r, err)
			}
		}
		if d.opens(current) || !d.opens(other) || !d.opens(human) {
			t.Fatalf("slots %v", d.slots)
		}
		current, other = other, current
	}
}

// TestRotateCutAnywhere: at every call of a program where it may be cut, the key that the operator would call current
// opens, and the same step again ends well.
func TestRotateCutAnywhere(t *testing.T) {
	cuts := 0
	for _, step := range []struct{ name, current, other string }{
		{spec.RotateAdd, oldKey, newKey}, {spec.RotateRetire, newKey, oldKey},
	} {
		for cut := 1; ; cut++ {
			root, d := node(t), sealedDevice()
			if step.name == spec.RotateRetire {
				d.slots[3], d.kdf[3] = newKey, "pbkdf2"
			}
			d.cut = cut
			_, err := rotate(t.Context(), root, d, step.name, step.current, step.other)
			if !d.opens(step.current) || !d.opens(human) {
				t.Fatalf("%s cut at call %d: slots %v", step.name, cut, d.slots)
			}
			if err == nil {
				break
			}
			cuts++
			d.cut = 0
			if _, err := rotate(t.Context(), root, d, step.name, step.current, step.other); err != nil {
				t.Fatalf("%s cut at call %d and repeated: %v", step.name, cut, err)
			}
			if (step.name == spec.RotateAdd) != d.opens(step.other) {
				t.Fatalf("%s cut at call %d and repeated: slots %v", step.name, cut, d.slots)
			}
		}
	}
	t.Logf("cut at %d calls", cuts)
}

// TestTheBoxIsThereBeforeTheOldKeyIsGone: whoever finds the old key destroyed finds the new one in the box.
func TestTheBoxIsThereBeforeTheOldKeyIsGone(t *testing.T) {
	for cut := 1; ; cut++ {
		root, d := node(t), sealedDevice()
		h := handler(root, d)
		if b, err := h.KeyBox(t.Context(), nil, silent{}); err != nil || len(b.(spec.KeyBox).Box) != 0 {
			t.Fatalf("before the first rotation: %v, %v", b, err)
		}
		d.slots[3], d.kdf[3], d.cut = newKey, "pbkdf2", cut
		req, _ := json.Marshal(spec.Rotate{Version: 1, Node: "fsn-1", Step: spec.RotateRetire, Current: []byte(newKey), Other: []byte(oldKey), Box: []byte("sealed")})
		_, cutErr := h.Rotate(t.Context(), req, silent{})
		b, err := h.KeyBox(t.Context(), nil, silent{})
		if err != nil || !d.opens(oldKey) && string(b.(spec.KeyBox).Box) != "sealed" {
			t.Fatalf("cut at call %d: %v, %v, slots %v", cut, b, err, d.slots)
		}
		if cutErr == nil {
			break
		}
	}
}

func TestABoxIsKeptForOthers(t *testing.T) {
	h := handler(node(t), sealedDevice())
	for _, box := range []string{"first", "second"} {
		req, _ := json.Marshal(spec.KeyBox{Box: []byte(box)})
		_, err := h.KeyBox(t.Context(), req, silent{})
		got, err2 := h.KeyBox(t.Context(), []byte("null"), silent{})
		if err != nil || err2 != nil || string(got.(spec.KeyBox).Box) != box {
			t.Errorf("%v, %v, %v", got, err, err2)
		}
	}
	large, _ := json.Marshal(spec.KeyBox{Box: make([]byte, spec.MaxBoxBytes+1)})
	if _, err := h.KeyBox(t.Context(), large, silent{}); err == nil {
		t.Error("a box larger than a box was kept")
	}
}

func TestRotateRefuses(t *testing.T) {
	for _, c := range []struct {
		name, step, current, other string
		slots                      map[int]string
		code                       string
	}{
		{"a stale vault", spec.RotateAdd, thirdKey, newKey, map[int]string{1: oldKey, 2: human}, spec.CodeStaleKey},
		{"the recovery key is no authority", spec.RotateAdd, human + "-and-padding-to-32-bytes", newKey, map[int]string{1: oldKey, 2: human}, spec.CodeStaleKey},
		{"another vault's next key", spec.RotateAdd, oldKey, newKey, map[int]string{1: oldKey, 2: human, 3: thirdKey}, spec.CodeForeignSlot},
		{"another vault's key at the end", spec.RotateRetire, newKey, oldKey, map[int]string{1: thirdKey, 2: human, 3: newKey}, spec.CodeForeignSlot},
		{"one key twice", spec.RotateAdd, oldKey, oldKey, map[int]string{1: oldKey, 2: human}, spec.CodeBadSpec},
		{"no such step", "swap", oldKey, newKey, map[int]string{1: oldKey, 2: human}, spec.CodeBadSpec},
		{"a short key", spec.RotateAdd, oldKey, "short", map[int]string{1: oldKey, 2: human}, spec.CodeBadSpec},
	} {
		d := sealedDevice()
		d.slots = maps.Clone(c.slots)
		_, err := rotate(t.Context(), node(t), d, c.step, c.current, c.other)
		var told *spec.Error
		if !errors.As(err, &told) || told.Code != c.code {
			t.Errorf("%s: %v", c.name, err)
		}
		if !maps.Equal(d.slots, c.slots) {
			t.Errorf("%s: slots are %v", c.name, d.slots)
		}
		if err != nil && (strings.Contains(err.Error(), oldKey) || strings.Contains(err.Error(), newKey)) {
			t.Errorf("%s: a key is in the error", c.name)
		}
	}
	req, _ := json.Marshal(spec.Rotate{Version: 1, Node: "fsn-2", Step: spec.RotateAdd, Current: []byte(oldKey), Other: []byte(newKey)})
	var told *spec.Error
	if _, err := handler(node(t), sealedDevice()).Rotate(t.Context(), req, silent{}); !errors.As(err, &told) || told.Code != spec.CodeWrongNode {
		t.Errorf("another node: %v", err)
	}
}

// TestSealAfterRotation: a node that is sealed again keeps its rotated key, also in the middle of a rotation.
func TestSealAfterRotation(t *testing.T) {
	for _, slots := range []map[int]string{{3: oldKey, 2: human}, {1: newKey, 3: oldKey, 2: human}, {1: oldKey, 3: newKey, 2: human}} {
		root, d := node(t), sealedDevice()
		d.slots = maps.Clone(slots)
		d.kdf = map[int]string{1: "pbkdf2", 2: "argon2id", 3: "pbkdf2"}
		if _, err := handler(root, d).Seal(t.Context(), request("fsn-1"), silent{}); err != nil {
			t.Fatal(err)
		}
		if !maps.Equal(d.slots, slots) {
			t.Errorf("slots %v, before %v", d.slots, slots)
		}
	}
}
