// Package image builds the base system that every node is installed from: a small Debian with a generic initramfs, as
// a tar.zst named by its content. It is built natively, as root, once; the cache is keyed by the recipe, so another run
// with the same recipe installs the very same bytes. It never touches anything but its cache folder: the build runs in
// a mount namespace of its own.
package image

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
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

	"popfleet/internal/debian"
	"popfleet/internal/strictjson"
	"popfleet/provision/initramfs"
)

//go:embed build.sh files
var recipe embed.FS

// Kernel flavours.
const (
	KernelCloud = "linux-image-cloud-amd64" // virtual machines: smaller, no drivers of real hardware
	KernelFull  = "linux-image-amd64"
)

// Options say what to build and where it is kept.
type Options struct {
	CacheDir string // default: the user's cache folder, popfleet
	Kernel   string // default KernelCloud
}

// Image is a built image.
type Image struct {
	Path      string            `json:"-"`
	SHA256    string            `json:"sha256"`
	SizeBytes int64             `json:"size_bytes"`
	Kernel    string            `json:"kernel"`
	Built     time.Time         `json:"built"`
	TookSec   float64           `json:"took_sec"`
	Packages  map[string]string `json:"packages"` // name → version
}

// Progress hears of the build: a step begins (took 0) or has ended.
type Progress func(step string, took time.Duration)

// Find returns the image if the cache has it, without building.
func Find(o Options) (Image, bool, error) {
	dir, err := o.folder()
	if err != nil {
		return Image{}, false, err
	}
	return load(dir)
}

// Ensure returns the image, and builds it first when the cache has none. One process builds, others wait.
func Ensure(ctx context.Context, o Options, progress Progress) (Image, error) {
	dir, err := o.folder()
	if err != nil {
		return Image{}, err
	}
	if i, ok, err := load(dir); ok || err != nil {
		return i, err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return Image{}, err
	}
	unlock, err := lock(ctx, filepath.Dir(dir)+"/.lock")
	if err != nil {
		return Image{}, err
	}
	defer unlock()
	if i, ok, err := load(dir); ok || err != nil {
		return i, err
	}
	if progress == nil {
		progress = func(string, time.Duration) {}
	}
	if err := build(ctx, o, dir, progress); err != nil {
		return Image{}, fmt.Errorf("build image: %w", err)
	}
	i, ok, err := load(dir)
	if err == nil && !ok {
		err = errors.New("built, yet not found")
	}
	return i, err
}

func (o Options) kernel() string {
	if o.Kernel == "" {
		return KernelCloud
	}
	return o.Kernel
}

func (o Options) folder() (string, error) {
	cache := o.CacheDir
	if cache == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return "", err
		}
		cache = filepath.Join(user, "popfleet")
	}
	return filepath.Join(cache, "image", o.digest()[:16]), nil
}

// digest names what is built: every recipe file and the options. Package versions are not in it; the manifest records
// them (docs/decisions/007).
func (o Options) digest() string {
	h := sha256.New()
	fmt.Fprintln(h, "image", debian.Suite, o.kernel())
	each(func(name string, data []byte) error {
		fmt.Fprintln(h, name, len(data))
		h.Write(data)
		return nil
	})
	return hex.EncodeToString(h.Sum(nil))
}

// each calls f with every recipe file in a fixed order; initramfs scripts are below initramfs/.
func each(f func(name string, data []byte) error) error {
	walk := func(from fs.FS, root, under string) error {
		return fs.WalkDir(from, root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			data, err := fs.ReadFile(from, path)
			if err != nil {
				return err
			}
			return f(filepath.Join(under, strings.TrimPrefix(path, "files")), data)
		})
	}
	return errors.Join(walk(recipe, ".", ""), walk(initramfs.Files, "files", "initramfs"))
}

func load(dir string) (Image, bool, error) {
	var i Image
	err := strictjson.File(filepath.Join(dir, "image.json"), &i)
	if errors.Is(err, fs.ErrNotExist) {
		return Image{}, false, nil
	}
	i.Path = filepath.Join(dir, "image.tar.zst")
	if err == nil {
		var info fs.FileInfo
		if info, err = os.Stat(i.Path); err == nil && info.Size() != i.SizeBytes {
			err = fmt.Errorf("%s has %d bytes; expected %d", i.Path, info.Size(), i.SizeBytes)
		}
	}
	if err != nil {
		return Image{}, false, fmt.Errorf("cached image is damaged: %w\n  hint: remove %s, the next run builds it anew", err, dir)
	}
	return i, true, nil
}

