package scripted

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/crypto/ssh"

	"popfleet/lab/faults"
)

// booted refuses what only an installed, running node can do, and a spec meant for another node.
func (x *exchange) booted(node string) error {
	if x.s.link != "system" {
		return &remoteError{"wrong_node", "this machine does not run an installed system", ""}
	}
	if d := x.m.snapshot(); d.Node != node {
		return &remoteError{"wrong_node", fmt.Sprintf("this is node %s, not %s", d.Node, node), ""}
	}
	return nil
}

func (x *exchange) seal(spec sealSpec) (any, error) {
	if err := x.booted(spec.Node); err != nil {
		return nil, err
	}
	initramfs, err1 := ssh.ParsePrivateKey(spec.InitramfsHostKey)
	sys, err2 := ssh.ParsePrivateKey(spec.SystemHostKey)
	if err1 != nil || err2 != nil || len(spec.MachineKey) < 32 || len(spec.RecoveryKey) == 0 {
		return nil, &remoteError{"bad_spec", "seal spec: keys are missing or can't be read", ""}
	}
	d := x.m.snapshot()
	if !d.opens(spec.InstallKey) && !d.opens(spec.MachineKey) {
		return nil, &remoteError{"failed", "neither the install key nor the machine key opens a slot", ""}
	}
	for _, name := range []string{"machine-slot", "recovery-slot", "initramfs", "host-key", "destroy-install-slot"} {
		if !x.step(name) {
			return nil, errNoPower
		}
	}
	x.m.mu.Lock()
	defer x.m.mu.Unlock()
	on := x.m.installed()
	on.Slots = []slot{{"machine", spec.MachineKey}, {"recovery", spec.RecoveryKey}}
	on.InitramfsKey, on.SystemKey, on.Sealed = initramfs, sys, true
	x.m.ledger.do(func() { x.m.ledger.sealed++ })
	sum := sha256.Sum256(spec.InitramfsHostKey)
	return sealed{[]string{"machine pbkdf2", "recovery argon2id"}, "destroyed", hex.EncodeToString(sum[:]), keyLine(sys)}, nil
}

// items names every part of a spec and its digest.
func (n nodeSpec) items() map[string]string {
	out := map[string]string{}
	put := func(name string, data []byte) {
		sum := sha256.Sum256(data)
		out[name] = hex.EncodeToString(sum[:])
	}
	for _, p := range n.Packages {
		put("package "+p, nil)
	}
	for kind, list := range map[string][]json.RawMessage{
		"group": n.Groups, "user": n.Users, "directory": n.Dirs, "file": n.Files, "sysctl": n.Sysctl, "unit": n.Units,
	} {
		for _, raw := range list {
			put(kind+" "+nameOf(raw), raw)
		}
	}
	if n.Nftables != "" {
		put("nftables", []byte(n.Nftables))
	}
	if n.Release != nil {
		put("release", []byte(n.Release.Digest))
	}
	return out
}

func nameOf(raw json.RawMessage) string {
	var v struct{ Path, Name, Key string }
	if json.Unmarshal(raw, &v) != nil {
		return "?"
	}
	return v.Path + v.Name + v.Key
}

// converge answers plan and apply: what differs from what was applied last; apply remembers it.
func (x *exchange) converge(n nodeSpec, act bool) (any, error) {
	if err := x.booted(n.Name); err != nil {
		return nil, err
	}
	x.m.ledger.do(func() { x.m.ledger.plans++ })
	d := x.m.snapshot()
	want := n.items()
	changed := []string{}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if d.Items[name] != want[name] {
			changed = append(changed, name)
			x.emit(event{Kind: "diff", Step: name, Text: "differs"})
		}
	}
	out := applied{Changed: changed, Release: d.Release, BootID: x.bt.id}
	if !act || len(changed) == 0 {
		return out, nil
	}
	if err := x.apply(n, &d); err != nil {
		return nil, err
	}
	if n.Release != nil {
		out.Release = n.Release.Digest
	}
	x.m.mu.Lock()
	defer x.m.mu.Unlock()
	on := x.m.installed()
	on.Items, on.Release = want, out.Release
	x.m.ledger.do(func() { x.m.ledger.applies++ })
	return out, nil
}

func (x *exchange) apply(n nodeSpec, d *content) error {
	for _, name := range []string{"users", "packages", "files", "release", "units", "checks"} {
		if x.m.fault(faults.SpontaneousBoot, name) {
			x.m.b.spawn(func() { x.m.reboot(x.bt) })
			return errNoPower
		}
		if name == "release" && n.Release != nil {
			if err := x.fetchRelease(n, d); err != nil {
				return err
			}
		}
		if !x.step(name) {
			return errNoPower
		}
	}
	if len(n.Checks) > 0 && x.m.fault(faults.ServiceSick, "") {
		return &remoteError{"service_unhealthy", n.Checks[0].Service + ": made unhealthy by the lab", "fleet ssh, journalctl"}
	}
	return nil
}

func (x *exchange) fetchRelease(n nodeSpec, d *content) error {
	var need []blob
	for _, f := range n.Release.Files {
		known := slices.ContainsFunc(need, func(b blob) bool { return b.SHA256 == f.SHA256 })
		if !d.Blobs[f.SHA256] && !known {
			need = append(need, blob{SHA256: f.SHA256, SizeBytes: f.SizeBytes})
		}
	}
	if len(need) == 0 {
		return nil
	}
	if err := x.fetch(need); err != nil {
		return err
	}
	x.m.mu.Lock()
	defer x.m.mu.Unlock()
	on := x.m.installed()
	have := map[string]bool{}
	maps.Copy(have, on.Blobs) // snapshots share the old map
	for _, b := range need {
		have[b.SHA256] = true
	}
	on.Blobs = have
	return nil
}

// wipe destroys the key slots, in rescue or on the running node.
func (x *exchange) wipe(spec wipeSpec) (any, error) {
	x.m.mu.Lock()
	defer x.m.mu.Unlock()
	if d := x.m.installed(); d.Node != spec.Node {
		return nil, &remoteError{"wrong_node", fmt.Sprintf("the disks are of node %q, not %s", d.Node, spec.Node), ""}
	}
	disks, err := x.m.chosen(spec.Serials)
	if err != nil {
		return nil, err
	}
	out := wiped{Devices: []string{}}
	for _, d := range disks {
		d.holds.Slots = nil
		out.Devices = append(out.Devices, d.Serial)
		x.m.ledger.do(func() { x.m.ledger.slots = append(x.m.ledger.slots, d.Serial) })
	}
	return out, nil
}
