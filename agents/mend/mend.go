// Package mend puts a disk into the mirrors of a running node that lack one: partitions as on the disk that is left, with
// GUIDs of its own, both boot loaders, then the members; the kernel writes them from then on. It takes a blank disk, one
// that a former attempt did not finish, or one of this node's that fell out; anything else only when it is named and may
// be erased. A disk that anything uses is never touched. It stops no array, and takes no member out that works.
//
// Cut anywhere and asked again it goes on: a disk is marked unfinished from the first byte until its loaders are on it,
// and carries the installation's own mark before any mirror has it.
package mend

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"popfleet/agents/bootchain"
	"popfleet/agents/command"
	"popfleet/agents/disk"
	"popfleet/agents/exchange"
	"popfleet/agents/facts"
	"popfleet/agents/mirror"
	"popfleet/playbooks/spec"
)

// Unfinished marks a disk that is partitioned for a mirror and not in it yet.
const Unfinished = "mending"

// lockFile keeps two operators apart; it ends with the boot.
const lockFile = "/run/fleet-mend.lock"

// Handler serves [spec.OpMendPlan] and [spec.OpMend]. The functions stand in for what a test can't have; nil is the real
// thing.
type Handler struct {
	Host    facts.Host
	Run     command.Runner
	Log     *slog.Logger
	Reread  func(dev string) error  // has the kernel read the disk's new table
	Loaders func(d spec.Disk) error // puts both boot loaders on a disk
	Exists  func(dev string) bool   // a partition's device node is there
	Poll    time.Duration           // default 100 ms
	Sector  func(name string) int64 // logical sector of a disk; nil reads /sys
}

// Plan says what would be done.
func (h Handler) Plan(ctx context.Context, specJSON json.RawMessage, _ exchange.Session) (any, error) {
	req, err := decode(specJSON)
	if err != nil {
		return nil, err
	}
	j, err := h.look(ctx, req)
	if err != nil {
		return nil, err
	}
	return j.plan, nil
}

// Mend does it.
func (h Handler) Mend(ctx context.Context, specJSON json.RawMessage, s exchange.Session) (any, error) {
	req, err := decode(specJSON)
	if err != nil {
		return nil, err
	}
	unlock, err := h.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	j, err := h.look(ctx, req)
	if err != nil {
		return nil, err
	}
	j.emit = s.Emit
	if j.plan.Do != spec.MendNothing {
		if err := j.act(ctx); err != nil {
			return nil, fmt.Errorf("mend with disk %s: %w", j.plan.Disk.Serial, err)
		}
		if j, err = h.look(ctx, spec.Mend{Version: 1, Node: req.Node}); err != nil {
			return nil, err
		}
	}
	return j.plan, nil
}

func decode(specJSON json.RawMessage) (req spec.Mend, err error) {
	if err := exchange.Decode(specJSON, &req); err != nil {
		return req, err
	}
	if req.Version != 1 || req.Node == "" || req.Erase && req.Disk == "" {
		return req, &spec.Error{Code: spec.CodeBadSpec, Message: "mend: version must be 1, node named, and the disk too when it may be erased"}
	}
	return req, nil
}

func (h Handler) path(p string) string { return filepath.Join("/", h.Host.Root, p) }

