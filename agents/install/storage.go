package install

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"popfleet/agents/disk"
	"popfleet/agents/luks"
	"popfleet/playbooks/spec"
)

func (j *job) partitioned(context.Context) (bool, error) {
	for _, t := range j.targets {
		if t.wipe {
			return false, nil
		}
	}
	return true, nil
}

// partition wipes and partitions every disk that does not carry this run's marker. The marker is written last: a cut
// before it means that nothing of ours is on the disk yet.
func (j *job) partition(ctx context.Context) error {
	j.releaseDisks(ctx)
	for i := range j.targets {
		t := &j.targets[i]
		if !t.wipe {
			continue
		}
		j.emit(spec.Event{Kind: spec.KindLog, Step: "partition", Text: fmt.Sprintf("wiping disk %s (%s, %s)", t.Serial, t.Path, t.Content)})
		if err := j.partitionOne(ctx, t.Path, t.SizeBytes); err != nil {
			return fmt.Errorf("disk %s: %w", t.Serial, err)
		}
		t.wipe, t.Marker = false, j.spec.Run
		j.wiped = append(j.wiped, t.Serial)
	}
	return nil
}

// releaseDisks lets go of what the rescue system or a former worker has opened on any disk.
func (j *job) releaseDisks(ctx context.Context) {
	j.attempt(ctx, "swapoff", "-a")
	if _, err := os.Stat("/dev/mapper/" + mapping); err == nil {
		j.attempt(ctx, "cryptsetup", "close", mapping)
	}
	j.attempt(ctx, "vgchange", "-an")
	j.attempt(ctx, "mdadm", "--stop", "--scan")
}

func (j *job) partitionOne(ctx context.Context, path string, sizeBytes int64) error {
	for _, p := range partitionsOf(path) {
		j.attempt(ctx, "wipefs", "--all", "--force", p)
	}
	j.attempt(ctx, "wipefs", "--all", "--force", path) // a file system or array of the whole disk, which a table would hide
	j.attempt(ctx, "sgdisk", "--zap-all", path)        // it complains about whatever broken table it finds, and zaps it
	if err := j.exec(ctx, j.sgdisk(path, sizeBytes)...); err != nil {
		return err
	}
	for n := disk.PartBIOS; n <= disk.PartRoot; n++ {
		part := disk.Partition(path, n)
		if err := j.waitFor(ctx, part); err != nil {
			return err
		}
		if err := j.exec(ctx, "wipefs", "--all", "--force", part); err != nil {
			return err
		}
	}
	if err := j.exec(ctx, "sgdisk", "--change-name=1:"+j.spec.Run, path); err != nil {
		return err
	}
	j.attempt(ctx, "udevadm", "settle", "--timeout=60")
	for n := disk.PartBIOS; n <= disk.PartRoot; n++ {
		if err := j.waitFor(ctx, disk.Partition(path, n)); err != nil {
			return err
		}
	}
	return nil
}

// sgdisk lays out a disk. The root is given its size instead of "the rest", so that it ends on a whole MiB: LUKS2 with
// sectors of 4096 bytes refuses anything less round than that.
func (j *job) sgdisk(path string, sizeBytes int64) []string {
	const espMB, bootMB, firstMB, gapMB = 256, 1024, 2, 1
	boot, root := "8300", "8309"
	if len(j.targets) > 1 {
		boot, root = "fd00", "fd00"
	}
	rootMB := sizeBytes>>20 - firstMB - espMB - bootMB - gapMB
	return []string{"sgdisk", "--clear",
		"--new=1:1M:+1M", "--typecode=1:ef02", "--change-name=1:unfinished",
		fmt.Sprintf("--new=2:0:+%dM", espMB), "--typecode=2:ef00", "--change-name=2:" + disk.NameESP,
		fmt.Sprintf("--new=3:0:+%dM", bootMB), "--typecode=3:" + boot, "--change-name=3:" + disk.NameBoot,
		fmt.Sprintf("--new=4:0:+%dM", rootMB), "--typecode=4:" + root, "--change-name=4:" + disk.NameRoot, path}
}

func partitionsOf(path string) []string {
	name := filepath.Base(path)
	dirs, _ := filepath.Glob(filepath.Join("/sys/block", name, name+"*"))
	var parts []string
	for _, d := range dirs {
		parts = append(parts, "/dev/"+filepath.Base(d))
	}
	return parts
}

