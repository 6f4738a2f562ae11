package image

import (
	"bufio"
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"popfleet/internal/debian"
	"popfleet/provision/initramfs"
)

//go:embed build.sh files
var recipeFiles embed.FS

// maxBuild bounds a build; one takes about two and a half minutes on two busy cores.
const maxBuild = time.Hour

// build runs build.sh in a scratch folder and moves its result into the cache in one step.
func build(ctx context.Context, o Options, recipe, dir string, progress Progress) (Image, error) {
	if _, err := exec.LookPath("debootstrap"); err != nil {
		return Image{}, fmt.Errorf("image: %w: apt-get install debootstrap", err)
	}
	began := time.Now()
	parent := filepath.Dir(dir)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return Image{}, err
	}
	work, err := os.MkdirTemp(parent, "build-")
	if err != nil {
		return Image{}, err
	}
	defer os.RemoveAll(work)
	if err := layOut(ctx, o, work); err != nil {
		return Image{}, err
	}
	log := filepath.Join(parent, "build.log")
	if err := runScript(ctx, o, work, log, progress); err != nil {
		return Image{}, err
	}
	img, err := describe(filepath.Join(work, "out"), recipe, time.Since(began))
	if err != nil {
		return Image{}, err
	}
	if err := os.RemoveAll(dir); err != nil {
		return Image{}, err
	}
	if err := os.Rename(filepath.Join(work, "out"), dir); err != nil {
		return Image{}, err
	}
	img.Path = filepath.Join(dir, "image.tar.zst")
	return img, nil
}

// layOut writes the embedded files and the borrowed apt settings for the script.
func layOut(ctx context.Context, o Options, work string) error {
	if err := os.Chmod(work, 0o755); err != nil { // apt's sandbox user walks through it
		return err
	}
	own, err := fs.Sub(recipeFiles, "files")
	if err != nil {
		return err
	}
	if err := os.CopyFS(filepath.Join(work, "files"), own); err != nil {
		return err
	}
	if err := os.CopyFS(filepath.Join(work, "files", "initramfs"), initramfs.Files()); err != nil {
		return err
	}
	script, err := recipeFiles.ReadFile("build.sh")
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(work, "build.sh"), script, 0o755),
		os.WriteFile(filepath.Join(work, "apt.conf"), debian.AptSettings(ctx), 0o644))
}

func runScript(ctx context.Context, o Options, work, logPath string, progress Progress) error {
	ctx, cancel := context.WithTimeout(ctx, maxBuild)
	defer cancel()
	log, err := os.Create(logPath)
	if err != nil {
		return err
	}
	defer log.Close()
	security := ""
	if o.Security != "" {
		security = o.Security + " " + o.Suite + "-security"
	}
	// A mount namespace of its own: whatever happens to the script, its mounts go with it.
	cmd := exec.CommandContext(ctx, "unshare", "--mount", "--propagation", "private", "sh", filepath.Join(work, "build.sh"))
	cmd.Env = append(os.Environ(), "WORK="+work, "FILES="+filepath.Join(work, "files"), "SUITE="+o.Suite, "MIRROR="+o.Mirror,
		"SECURITY="+security, "KERNEL=linux-image-"+kernelName(o.Flavour), "APTCONF="+filepath.Join(work, "apt.conf"))
	cmd.WaitDelay = 10 * time.Second
	r, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, w
	told := make(chan []string, 1)
	go func() { told <- follow(r, log, progress) }()
	err = cmd.Run()
	w.Close()
	if tail := <-told; err != nil {
		return fmt.Errorf("image: build: %w: %s (the whole log: %s)", err, strings.Join(tail, " | "), logPath)
	}
	return nil
}

// follow copies the script's output to the log, tells its steps, and returns the last lines.
func follow(r io.Reader, log io.Writer, progress Progress) (tail []string) {
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		line := s.Text()
		fmt.Fprintln(log, line)
		if step, ok := strings.CutPrefix(line, "step: "); ok {
			progress(step)
		}
		if tail = append(tail, line); len(tail) > 5 {
			tail = tail[1:]
		}
	}
	_, _ = io.Copy(log, r) // a line beyond all measure: keep the script's pipe flowing
	return tail
}

func kernelName(flavour string) string {
	if flavour == "cloud" {
		return "cloud-amd64"
	}
	return flavour
}

// describe writes image.json beside the archive and removes what is not kept.
func describe(out, recipe string, took time.Duration) (Image, error) {
	sum, size, err := digest(filepath.Join(out, "image.tar.zst"))
	if err != nil {
		return Image{}, err
	}
	manifest, err := os.ReadFile(filepath.Join(out, "manifest"))
	if err != nil {
		return Image{}, err
	}
	img := Image{SHA256: sum, SizeBytes: size, Recipe: recipe, Built: time.Now().UTC(), Seconds: took.Seconds()}
	img.Manifest = strings.Fields(string(bytes.TrimSpace(manifest)))
	slices.Sort(img.Manifest)
	data, err := json.MarshalIndent(img, "", "  ")
	if err != nil {
		return Image{}, err
	}
	return img, os.WriteFile(filepath.Join(out, "image.json"), append(data, '\n'), 0o644)
}
