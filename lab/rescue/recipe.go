package rescue

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"

	"popfleet/internal/debian"
)

const (
	suite         = debian.Suite
	baseVersion   = "1" // raised when a change of the code changes what it builds
	recipeVersion = "1"
)

// packages are what an installer needs at hand (partitions, RAID, LUKS, file systems) and what SSH needs.
var packages = []string{
	"busybox-static", "ca-certificates", "cryptsetup-bin", "dosfstools", "e2fsprogs", "efibootmgr", "gdisk", "iproute2",
	"iputils-ping", "kmod", "less", "mdadm", "openssh-server", "parted", "procps", "systemd", "systemd-sysv", "tcpdump",
	"udev", "util-linux", "zstd",
}

// kernel is a rescue system's.
type kernel struct {
	packageName string
	// modules are what stands between the kernel and the read-only root, the network and the disks; their dependencies
	// follow. What the kernel has built in is skipped.
	modules []string
	unused  []string // folders of modules that no machine of the lab needs
}

// kernel is the cloud's, which is small and boots fast under emulation, or the one with the drivers of real machines.
func (o Options) kernel() kernel {
	cloud := kernel{packageName: "linux-image-cloud-amd64", modules: []string{"virtio_pci", "virtio_blk", "virtio_net", "virtio_scsi", "sd_mod", "overlay", "virtio_rng"}}
	if !o.Bare {
		return cloud
	}
	return kernel{
		packageName: "linux-image-amd64",
		modules:     append([]string{"crc32c_generic", "ext4", "ahci", "nvme", "e1000e"}, cloud.modules...),
		unused:      []string{"sound", "drivers/gpu", "drivers/media", "drivers/net/wireless", "drivers/staging", "drivers/infiniband", "drivers/iio"},
	}
}

//go:embed files
var files embed.FS

// baseDigest names the Debian under the rescue system: packages and kernel, before anything of ours.
func (o Options) baseDigest() string {
	sum := sha256.Sum256(fmt.Append(nil, "base", baseVersion, suite, o.kernel().packageName, packages))
	return hex.EncodeToString(sum[:])
}

// digest names the rescue system that this code builds from the options.
func (o Options) digest() string {
	h := sha256.New()
	fmt.Fprintln(h, "rescue", recipeVersion, o.baseDigest(), o.kernel().modules)
	err := fs.WalkDir(files, "files", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := files.ReadFile(path)
		fmt.Fprintln(h, path, len(data))
		h.Write(data)
		return err
	})
	if err != nil {
		panic("rescue: embedded files: " + err.Error())
	}
	return hex.EncodeToString(h.Sum(nil))
}

// mirrors fills in the mirrors that the options leave open with the ones this machine uses.
func (o Options) mirrors(ctx context.Context) (main, security string) {
	main, security = debian.Mirrors(ctx)
	if o.Mirror != "" {
		main = o.Mirror
	}
	if o.Security != "" {
		security = o.Security
	}
	return main, security
}