// arrays finds where /boot and the root are: on partitions, or on RAID1 of two.
func (j *job) arrays(ctx context.Context) error {
	if len(j.targets) == 1 {
		j.bootDev = disk.Partition(j.targets[0].Path, disk.PartBoot)
		j.rootDev = disk.Partition(j.targets[0].Path, disk.PartRoot)
		return nil
	}
	var err error
	if j.bootDev, err = j.array(ctx, disk.NameBoot, disk.PartBoot); err != nil {
		return err
	}
	j.rootDev, err = j.array(ctx, disk.NameRoot, disk.PartRoot)
	return err
}

// array makes the RAID1 called name of the n-th partitions, or starts it where a former worker made it.
func (j *job) array(ctx context.Context, name string, n int) (string, error) {
	var members []string
	made := 0
	for _, t := range j.targets {
		part := disk.Partition(t.Path, n)
		members = append(members, part)
		c, err := identify(part)
		if err != nil {
			return "", err
		}
		if c.Whole == "md member" {
			made++
		}
	}
	if dev := mdOf(members); dev != "" {
		return dev, nil
	}
	argv := []string{"mdadm", "--create", "/dev/md/" + name, "--run", "--force", "--level=1", "--metadata=1.2",
		"--homehost=any", "--name=" + name, "--raid-devices=2"}
	if j.spec.Emulated {
		argv = append(argv, "--assume-clean") // a resync of empty space would take the emulated machine's whole time
	}
	if n == disk.PartRoot {
		argv = append(argv, "--bitmap=internal")
	}
	if made == len(members) {
		argv = []string{"mdadm", "--assemble", "/dev/md/" + name, "--run"}
	}
	if err := j.exec(ctx, append(argv, members...)...); err != nil {
		return "", err
	}
	j.attempt(ctx, "udevadm", "settle", "--timeout=60")
	dev := mdOf(members)
	if dev == "" {
		return "", fmt.Errorf("array %s of %s did not start", name, strings.Join(members, " "))
	}
	return dev, j.waitFor(ctx, dev)
}

// mdOf is the running array that has all members.
func mdOf(members []string) string {
	arrays, _ := filepath.Glob("/sys/block/md*")
	for _, a := range arrays {
		all := true
		for _, m := range members {
			if _, err := os.Stat(filepath.Join(a, "slaves", filepath.Base(m))); err != nil {
				all = false
			}
		}
		if all {
			return "/dev/" + filepath.Base(a)
		}
	}
	return ""
}

func identify(path string) (disk.Content, error) {
	f, err := os.Open(path)
	if err != nil {
		return disk.Content{}, err
	}
	defer f.Close()
	return disk.Identify(f)
}

// encrypt formats the root device once, with the install key in its only slot, and opens it.
func (j *job) encrypt(ctx context.Context) error {
	if err := j.formatOnce(ctx); err != nil {
		return err
	}
	f, err := os.Open(j.rootDev)
	if err != nil {
		return err
	}
	defer f.Close()
	header, ok := disk.ReadLUKS(f)
	if !ok {
		return fmt.Errorf("%s carries no LUKS2 header after it was formatted", j.rootDev)
	}
	j.luksUUID = header.UUID
	if _, err := os.Stat("/dev/mapper/" + mapping); err == nil {
		return nil
	}
	if err := j.luks.Open(ctx, j.rootDev, mapping, j.spec.InstallKey); err != nil {
		return err
	}
	return j.waitFor(ctx, "/dev/mapper/"+mapping)
}

func (j *job) formatOnce(ctx context.Context) error {
	slots, err := j.luks.Slots(ctx, j.rootDev)
	if err == nil && len(slots) > 0 {
		opens, err := j.luks.Opens(ctx, j.rootDev, -1, j.spec.InstallKey)
		if err != nil || opens {
			return err
		}
		return wrongDisk("this node was sealed, or its installation began with another key; to install it anew use a new run",
			"%s is encrypted with a key that is not this run's", j.rootDev)
	}
	if err != nil && !errors.Is(err, luks.ErrNoHeader) {
		return err
	}
	return j.luks.Format(ctx, j.rootDev, j.spec.InstallKey, "fleet/"+j.spec.Node)
}

// unmountOurs undoes the mounts of a former worker.
func (j *job) unmountOurs() error {
	for _, p := range []string{"boot/efi", "boot", ""} {
		path := filepath.Join(j.root, p)
		for {
			err := unix.Unmount(path, 0)
			if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
				break // not mounted
			}
			if err != nil {
				return fmt.Errorf("unmount %s: %w", path, err)
			}
		}
	}
	return nil
}
