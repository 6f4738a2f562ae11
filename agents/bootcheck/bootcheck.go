// Package bootcheck answers one question about the node it runs on: would it come back from a reboot, up to the point
// where it can be handed its key, and from there to a system that answers? It follows the boot in its order, from the
// boot sectors to the root's header, and looks at what the firmware, GRUB, the kernel and the initramfs will really
// read: bytes on disks, not configuration that should have led to them.
//
// It repairs nothing and reboots nothing; package rebootguard acts on what it finds. It fails only when it can't look
// at all: what is wrong with the node is a check that did not pass, with what to do about it.
package bootcheck

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"popfleet/agents/bootchain"
	"popfleet/agents/command"
	"popfleet/agents/disk"
	"popfleet/agents/facts"
	"popfleet/agents/initrd"
	"popfleet/agents/luks"
	"popfleet/playbooks/spec"
)

// Checker looks at one node. The functions stand in for what a test can't have; nil is the real thing.
type Checker struct {
	Host       facts.Host
	Run        command.Runner
	Network    func() (spec.Network, error)     // how the running system reaches the world
	RootDevice func() (string, error)           // the device with the LUKS2 header under /
	Free       func(path string) (int64, error) // free bytes of a file system
	Now        func() time.Time
}

// check is one question. look says what it found; the name is filled in.
type check struct {
	name string
	look func(context.Context, *node) spec.BootProof
}

// Names of the checks, in the order of a boot. They are part of the protocol.
const (
	BootPartition  = "boot-partition"
	Mirrors        = "mirrors"
	BIOSLoader     = "bios-loader"
	UEFILoader     = "uefi-loader"
	Grub           = "grub"
	Kernel         = "kernel"
	Initramfs      = "initramfs"
	Drivers        = "drivers"
	Network        = "network"
	UnlockServer   = "unlock-server"
	MirrorStart    = "mirror-start"
	HostKey        = "host-key"
	AuthorizedKeys = "authorized-keys"
	Peers          = "peers"
	Crypttab       = "crypttab"
	LUKSHeader     = "luks-header"
	KeySlot        = "key-slot"
	Modules        = "modules"
	Tables         = "tables"
	Space          = "space"
)

func checks() []check {
	return []check{
		{BootPartition, bootPartition}, {Mirrors, mirrors}, {BIOSLoader, biosLoader}, {UEFILoader, uefiLoader},
		{Grub, grub}, {Kernel, kernel}, {Initramfs, initramfs}, {Drivers, drivers}, {Network, network},
		{UnlockServer, unlockServer}, {MirrorStart, mirrorStart}, {HostKey, hostKey}, {AuthorizedKeys, authorizedKeys},
		{Peers, peers}, {Crypttab, crypttab},
		{LUKSHeader, luksHeader}, {KeySlot, keySlot}, {Modules, modules}, {Tables, tables}, {Space, space},
	}
}

// Check looks at everything.
func (c Checker) Check(ctx context.Context, req spec.BootCheckRequest) (spec.BootCheck, error) {
	n, err := c.node(ctx, req)
	if err != nil {
		return spec.BootCheck{}, fmt.Errorf("boot check: %w", err)
	}
	result := spec.BootCheck{Node: n.id.Node, BootID: n.bootID, UnixMilli: c.now().UnixMilli(), Running: n.running, Kernel: n.version()}
	for _, k := range checks() {
		if err := ctx.Err(); err != nil {
			return spec.BootCheck{}, err
		}
		p := k.look(ctx, n)
		p.Name = k.name
		result.Checks = append(result.Checks, p)
	}
	if m, err := c.Manifest(ctx); err == nil {
		result.Manifest = m.Digest
	}
	return result, nil
}

func (c Checker) now() time.Time {
	if c.Now != nil {
		return c.Now()
	}
	return time.Now()
}

// path is a path of the node's system.
func (c Checker) path(parts ...string) string {
	return filepath.Join(append([]string{"/", c.Host.Root}, parts...)...)
}

// node is what the checks look at, read once.
type node struct {
	Checker
	req     spec.BootCheckRequest
	id      facts.Identity
	bootID  string
	running string // kernel version

	disks    []spec.Disk // those this installation is on
	boot     device
	bootErr  error
	root     device
	rootErr  error
	kept     bootchain.Node // what the per-node part should say
	keptErr  error
	grub     bootchain.Grub
	grubErr  error
	tree     *initrd.Tree // what the kernel would unpack
	treeErr  error
	treeSize int64
}

func (c Checker) node(ctx context.Context, req spec.BootCheckRequest) (*node, error) {
	n := &node{Checker: c, req: req}
	var err error
	if n.id, err = c.Host.Identity(); err != nil {
		return nil, fmt.Errorf("this machine is no installed node: %w", err)
	}
	if req.Node != "" && req.Node != n.id.Node {
		return nil, &spec.Error{Code: spec.CodeWrongNode, Message: fmt.Sprintf("this machine is node %q, not %q", n.id.Node, req.Node)}
	}
	if n.bootID, err = c.Host.BootID(); err != nil {
		return nil, err
	}
	n.running = strings.TrimSpace(readString(c.path("/proc/sys/kernel/osrelease")))
	if n.disks, err = c.disks(n.id.Run); err != nil {
		return nil, err
	}
	n.boot, n.bootErr = c.bootDevice(ctx)
	n.root, n.rootErr = c.rootDevice()
	n.kept, n.keptErr = bootchain.ReadNode(c.path())
	if n.grub, n.grubErr = bootchain.ReadGrub(c.path()); n.grubErr == nil {
		n.tree, n.treeSize, n.treeErr = c.unpack(n.grub.First())
	}
	return n, nil
}

// Disks are the disks of the node on this machine.
func (c Checker) Disks() ([]spec.Disk, error) {
	id, err := c.Host.Identity()
	if err != nil {
		return nil, err
	}
	return c.disks(id.Run)
}

// disks are those that carry this installation, whether the running system uses them or not: firmware may start any.
func (c Checker) disks(run string) ([]spec.Disk, error) {
	all, err := disk.Host{Root: c.path()}.List()
	if err != nil {
		return nil, err
	}
	var ours []spec.Disk
	for _, d := range all {
		if d.Marker == run {
			ours = append(ours, d)
		}
	}
	return ours, nil
}

func (c Checker) luks() luks.Tool { return luks.Tool{Run: c.Run} }

func (n *node) version() string {
	if n.grubErr != nil {
		return ""
	}
	return n.grub.First().Version()
}

func (c Checker) free(path string) (int64, error) {
	if c.Free != nil {
		return c.Free(path)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * st.Bsize, nil
}

func readString(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return string(b)
}

func passed(format string, args ...any) spec.BootProof {
	return spec.BootProof{OK: true, Why: fmt.Sprintf(format, args...)}
}

func warned(do, format string, args ...any) spec.BootProof {
	return spec.BootProof{OK: true, Warn: true, Why: fmt.Sprintf(format, args...), Do: do}
}

func failed(do, format string, args ...any) spec.BootProof {
	return spec.BootProof{Why: fmt.Sprintf(format, args...), Do: do}
}
