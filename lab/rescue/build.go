package rescue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// builder holds one build; its folder is removed whatever happens.
type builder struct {
	o    Options
	work string // temporary, on the cache's file system
	root string // the tree that becomes the image
	out  string // becomes the final folder by rename
	base string // archive of the tree as Debian makes it: a change of our settings then costs seconds
	log  *os.File
	kver string
}

func build(ctx context.Context, o Options, final string) error {
	if err := canBuild(); err != nil {
		return err
	}
	work, err := os.MkdirTemp(filepath.Dir(final), ".build-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	logPath := filepath.Join(filepath.Dir(final), "build.log")
	log, err := os.Create(logPath)
	if err != nil {
		return err
	}
	defer log.Close()
	b := &builder{o: o, work: work, root: filepath.Join(work, "root"), out: filepath.Join(work, "out"), log: log,
		base: filepath.Join(filepath.Dir(final), "base-"+o.baseDigest()[:16]+".tar.zst")}
	started := time.Now()
	if err := b.run(ctx); err != nil {
		return fmt.Errorf("%w (log: %s)", err, logPath)
	}
	if err := b.manifest(time.Since(started)); err != nil {
		return err
	}
	return os.Rename(b.out, final)
}

func canBuild() error {
	if os.Geteuid() != 0 {
		return errors.New("needs root for debootstrap and chroot; run as root, once")
	}
	for _, tool := range []string{"debootstrap", "dpkg-deb", "mkfs.ext4", "chroot", "zstd"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("%s is missing: apt-get install debootstrap dpkg e2fsprogs coreutils zstd", tool)
		}
	}
	return nil
}

func (b *builder) run(ctx context.Context) error {
	if err := os.MkdirAll(b.out, 0o755); err != nil {
		return err
	}
	base := []step{{"unpack debian", b.unpackBase}}
	if _, err := os.Stat(b.base); err != nil {
		base = []step{{"debian packages", b.debootstrap}, {"security updates", b.upgrade}, {"kernel", b.kernel}, {"pack debian", b.packBase}}
	}
	return b.steps(ctx, append(base, step{"rescue settings", b.settings}, step{"initramfs", b.initramfs}, step{"root image", b.image}))
}

type step struct {
	name string
	do   func(context.Context) error
}

func (b *builder) steps(ctx context.Context, steps []step) error {
	for _, s := range steps {
		b.progress(s.name, 0)
		t := time.Now()
		if err := s.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		b.progress(s.name, time.Since(t))
	}
	return nil
}

func (b *builder) progress(step string, took time.Duration) {
	if b.o.Progress != nil {
		b.o.Progress(step, took)
	}
}

func (b *builder) debootstrap(ctx context.Context) error {
	mirror, _ := b.o.mirrors(ctx)
	return b.exec(ctx, "debootstrap", "--variant=minbase", "--include="+strings.Join(packages, ","), suite, b.root, mirror)
}

// upgrade brings the security updates in. The package lists stay until the kernel is fetched.
func (b *builder) upgrade(ctx context.Context) error {
	mirror, security := b.o.mirrors(ctx)
	list := fmt.Sprintf("deb %s %s main\ndeb %s %s-updates main\n", mirror, suite, mirror, suite)
	if security != "" {
		list += fmt.Sprintf("deb %s %s-security main\n", security, suite)
	}
	if err := os.WriteFile(filepath.Join(b.root, "etc/apt/sources.list"), []byte(list), 0o644); err != nil {
		return err
	}
	if err := b.chroot(ctx, "apt-get", "-q", "update"); err != nil {
		return err
	}
	return b.chroot(ctx, "apt-get", "-qy", "dist-upgrade")
}

// kernel unpacks the kernel package without installing it: its scripts would build an initramfs that is never used.
func (b *builder) kernel(ctx context.Context) error {
	out, err := b.output(ctx, "chroot", b.root, "apt-cache", "depends", b.o.kernel().packageName)
	if err != nil {
		return err
	}
	var image string
	for line := range strings.Lines(out) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: linux-image-"); ok {
			image, b.kver = "linux-image-"+name, name
		}
	}
	if image == "" {
		return fmt.Errorf("%s depends on no kernel", b.o.kernel().packageName)
	}
	if err := b.chroot(ctx, "sh", "-c", "cd /tmp && apt-get -q download "+image); err != nil {
		return err
	}
	debs, err := filepath.Glob(filepath.Join(b.root, "tmp/linux-image-*.deb"))
	if err != nil || len(debs) != 1 {
		return fmt.Errorf("%d kernel packages downloaded", len(debs))
	}
	aside := filepath.Join(b.work, "kernel") // unpacked over the tree, its lib/ would replace the link to usr/lib
	if err := b.exec(ctx, "dpkg-deb", "-x", debs[0], aside); err != nil {
		return err
	}
	if err := os.Remove(debs[0]); err != nil {
		return err
	}
	modules := filepath.Join("lib/modules", b.kver)
	if err := os.MkdirAll(filepath.Join(b.root, "lib/modules"), 0o755); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(aside, modules), filepath.Join(b.root, modules)); err != nil {
		return err
	}
	if err := copyFile(filepath.Join(aside, "boot/vmlinuz-"+b.kver), filepath.Join(b.root, "boot/vmlinuz-"+b.kver)); err != nil {
		return err
	}
	return b.chroot(ctx, "depmod", b.kver)
}

