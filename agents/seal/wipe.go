package seal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"popfleet/agents/disk"
	"popfleet/agents/exchange"
	"popfleet/agents/luks"
	"popfleet/playbooks/spec"
)

// Wipe serves [spec.OpWipe]: it destroys every key slot on the disks named, in rescue or on the running node, and proves
// that none is left. What is encrypted stays where it is and can't be read by anyone any more.
func (h Handler) Wipe(ctx context.Context, specJSON json.RawMessage, s exchange.Session) (any, error) {
	var req spec.Wipe
	if err := exchange.Decode(specJSON, &req); err != nil {
		return nil, err
	}
	if req.Version != 1 || req.Node == "" {
		return nil, &spec.Error{Code: spec.CodeBadSpec, Message: "wipe: version must be 1 and node must be named"}
	}
	devices, err := h.encrypted(req)
	if err != nil {
		return nil, err
	}
	wiped := spec.Wiped{}
	for _, d := range devices {
		s.Emit(spec.Event{Kind: spec.KindStep, Step: "erase " + d.dev, Status: "doing"})
		if err := h.erase(ctx, d); err != nil {
			return nil, fmt.Errorf("wipe %s: %w", d.dev, err)
		}
		wiped.Devices = append(wiped.Devices, d.dev)
		s.Emit(spec.Event{Kind: spec.KindStep, Step: "erase " + d.dev, Status: "done"})
	}
	return wiped, nil
}

// device is where a LUKS header lies: at the beginning of what cryptsetup can work on, or inside a member of an array
// that is not running.
type device struct {
	dev string
	at  int64 // 0: at the beginning
}

func (h Handler) erase(ctx context.Context, d device) error {
	if d.at > 0 {
		return h.overwrite(d.dev, d.at)
	}
	if err := h.luks().Erase(ctx, d.dev); err != nil {
		return err
	}
	slots, err := h.luks().Slots(ctx, d.dev)
	switch {
	case errors.Is(err, luks.ErrNoHeader):
		return nil
	case err != nil:
		return err
	case len(slots) > 0:
		return fmt.Errorf("%d key slots are left", len(slots))
	}
	return nil
}

// encrypted finds the LUKS devices on the disks named, and refuses when one of them is another node's.
func (h Handler) encrypted(req spec.Wipe) ([]device, error) {
	if id, err := h.Host.Identity(); err == nil && id.Node != req.Node {
		return nil, &spec.Error{Code: spec.CodeWrongNode, Message: fmt.Sprintf("this machine is node %q, not %q", id.Node, req.Node)}
	}
	disks, err := disk.Host{Root: h.Host.Root}.List()
	if err != nil {
		return nil, err
	}
	var found []device
	for _, d := range disks {
		if len(req.Serials) > 0 && !slices.Contains(req.Serials, d.Serial) && !slices.Contains(req.Serials, d.WWN) {
			continue
		}
		devs, err := h.onDisk(d.Path, req.Node)
		if err != nil {
			return nil, err
		}
		for _, dev := range devs {
			if !slices.Contains(found, dev) {
				found = append(found, dev)
			}
		}
	}
	for _, want := range req.Serials {
		if !slices.ContainsFunc(disks, func(d spec.Disk) bool { return d.Serial == want || d.WWN == want }) {
			return nil, &spec.Error{Code: spec.CodeWrongDisk, Message: fmt.Sprintf("the machine has no disk with serial or WWN %q", want)}
		}
	}
	return found, nil
}

// onDisk looks at a disk's partitions and at the arrays on them for LUKS2 headers.
func (h Handler) onDisk(path, node string) ([]device, error) {
	base := filepath.Base(path)
	names := []string{base}
	var idle []string // partitions that no running array uses
	parts, _ := filepath.Glob(filepath.Join("/", h.Host.Root, "sys/block", base, base+"*"))
	for _, p := range parts {
		names = append(names, filepath.Base(p))
		holders, _ := filepath.Glob(filepath.Join(p, "holders", "md*"))
		for _, a := range holders {
			names = append(names, filepath.Base(a))
		}
		if len(holders) == 0 {
			idle = append(idle, "/dev/"+filepath.Base(p))
		}
	}
	devs, err := h.members(idle, node)
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		dev := "/dev/" + n
		f, err := os.Open(filepath.Join("/", h.Host.Root, dev))
		if err != nil {
			return nil, err
		}
		header, ok := disk.ReadLUKS(f)
		f.Close()
		if !ok {
			continue
		}
		if err := ownedBy(dev, header, node); err != nil {
			return nil, err
		}
		devs = append(devs, device{dev: dev})
	}
	return devs, nil
}

// members looks into the members of arrays that are not running.
func (h Handler) members(parts []string, node string) ([]device, error) {
	var devs []device
	for _, dev := range parts {
		at, err := h.loose(dev, node)
		if err != nil {
			return nil, err
		}
		if at > 0 {
			devs = append(devs, device{dev, at})
		}
	}
	return devs, nil
}

func ownedBy(dev string, header disk.LUKS, node string) error {
	if owner, ours := strings.CutPrefix(header.Subsystem, "fleet/"); !ours || owner != node {
		return &spec.Error{Code: spec.CodeWrongNode, Message: fmt.Sprintf("%s is encrypted for %q, not for node %q", dev, header.Subsystem, node)}
	}
	return nil
}
