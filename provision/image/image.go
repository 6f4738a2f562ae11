// Package image builds the base system that every node is installed from: a tar.zst of a minimal Debian with a generic
// initramfs and ready-made boot loaders, made natively, as root, once, and kept in a cache named by the digest of its
// recipe. Nothing in it differs from node to node and no secret is in it.
//
// It downloads Debian packages from the mirror this machine's own apt uses, checked by debootstrap and apt with the
// archive's keys. A build that fails leaves its log in the cache and no image; two builds of the same recipe at once
// wait for each other.
package image

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"popfleet/internal/debian"
)

// Options say what to build and where to keep it; the zero value is complete.
type Options struct {
	Suite    string // Debian release; default bookworm
	Flavour  string // kernel: cloud (default) or amd64, which has the drivers of bare metal
	Mirror   string // default: see internal/debian
	Security string // mirror of the security suite; default like Mirror
	CacheDir string // default: popfleet in the user's cache folder
}

// Image is a built image.
type Image struct {
	Path      string    `json:"-"`
	SHA256    string    `json:"sha256"`
	SizeBytes int64     `json:"size_bytes"`
	Recipe    string    `json:"recipe"`   // digest of what it was built from
	Manifest  []string  `json:"manifest"` // package=version, sorted
	Built     time.Time `json:"built"`
	Seconds   float64   `json:"seconds"` // the build took
}

// Progress is told what the build does, step by step. It may be nil.
type Progress func(step string)

// ErrNotRoot is returned when an image has to be built and this process may not.
var ErrNotRoot = errors.New("building the image needs root (debootstrap, chroot)")

// ErrDamaged is returned for a cached image whose file is not the one described: rebuilt in silence, a failing disk or
// another's hand in the cache would go unnoticed.
var ErrDamaged = errors.New("the cached image is damaged")

// Ensure returns the image of o, from the cache when it is there and whole.
func Ensure(ctx context.Context, o Options, progress Progress) (Image, error) {
	if progress == nil {
		progress = func(string) {}
	}
	o, err := o.withDefaults()
	if err != nil {
		return Image{}, err
	}
	recipe, err := o.recipe()
	if err != nil {
		return Image{}, err
	}
	dir := filepath.Join(o.CacheDir, "image", recipe[:16])
	if img, err := load(dir); !errors.Is(err, fs.ErrNotExist) {
		return img, err
	}
	unlock, err := lock(ctx, o.CacheDir)
	if err != nil {
		return Image{}, err
	}
	defer unlock()
	if img, err := load(dir); !errors.Is(err, fs.ErrNotExist) { // somebody else built it meanwhile
		return img, err
	}
	if os.Geteuid() != 0 {
		return Image{}, ErrNotRoot
	}
	return build(ctx, o.withMirrors(ctx), recipe, dir, progress)
}

// Find returns the image of o if the cache has it; fs.ErrNotExist otherwise. It builds nothing.
func Find(o Options) (Image, error) {
	o, err := o.withDefaults()
	if err != nil {
		return Image{}, err
	}
	recipe, err := o.recipe()
	if err != nil {
		return Image{}, err
	}
	return load(filepath.Join(o.CacheDir, "image", recipe[:16]))
}

func (o Options) withDefaults() (Options, error) {
	o.Suite = cmp.Or(o.Suite, debian.Suite)
	o.Flavour = cmp.Or(o.Flavour, "cloud")
	if o.Flavour != "cloud" && o.Flavour != "amd64" {
		return o, fmt.Errorf("image: kernel flavour %q: expected cloud or amd64", o.Flavour)
	}
	if o.CacheDir == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			return o, fmt.Errorf("image: cache folder: %w", err)
		}
		o.CacheDir = filepath.Join(dir, "popfleet")
	}
	return o, nil
}

// withMirrors asks apt only when an image is built: the question takes it about a second.
func (o Options) withMirrors(ctx context.Context) Options {
	if o.Mirror == "" || o.Security == "" {
		mirror, security := debian.Mirrors(ctx)
		o.Mirror, o.Security = cmp.Or(o.Mirror, mirror), cmp.Or(o.Security, security)
	}
	return o
}

// load reads an image's description and checks that the file is the one described: by size always, by digest because a
// damaged image would otherwise be found out on the node only.
func load(dir string) (Image, error) {
	data, err := os.ReadFile(filepath.Join(dir, "image.json"))
	if err != nil {
		return Image{}, err
	}
	var img Image
	if err := json.Unmarshal(data, &img); err != nil {
		return Image{}, fmt.Errorf("image %s: %w", dir, err)
	}
	img.Path = filepath.Join(dir, "image.tar.zst")
	sum, size, err := digest(img.Path)
	if err != nil {
		return Image{}, err
	}
	if sum != img.SHA256 || size != img.SizeBytes {
		return Image{}, fmt.Errorf("%w: %s has digest %.12s… and %d bytes, its image.json says %.12s… and %d\n  hint: remove %s, it is built again",
			ErrDamaged, img.Path, sum, size, img.SHA256, img.SizeBytes, dir)
	}
	return img, nil
}

func digest(path string) (sum string, size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	h := sha256.New()
	if size, err = io.Copy(h, f); err != nil {
		return "", 0, err
	}
	return hex.EncodeToString(h.Sum(nil)), size, nil
}

// lock keeps two processes from building at once.
func lock(ctx context.Context, cacheDir string) (unlock func(), err error) {
	if err := os.MkdirAll(cacheDir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(cacheDir, "image.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			f.Close()
			return nil, fmt.Errorf("image: lock the cache: %w", err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("image: another process is building one: %w", ctx.Err())
		case <-tick.C:
		}
	}
}