func (h Handler) lock() (unlock func(), err error) {
	f, err := os.OpenFile(h.path(lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, &spec.Error{Code: "busy", Message: "somebody mends this node already", Hint: "wait for it, then run the same again"}
	}
	return func() { f.Close() }, nil
}

// job is one look at the node and what follows from it.
type job struct {
	Handler
	req    spec.Mend
	run    string // marker of this installation
	arrays []mirror.Array
	disks  []spec.Disk
	plan   spec.MendPlan
	emit   func(spec.Event)
}

func (h Handler) look(ctx context.Context, req spec.Mend) (*job, error) {
	id, err := h.Host.Identity()
	if err != nil {
		return nil, fmt.Errorf("mend: this machine is no installed node: %w", err)
	}
	if id.Node != req.Node {
		return nil, &spec.Error{Code: spec.CodeWrongNode, Message: fmt.Sprintf("this machine is node %q, not %q", id.Node, req.Node)}
	}
	j := &job{Handler: h, req: req, run: id.Run, emit: func(spec.Event) {}}
	for _, a := range (mirror.Host{Root: h.Host.Root}).List() {
		if a.Name == disk.NameBoot || a.Name == disk.NameRoot {
			j.arrays = append(j.arrays, a)
		}
	}
	if j.disks, err = (disk.Host{Root: h.Host.Root}).List(); err != nil {
		return nil, err
	}
	if len(j.arrays) != 2 {
		return nil, &spec.Error{Code: spec.CodeNoMirror, Message: fmt.Sprintf("the node has %d of the mirrors fleet-boot and fleet-root", len(j.arrays)),
			Hint: "a node with one disk has nothing to mend: see docs/runbooks/disk-failing.md"}
	}
	return j, j.decide(ctx)
}

// decide fills the plan.
func (j *job) decide(ctx context.Context) error {
	lacks := false
	for _, a := range j.arrays {
		m := spec.MirrorState{Name: a.Name, Device: a.Device, Wanted: a.Wanted, InSync: len(a.InSync()), Percent: a.Percent,
			Rebuilds: present(a) > len(a.InSync())}
		j.plan.Mirrors = append(j.plan.Mirrors, m)
		if a.Wanted == 0 || m.InSync == 0 {
			return &spec.Error{Code: spec.CodeNoMirror, Message: fmt.Sprintf("%s has %d of %d members in sync", a.Device, m.InSync, a.Wanted)}
		}
		lacks = lacks || present(a) < a.Wanted
	}
	for _, d := range j.disks {
		if d.Marker == j.run {
			j.plan.Serials = append(j.plan.Serials, d.Serial)
		}
	}
	slices.Sort(j.plan.Serials)
	if !lacks {
		return nil
	}
	if err := j.halfFailed(); err != nil {
		return err
	}
	return j.choose(ctx)
}

// present are the members that are in sync or about to be.
func present(a mirror.Array) (n int) {
	for _, m := range a.Members {
		if !m.Faulty() {
			n++
		}
	}
	return n
}

// halfFailed refuses while a disk that failed in one mirror still serves another: it would have to be taken out of that
// one, and a copy of /boot on it, which a boot loader may take, be destroyed. A person decides that.
func (j *job) halfFailed() error {
	for _, a := range j.arrays {
		for _, m := range a.Members {
			other := j.arrays[0]
			if a.Device == other.Device {
				other = j.arrays[1]
			}
			i := slices.IndexFunc(other.Members, func(o mirror.Member) bool { return o.Disk != "" && o.Disk == m.Disk && !o.Faulty() })
			if m.Faulty() && i >= 0 {
				return &spec.Error{Code: spec.CodeWrongDisk, Message: fmt.Sprintf("disk %s failed in %s and still serves %s", j.serial(m.Disk), a.Device, other.Device),
					Hint: fmt.Sprintf("have it pulled, or take it out: mdadm /dev/%s --fail /dev/%s --remove /dev/%[2]s && mdadm --zero-superblock /dev/%[2]s", other.Device, other.Members[i].Device)}
			}
		}
	}
	return nil
}

func (j *job) serial(name string) string { return disk.Host{Root: j.Host.Root}.Serial(name) }

// act brings the disk into the mirrors, from wherever it is.
func (j *job) act(ctx context.Context) error {
	d := *j.plan.Disk
	if j.plan.Do != spec.MendBack {
		if err := j.prepare(ctx, d); err != nil {
			return err
		}
	}
	for _, a := range j.arrays {
		if present(a) >= a.Wanted {
			continue
		}
		if err := j.add(ctx, a, d); err != nil {
			return err
		}
	}
	return nil
}

// prepare makes the disk one of this node's. The mark comes last: a disk that carries it has everything but the data.
func (j *job) prepare(ctx context.Context, d spec.Disk) error {
	j.step("partition", "wiping disk "+d.Serial+" ("+d.Path+", "+d.Content+")")
	l, err := j.source()
	if err != nil {
		return err
	}
	if l, err = l.fresh(); err != nil {
		return err
	}
	guid := make([]byte, 16)
	if err := newGUID(guid); err != nil {
		return err
	}
	if err := j.exec(ctx, "wipefs", "--all", "--force", d.Path); err != nil {
		return err
	}
	if err := j.clearBootCode(d); err != nil {
		return err
	}
	if err := j.table(ctx, l, d, guid); err != nil {
		return err
	}
	for n := disk.PartBIOS; n <= disk.PartRoot; n++ {
		if err := j.exec(ctx, "wipefs", "--all", "--force", disk.Partition(d.Path, n)); err != nil {
			return err
		}
	}
	j.step("boot-loaders", "")
	if err := j.exec(ctx, "mkfs.vfat", "-F", "32", "-n", "FLEET-ESP", disk.Partition(d.Path, disk.PartESP)); err != nil {
		return err
	}
	if err := j.loaders(d); err != nil {
		return fmt.Errorf("boot loaders: %w", err)
	}
	l.rename(j.run)
	return j.table(ctx, l, d, guid)
}

// clearBootCode keeps a firmware from starting what a former owner left, should the node restart before ours is there.
func (j *job) clearBootCode(d spec.Disk) error {
	f, err := os.OpenFile(j.path(d.Path), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(make([]byte, j.sector(filepath.Base(d.Path))), 0)
	return errors.Join(err, f.Sync(), f.Close())
}

// table writes the partition table and waits until the kernel has its partitions.
func (j *job) table(ctx context.Context, l layout, d spec.Disk, guid []byte) error {
	f, err := os.OpenFile(j.path(d.Path), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if err := errors.Join(l.write(f, d.SizeBytes, guid), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := j.reread(d.Path); err != nil {
		return fmt.Errorf("have the kernel read the partition table of %s: %w", d.Path, err)
	}
	if err := j.exec(ctx, "udevadm", "settle", "--timeout=60"); err != nil {
		j.Log.Debug("udevadm settle", "error", err)
	}
	return j.appear(ctx, d)
}

// source is the table of the disk that is left.
func (j *job) source() (layout, error) {
	for _, a := range j.arrays {
		for _, m := range a.Members {
			if a.Name != disk.NameRoot || !m.InSync() || m.Disk == "" {
				continue
			}
			f, err := os.Open(j.path("/dev/" + m.Disk))
			if err != nil {
				return layout{}, err
			}
			defer f.Close()
			l, err := readLayout(f, j.sector(m.Disk))
			if err == nil && l.name(disk.PartBIOS) != j.run {
				err = fmt.Errorf("it carries %q, not %q", l.name(disk.PartBIOS), j.run)
			}
			if err != nil {
				return l, fmt.Errorf("partition table of %s: %w", m.Disk, err)
			}
			return l, nil
		}
	}
	return layout{}, errors.New("no member in sync to copy the layout of")
}

// add puts the disk's partition into the array. What failed or is gone is let go first: the kernel keeps its place.
func (j *job) add(ctx context.Context, a mirror.Array, d spec.Disk) error {
	part := disk.PartRoot
	if a.Name == disk.NameBoot {
		part = disk.PartBoot
	}
	dev := "/dev/" + a.Device
	j.step("mirror", a.Name+": adding "+disk.Partition(d.Path, part))
	for _, what := range []string{"failed", "detached"} {
		if err := j.exec(ctx, "mdadm", dev, "--remove", what); err != nil {
			j.Log.Debug("let members go", "array", dev, "which", what, "error", err)
		}
	}
	err := j.exec(ctx, "mdadm", dev, "--add", disk.Partition(d.Path, part))
	if err == nil || j.plan.Do != spec.MendBack || ctx.Err() != nil {
		return err
	}
	// mdadm does not make a spare of what says that it is a member still, and can't follow what it missed: without a
	// bitmap nobody knows that.
	if err := j.exec(ctx, "mdadm", "--zero-superblock", disk.Partition(d.Path, part)); err != nil {
		return err
	}
	return j.exec(ctx, "mdadm", dev, "--add", disk.Partition(d.Path, part))
}

func (j *job) step(name, text string) {
	j.emit(spec.Event{Kind: spec.KindStep, Step: name, Status: "doing", Text: text})
}

func (j *job) exec(ctx context.Context, argv ...string) error {
	_, err := j.Run.Run(ctx, command.Cmd{Argv: argv, Timeout: 2 * time.Minute})
	return err
}

func (j *job) sector(name string) int64 {
	if j.Sector != nil {
		return j.Sector(name)
	}
	b, err := os.ReadFile(j.path("/sys/block/" + name + "/queue/logical_block_size"))
	n, err2 := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil || err2 != nil || n != 4096 {
		return 512
	}
	return n
}

func (j *job) reread(dev string) error {
	if j.Reread != nil {
		return j.Reread(dev)
	}
	f, err := os.Open(j.path(dev))
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.IoctlSetInt(int(f.Fd()), unix.BLKRRPART, 0)
}

func (j *job) loaders(d spec.Disk) error {
	if j.Loaders != nil {
		return j.Loaders(d)
	}
	l, err := bootchain.ReadLoaders(j.path("/"))
	if err != nil {
		return err
	}
	return l.Install(d, j.path("/run/fleet-esp"))
}

// appear waits for the device nodes that udev makes.
func (j *job) appear(ctx context.Context, d spec.Disk) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	every := j.Poll
	if every <= 0 {
		every = 100 * time.Millisecond
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if j.allThere(d) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("partitions of %s did not appear: %w", d.Path, ctx.Err())
		case <-tick.C:
		}
	}
}

func (j *job) allThere(d spec.Disk) bool {
	for n := disk.PartBIOS; n <= disk.PartRoot; n++ {
		part := disk.Partition(d.Path, n)
		if j.Exists != nil {
			if !j.Exists(part) {
				return false
			}
		} else if _, err := os.Stat(j.path(part)); err != nil {
			return false
		}
	}
	return true
}