func build(ctx context.Context, o Options, final string, progress Progress) error {
	if err := canBuild(); err != nil {
		return err
	}
	work, err := os.MkdirTemp(filepath.Dir(final), ".build-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	began := time.Now()
	if err := runRecipe(ctx, o, work, filepath.Dir(final), progress); err != nil {
		return err
	}
	out := filepath.Join(work, "out")
	i := Image{Path: filepath.Join(out, "image.tar.zst"), Kernel: o.kernel(), Built: began.UTC(), TookSec: time.Since(began).Seconds()}
	if i.SHA256, i.SizeBytes, err = hashFile(i.Path); err != nil {
		return err
	}
	if i.Packages, err = readManifest(filepath.Join(out, "manifest")); err != nil {
		return err
	}
	data, err := json.MarshalIndent(i, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(out, "image.json"), append(data, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(out, final)
}

func canBuild() error {
	if os.Geteuid() != 0 {
		return errors.New("needs root, once, for debootstrap and chroot\n  hint: run this command once with sudo; the image is cached afterwards")
	}
	for _, tool := range []string{"debootstrap", "unshare", "chroot", "zstd", "tar"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("%s is missing\n  hint: apt-get install debootstrap zstd", tool)
		}
	}
	return nil
}

// runRecipe runs build.sh; its "step: " lines are progress, everything else goes to build.log beside the cache.
func runRecipe(ctx context.Context, o Options, work, logDir string, progress Progress) error {
	files := filepath.Join(work, "files")
	if err := each(func(name string, data []byte) error { return writeFile(filepath.Join(files, name), data) }); err != nil {
		return err
	}
	settings, err := debian.AptSettings(ctx)
	if err != nil {
		settings = nil // not Debian: apt's own defaults
	}
	if err := writeFile(filepath.Join(work, "apt.conf"), settings); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(logDir, "build.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	mirror, security := debian.Mirrors(ctx)
	if security != "" {
		security += " " + debian.Suite + "-security"
	}
	cmd := exec.CommandContext(ctx, "unshare", "--mount", "--fork", "--kill-child", "sh", filepath.Join(files, "build.sh"))
	cmd.Env = append(os.Environ(), "WORK="+work, "FILES="+files, "SUITE="+debian.Suite, "MIRROR="+mirror, "SECURITY="+security,
		"KERNEL="+o.kernel(), "APTCONF="+filepath.Join(work, "apt.conf"), "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	cmd.Stderr = log
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	follow(stdout, log, progress)
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%w (log: %s)", err, log.Name())
	}
	return nil
}

func follow(r io.Reader, log io.Writer, progress Progress) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	current, since := "", time.Now()
	end := func() {
		if current != "" {
			progress(current, time.Since(since))
		}
	}
	for lines.Scan() {
		fmt.Fprintln(log, lines.Text())
		if step, ok := strings.CutPrefix(lines.Text(), "step: "); ok {
			end()
			current, since = step, time.Now()
			progress(step, 0)
		}
	}
	end()
	_, _ = io.Copy(log, r) // a line too long for the scanner: the rest still belongs into the log
}

func hashFile(path string) (sum string, size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	h := sha256.New()
	size, err = io.Copy(h, f)
	return hex.EncodeToString(h.Sum(nil)), size, err
}

func readManifest(path string) (map[string]string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	packages := map[string]string{}
	for line := range bytes.Lines(data) {
		name, version, ok := strings.Cut(strings.TrimSpace(string(line)), "=")
		if !ok {
			return nil, fmt.Errorf("%s: %q is not package=version", path, line)
		}
		packages[name] = version
	}
	return packages, nil
}

func writeFile(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o644)
}

// lock waits for an exclusive lock that dies with the process.
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
			return nil, fmt.Errorf("wait for another build, which holds %s: %w", path, ctx.Err())
		case <-time.After(time.Second):
		}
	}
}
