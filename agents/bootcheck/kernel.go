package bootcheck

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"popfleet/agents/bootchain"
	"popfleet/agents/initrd"
	"popfleet/playbooks/spec"
)

const (
	doGrub      = "run /usr/lib/fleet/grub-cfg on the node"
	doInitramfs = "run `update-initramfs -u -k all` and then `fleet-agent keep-boot` on the node"
	doKernel    = "install the kernel's package anew: `apt-get install --reinstall linux-image-…`"
)

// grub looks at every entry, since GRUB goes on with the fallback when the first does not load.
func grub(_ context.Context, n *node) spec.BootProof {
	if n.grubErr != nil {
		return failed(doGrub, "%v", n.grubErr)
	}
	var errs []error
	for _, e := range n.grub.Entries {
		errs = append(errs, e.LoadsNodePart())
		for _, f := range append([]string{e.Kernel}, e.Initrds...) {
			if _, err := os.Stat(n.path("/boot", f)); err != nil {
				errs = append(errs, fmt.Errorf("entry %q names %s, which is not there", e.Title, path.Join("/boot", f)))
			}
		}
		if !slices.Contains(e.Args, "root=/dev/mapper/fleet-root") {
			errs = append(errs, fmt.Errorf("entry %q has another root than the encrypted one", e.Title))
		}
		if !slices.ContainsFunc(e.Args, func(a string) bool { return strings.HasPrefix(a, "panic=") }) {
			errs = append(errs, fmt.Errorf("entry %q has no panic=: a failed unlock would leave a shell for ever", e.Title))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return failed(doGrub, "%s: %s", bootchain.GrubFile, oneLine(err))
	}
	return passed("%d entries, %q boots first", len(n.grub.Entries), n.grub.First().Title)
}

func kernel(_ context.Context, n *node) spec.BootProof {
	if n.grubErr != nil {
		return failed(doGrub, "which kernel boots is not known")
	}
	e := n.grub.First()
	version, err := kernelVersion(n.path("/boot", e.Kernel))
	if err == nil && version != e.Version() {
		err = fmt.Errorf("it says of itself that it is %s", version)
	}
	if err != nil {
		return failed(doKernel, "%s: %v", path.Join("/boot", e.Kernel), err)
	}
	if version != n.running {
		return passed("%s boots next, %s is running", version, n.running)
	}
	return passed("%s, the one that is running", version)
}

// kernelVersion reads the header of a bzImage (kernel: Documentation/arch/x86/boot.rst) and proves that the file has
// all the bytes that the header says.
func kernelVersion(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	head := make([]byte, 64<<10)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return "", err
	}
	head = head[:n]
	if n < 0x260 || string(head[0x202:0x206]) != "HdrS" || head[0x1fe] != 0x55 || head[0x1ff] != 0xaa {
		return "", errors.New("no kernel image")
	}
	setupSectors := int64(head[0x1f1])
	if setupSectors == 0 {
		setupSectors = 4
	}
	want := (setupSectors+1)*512 + int64(binary.LittleEndian.Uint32(head[0x1f4:]))*16
	st, err := f.Stat()
	if err != nil {
		return "", err
	}
	if st.Size() < want {
		return "", fmt.Errorf("cut: %d of %d bytes", st.Size(), want)
	}
	at := int(binary.LittleEndian.Uint16(head[0x20e:])) + 0x200
	if at >= n {
		return "", errors.New("no version in its header")
	}
	text, _, _ := strings.Cut(string(head[at:min(at+256, n)]), "\x00")
	version, _, _ := strings.Cut(text, " ")
	return version, nil
}

// keep are the files of the initramfs that the checks read.
func keep(p string) bool {
	switch {
	case strings.HasPrefix(p, "etc/fleet/"), p == unlockScript, p == bootchain.DropbearKeyFile, p == bootchain.CrypttabFile, path.Base(p) == "ORDER":
		return true
	}
	return (slices.Contains(programs, path.Base(p)) || slices.Contains(mirrorPrograms, path.Base(p))) && path.Base(path.Dir(p)) != "bash-completion"
}

// unpack reads the entry's initramfs files as the kernel will, over each other.
func (c Checker) unpack(e bootchain.GrubEntry) (*initrd.Tree, int64, error) {
	tree := &initrd.Tree{Keep: keep}
	var size int64
	for _, name := range e.Initrds {
		f, err := os.Open(c.path("/boot", name))
		if err != nil {
			return nil, size, err
		}
		if st, err := f.Stat(); err == nil {
			size += st.Size()
		}
		err = tree.Add(f)
		f.Close()
		if err != nil {
			return nil, size, fmt.Errorf("%s: %w", path.Join("/boot", name), err)
		}
	}
	return tree, size, nil
}

func initramfs(_ context.Context, n *node) spec.BootProof {
	if p, ok := n.withTree(); !ok {
		return p
	}
	if _, ok := n.tree.Regular("init"); !ok {
		return failed(doInitramfs, "nothing to start in it: no /init")
	}
	paths := n.tree.Paths()
	return passed("%d files unpack from %.1f MB", len(paths), float64(n.treeSize)/1e6)
}

// withTree is the answer of every check that needs the initramfs when there is none.
func (n *node) withTree() (spec.BootProof, bool) {
	if n.grubErr != nil {
		return failed(doGrub, "which initramfs boots is not known"), false
	}
	if n.treeErr != nil {
		return failed(doInitramfs, "it does not unpack: %v", n.treeErr), false
	}
	return spec.BootProof{}, true
}

// modules looks at the part of the drivers that is loaded from the root once it is open.
func modules(_ context.Context, n *node) spec.BootProof {
	if n.version() == "" {
		return failed(doGrub, "which kernel boots is not known")
	}
	dir := filepath.Join("/lib/modules", n.version())
	if st, err := os.Stat(n.path(dir, "modules.dep")); err != nil || st.Size() == 0 {
		return failed(doKernel, "%s has no modules: the system would come up without most drivers", dir)
	}
	return passed("%s is there", dir)
}

// space is for what the next update writes: a further kernel with its initramfs, and the initramfs' own second copy
// that lives as long as it is written.
func space(_ context.Context, n *node) spec.BootProof {
	need := int64(64 << 20)
	if n.grubErr == nil {
		e := n.grub.First()
		if k, err := os.Stat(n.path("/boot", e.Kernel)); err == nil && n.treeSize > 0 {
			need = (k.Size() + n.treeSize) * 11 / 10
		}
	}
	free, err := n.free(n.path("/boot"))
	if err != nil {
		return failed("", "/boot: %v", err)
	}
	if free < need {
		return failed("remove kernels that are not needed: `apt-get autoremove --purge`, or what else fills /boot",
			"/boot has %.1f MB free; one more kernel with its initramfs takes %.1f MB", float64(free)/1e6, float64(need)/1e6)
	}
	return passed("/boot has %.0f MB free, one more kernel with its initramfs takes %.0f MB", float64(free)/1e6, float64(need)/1e6)
}
