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
	kernelPackage = "linux-image-cloud-amd64"
	baseVersion   = "1" // raised when a change of the code changes what it builds
	recipeVersion = "1"
)

// packages are what an installer needs at hand (partitions, RAID, LUKS, file systems) and what SSH needs.
var packages = []string{
	"busybox-static", "ca-certificates", "cryptsetup-bin", "dosfstools", "e2fsprogs", "efibootmgr", "gdisk", "iproute2",
	"iputils-ping", "kmod", "less", "mdadm", "openssh-server", "parted", "procps", "systemd", "systemd-sysv", "tcpdump",
	"udev", "util-linux", "zstd",
}

// initrdModules are what stands between the kernel and the read-only root, and the network; their dependencies follow.
var initrdModules = []string{"virtio_pci", "virtio_blk", "virtio_net", "virtio_scsi", "sd_mod", "overlay", "virtio_rng"}

//go:embed files
var files embed.FS

// baseDigest names the Debian under the rescue system: packages and kernel, before anything of ours.
func baseDigest() string {
	sum := sha256.Sum256(fmt.Append(nil, "base", baseVersion, suite, kernelPackage, packages))
	return hex.EncodeToString(sum[:])
}

// Digest names the rescue system that this code builds.
func Digest() string {
	h := sha256.New()
	fmt.Fprintln(h, "rescue", recipeVersion, baseDigest(), initrdModules)
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
