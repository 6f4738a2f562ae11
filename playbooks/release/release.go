// Package release turns a directory of built files into a release: a manifest named by its content, and the files by
// their digests for whoever has to send them (docs/formats/release.md). It reads and hashes, it never writes, and it
// refuses what has no meaning on another machine: symlinks, devices, odd names, files beyond bounds.
package release

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"popfleet/playbooks/spec"
)

const (
	maxFiles = 2000
	maxBytes = 8 << 30 // of all files
)

// Sources finds a release's files by their digest. It is safe for concurrent use.
type Sources struct {
	dir   string
	paths map[string]string // sha256 hex → path below dir
	sizes map[string]int64
}

// ErrNoRelease is a directory without anything to release.
var ErrNoRelease = errors.New("no release: the directory has no files (make build makes them)")

// Scan reads every file below dir. Modes are reduced to 0755 and 0644, so that a umask does not make another release.
func Scan(dir string) (spec.Release, Sources, error) {
	s := &scan{src: Sources{dir: dir, paths: map[string]string{}, sizes: map[string]int64{}}}
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return spec.Release{}, Sources{}, fmt.Errorf("%s: %w", dir, ErrNoRelease)
	}
	if err != nil {
		return spec.Release{}, Sources{}, fmt.Errorf("release: %w", err)
	}
	defer root.Close()
	if err := fs.WalkDir(root.FS(), ".", s.visit(root)); err != nil {
		return spec.Release{}, Sources{}, fmt.Errorf("release %s: %w", dir, err)
	}
	if len(s.release.Files) == 0 {
		return spec.Release{}, Sources{}, fmt.Errorf("%s: %w", dir, ErrNoRelease)
	}
	s.release.Digest = s.release.ManifestDigest()
	// The node refuses what this refuses; better to hear it here.
	if err := (&spec.Node{Version: 1, Name: "any", Release: &s.release}).Validate(); err != nil {
		return spec.Release{}, Sources{}, fmt.Errorf("release %s: %w", dir, err)
	}
	return s.release, s.src, nil
}

type scan struct {
	release spec.Release
	src     Sources
	bytes   int64
}

func (s *scan) visit(root *os.Root) fs.WalkDirFunc {
	return func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if !d.Type().IsRegular() {
			return fmt.Errorf("%s: is a %s; a release has regular files only", name, kind(d.Type()))
		}
		if len(s.release.Files) == maxFiles {
			return fmt.Errorf("more than %d files", maxFiles)
		}
		return s.add(root, name)
	}
}

func kind(t fs.FileMode) string {
	switch {
	case t&fs.ModeSymlink != 0:
		return "symlink"
	case t&(fs.ModeDevice|fs.ModeCharDevice) != 0:
		return "device"
	}
	return "special file"
}

func (s *scan) add(root *os.Root, name string) error {
	f, err := root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	h := sha256.New()
	n, err := io.Copy(h, io.LimitReader(f, maxBytes-s.bytes+1))
	if err != nil {
		return err
	}
	if s.bytes += n; s.bytes > maxBytes {
		return fmt.Errorf("%s: more than %d bytes together", name, int64(maxBytes))
	}
	file := spec.ReleaseFile{Path: name, Mode: 0o644, SHA256: hex.EncodeToString(h.Sum(nil)), SizeBytes: n}
	if info.Mode()&0o111 != 0 {
		file.Mode = 0o755
	}
	s.release.Files = append(s.release.Files, file)
	s.src.paths[file.SHA256], s.src.sizes[file.SHA256] = name, n
	return nil
}

// Open returns the content with the digest and its size. The file is read as it is now: one that changed since the scan
// has another digest, which the receiver sees.
func (s Sources) Open(sha string) (io.ReadCloser, int64, error) {
	name, ok := s.paths[sha]
	if !ok {
		return nil, 0, fmt.Errorf("blob %.12s is not part of the release in %s", sha, s.dir)
	}
	f, err := os.OpenInRoot(s.dir, name)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && (!info.Mode().IsRegular() || info.Size() != s.sizes[sha]) {
		err = fmt.Errorf("%s/%s changed since the release was read; run again", s.dir, name)
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, s.sizes[sha], nil
}