func (b *builder) packBase(ctx context.Context) error {
	aside := filepath.Join(b.work, "base.tar.zst")
	if err := b.exec(ctx, "tar", "--zstd", "--numeric-owner", "-C", b.root, "-cf", aside, "."); err != nil {
		return err
	}
	return os.Rename(aside, b.base)
}

func (b *builder) unpackBase(ctx context.Context) error {
	if err := os.Mkdir(b.root, 0o755); err != nil {
		return err
	}
	return b.exec(ctx, "tar", "--zstd", "--numeric-owner", "-C", b.root, "-xpf", b.base)
}

// takeKernel finds the tree's one kernel and moves it out: it is booted from outside.
func (b *builder) takeKernel() error {
	found, err := filepath.Glob(filepath.Join(b.root, "boot/vmlinuz-*"))
	if err != nil || len(found) != 1 {
		return fmt.Errorf("%d kernels in the tree: expected one", len(found))
	}
	b.kver = strings.TrimPrefix(filepath.Base(found[0]), "vmlinuz-")
	return os.Rename(found[0], filepath.Join(b.out, "vmlinuz"))
}

// settings lays our files over the tree and takes out what no rescue system reads.
func (b *builder) settings(context.Context) error {
	if err := b.takeKernel(); err != nil {
		return err
	}
	sub, err := fs.Sub(files, "files/root")
	if err != nil {
		return err
	}
	for _, gone := range []string{"etc/hostname", "etc/hosts", "etc/fstab", "etc/ssh/sshd_config", "etc/machine-id"} {
		os.Remove(filepath.Join(b.root, gone))
	}
	if err := overlay(sub, b.root); err != nil {
		return err
	}
	keys, _ := filepath.Glob(filepath.Join(b.root, "etc/ssh/ssh_host_*"))
	for _, k := range keys { // made anew in the guest at every boot
		os.Remove(k)
	}
	for _, dir := range []string{"var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info",
		"lib/systemd/system-generators"} { // nothing is generated: one target, no mounts, no sessions of seats
		if err := emptyDir(filepath.Join(b.root, dir)); err != nil {
			return err
		}
	}
	for _, dir := range b.o.kernel().unused {
		if err := emptyDir(filepath.Join(b.root, "lib/modules", b.kver, "kernel", dir)); err != nil {
			return err
		}
	}
	target := filepath.Join(b.root, "etc/systemd/system/default.target")
	os.Remove(target)
	return os.Symlink("lab-rescue.target", target)
}

// image writes the tree into a file system without journal and checksums: it is only ever read, by a slow processor.
func (b *builder) image(ctx context.Context) error {
	size, err := treeBytes(b.root)
	if err != nil {
		return err
	}
	mb := size/1e6*5/4 + 64
	return b.exec(ctx, "mkfs.ext4", "-q", "-F", "-L", "lab-rescue", "-m", "0", "-O", "^has_journal,^metadata_csum,^resize_inode",
		"-d", b.root, filepath.Join(b.out, "root.ext4"), fmt.Sprintf("%dM", mb))
}

func (b *builder) manifest(took time.Duration) error {
	info, err := os.Stat(filepath.Join(b.out, "root.ext4"))
	if err != nil {
		return err
	}
	r := Rescue{Digest: b.o.digest(), KernelRelease: b.kver, BuildSeconds: int(took.Seconds())}
	r.RootBytes = info.Sys().(*syscall.Stat_t).Blocks * 512
	return r.save(b.out)
}

func (b *builder) chroot(ctx context.Context, argv ...string) error {
	return b.exec(ctx, "chroot", append([]string{b.root}, argv...)...)
}

func (b *builder) exec(ctx context.Context, name string, args ...string) error {
	return b.command(ctx, b.log, name, args...)
}

func (b *builder) output(ctx context.Context, name string, args ...string) (string, error) {
	var out strings.Builder
	err := b.command(ctx, io.MultiWriter(&out, b.log), name, args...)
	return out.String(), err
}

func (b *builder) command(ctx context.Context, stdout io.Writer, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	cmd.Stdout, cmd.Stderr = stdout, b.log
	fmt.Fprintf(b.log, "+ %s\n", strings.Join(cmd.Args, " "))
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}
