package rescue

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os/exec"
	"slices"
	"strings"
)

const (
	suite         = "bookworm"
	defaultMirror = "http://deb.debian.org/debian"
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
var initrdModules = []string{"virtio_pci", "virtio_blk", "virtio_net", "overlay", "virtio_rng"}

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

// mirrors fills in the mirrors that the options leave open, from apt's own idea of its sources.
func (o Options) mirrors(ctx context.Context) (main, security string) {
	main, security = o.Mirror, o.Security
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets", "--format", "$(RELEASE) $(COMPONENT) $(REPO_URI)", "Created-By: Packages").Output()
	if err == nil {
		m, s := aptMirrors(string(out))
		if main == "" {
			main = m
		}
		if security == "" {
			security = s
		}
	}
	if main == "" {
		main = defaultMirror
	}
	return main, security
}

// aptMirrors reads lines "release component uri" and returns the mirrors of the suite and of its security updates.
func aptMirrors(targets string) (main, security string) {
	for line := range strings.Lines(targets) {
		f := strings.Fields(line)
		if len(f) != 3 || f[1] != "main" || !slices.Contains([]string{"http", "https"}, scheme(f[2])) {
			continue
		}
		uri := strings.TrimSuffix(f[2], "/")
		switch {
		case f[0] == suite && main == "":
			main = uri
		case f[0] == suite+"-security" && security == "":
			security = uri
		}
	}
	return main, security
}

func scheme(uri string) string { s, _, _ := strings.Cut(uri, "://"); return s }
