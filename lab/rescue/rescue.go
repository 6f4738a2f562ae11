// Package rescue builds the rescue system that the lab's machines boot: a Debian 12 that looks like a provider's (root
// by SSH key, hostname rescue, /etc/hetzner-build) and answers SSH within seconds even on an emulated processor.
//
// It is built natively, as root, once, into a content-addressed folder of the cache: <cache>/rescue/<digest>/ with
// vmlinuz, initrd and root.ext4. [Ensure] returns at once when that folder exists. The digest covers the package list
// and every embedded file, so an edit here builds anew.
//
// A machine boots vmlinuz with initrd plus one [BootData] cpio appended, and root.ext4 as its only, read-only
// virtio disk. Host keys are made in the guest at every boot.
//
// It never touches the network configuration of the host and never runs anything of the guest outside a chroot.
// A build that fails leaves its log beside the cache and nothing under the final name.
package rescue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"popfleet/internal/strictjson"
)

// Options say where to build and from what. The zero value is usable by root on Debian.
type Options struct {
	CacheDir string                                // "" is [DefaultCacheDir]
	Mirror   string                                // Debian mirror; "" asks apt of this machine, then deb.debian.org
	Security string                                // mirror of the security suite; "" as Mirror
	Bare     bool                                  // with a kernel that has the drivers of real machines: AHCI, Intel's NICs
	Progress func(step string, took time.Duration) // told before a step with took 0 and after it; nil is silent
}

// Rescue is a built rescue system.
type Rescue struct {
	Digest        string `json:"digest"`
	KernelRelease string `json:"kernel_release"`
	RootBytes     int64  `json:"root_bytes"` // allocated on disk
	BuildSeconds  int    `json:"build_seconds"`

	Kernel string `json:"-"` // paths
	Initrd string `json:"-"`
	Root   string `json:"-"`
}

// DefaultCacheDir is ~/.cache/popfleet, or what XDG_CACHE_HOME makes of it.
func DefaultCacheDir() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("cache folder: %w", err)
	}
	return filepath.Join(dir, "popfleet"), nil
}

// Find returns the rescue system if it is already built.
func Find(o Options) (Rescue, bool, error) {
	dir, err := o.folder()
	if err != nil {
		return Rescue{}, false, err
	}
	return load(dir)
}

// Ensure returns the rescue system and builds it first when the cache has none. Several processes may call it at
// once: one builds, the others wait.
func Ensure(ctx context.Context, o Options) (Rescue, error) {
	dir, err := o.folder()
	if err != nil {
		return Rescue{}, err
	}
	if r, ok, err := load(dir); ok || err != nil {
		return r, err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return Rescue{}, err
	}
	unlock, err := lock(ctx, filepath.Dir(dir)+"/.lock")
	if err != nil {
		return Rescue{}, err
	}
	defer unlock()
	if r, ok, err := load(dir); ok || err != nil {
		return r, err
	}
	if err := build(ctx, o, dir); err != nil {
		return Rescue{}, fmt.Errorf("build rescue system: %w", err)
	}
	r, ok, err := load(dir)
	if err == nil && !ok {
		err = errors.New("built, yet not found")
	}
	return r, err
}

func (o Options) folder() (string, error) {
	cache := o.CacheDir
	if cache == "" {
		var err error
		if cache, err = DefaultCacheDir(); err != nil {
			return "", err
		}
	}
	return filepath.Join(cache, "rescue", o.digest()[:16]), nil
}

func load(dir string) (Rescue, bool, error) {
	var r Rescue
	err := strictjson.File(filepath.Join(dir, "manifest.json"), &r)
	if errors.Is(err, os.ErrNotExist) {
		return Rescue{}, false, nil
	}
	if err != nil {
		return Rescue{}, false, fmt.Errorf("cached rescue system (remove %s to build anew): %w", dir, err)
	}
	r.Kernel, r.Initrd, r.Root = filepath.Join(dir, "vmlinuz"), filepath.Join(dir, "initrd"), filepath.Join(dir, "root.ext4")
	return r, true, nil
}

func (r Rescue) save(dir string) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "manifest.json"), append(data, '\n'), 0o644)
}

// lock takes an exclusive lock that dies with the process.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("wait for another build: %w", ctx.Err())
		case <-time.After(500 * time.Millisecond):
		}
	}
}
