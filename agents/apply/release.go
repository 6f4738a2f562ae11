package apply

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"popfleet/playbooks/spec"
)

const (
	fleetDir     = "/opt/fleet"
	blobDir      = fleetDir + "/blobs"
	releaseDir   = fleetDir + "/releases"
	currentLink  = fleetDir + "/current"
	previousLink = fleetDir + "/previous"
	keepReleases = 3
)

// verified is the modification time of a blob whose digest was checked. A write to it changes the time, so a look at the
// metadata is enough to know that nobody wrote to it since, and a no-op does not hash 100 MB.
var verified = time.Unix(1_000_000_000, 0)

// release brings the wanted bundle to the disk and points current at it. Only blobs that the node lacks travel.
func (j *job) release(context.Context) (work, error) {
	r := j.want.Release
	if r == nil {
		return work{}, nil
	}
	whole := j.tree.releaseWhole(r)
	current, _ := j.tree.Readlink(rel(currentLink)) // none yet: differs
	if whole && current == linkTarget(r) {
		return work{}, nil
	}
	missing, bytes := missingBlobs(j.tree, r)
	from := "none"
	if current != "" {
		from = shortDigest(path.Base(current))
	}
	detail := fmt.Sprintf("release %s → %s, %d files, %d to fetch (%d bytes)", from, shortDigest(r.Digest), len(r.Files), len(missing), bytes)
	if current == linkTarget(r) {
		detail = fmt.Sprintf("release %s is damaged on the disk, %d files to fetch (%d bytes)", shortDigest(r.Digest), len(missing), bytes)
	}
	act := func(ctx context.Context) error { return j.switchRelease(ctx, r, missing, whole) }
	return work{changes: []change{{"release " + shortDigest(r.Digest), detail, act}}}, nil
}

func linkTarget(r *spec.Release) string { return "releases/" + r.Digest }

func shortDigest(d string) string { return d[:min(12, len(d))] }

func (j *job) switchRelease(ctx context.Context, r *spec.Release, missing []spec.Blob, whole bool) error {
	if !whole {
		if err := j.fetch(ctx, missing); err != nil {
			return err
		}
		if err := j.tree.buildRelease(r); err != nil {
			return err
		}
	}
	if err := j.tree.pointTo(r); err != nil {
		return err
	}
	return j.tree.prune()
}

// releaseWhole says whether the release's tree is complete and untouched since its blobs were verified.
func (t *tree) releaseWhole(r *spec.Release) bool {
	for _, f := range r.Files {
		if !t.untouched(path.Join(releaseDir, r.Digest, f.Path), f) {
			return false
		}
	}
	return true
}

func (t *tree) untouched(p string, f spec.ReleaseFile) bool {
	info, err := t.Lstat(rel(p))
	return err == nil && info.Mode().IsRegular() && info.Size() == f.SizeBytes &&
		info.Mode().Perm() == fs.FileMode(f.Mode) && info.ModTime().Equal(verified)
}

func blobPath(sha string) string { return blobDir + "/" + sha }

// missingBlobs lists what must travel, each content once, in the order of the release.
func missingBlobs(t *tree, r *spec.Release) (missing []spec.Blob, total int64) {
	seen := map[string]bool{}
	for _, f := range r.Files {
		if seen[f.SHA256] || t.untouched(blobPath(f.SHA256), f) {
			continue
		}
		seen[f.SHA256] = true
		missing, total = append(missing, spec.Blob{SHA256: f.SHA256, SizeBytes: f.SizeBytes}), total+f.SizeBytes
	}
	return missing, total
}

func (j *job) fetch(ctx context.Context, missing []spec.Blob) error {
	if len(missing) == 0 {
		return nil
	}
	if err := j.tree.parents(blobPath("x")); err != nil {
		return err
	}
	var total, done int64
	for _, b := range missing {
		total += b.SizeBytes
	}
	modes := blobModes(j.want.Release)
	return j.session.Fetch(ctx, missing, func(b spec.Blob, in io.Reader) error {
		if err := j.tree.storeBlob(b, modes[b.SHA256], in); err != nil {
			return fmt.Errorf("blob %s: %w", shortDigest(b.SHA256), err)
		}
		done += b.SizeBytes
		j.session.Emit(spec.Event{Kind: spec.KindProgress, Step: "release", Done: done, Total: total})
		return nil
	})
}

func blobModes(r *spec.Release) map[string]uint32 {
	modes := map[string]uint32{}
	for _, f := range r.Files {
		modes[f.SHA256] = f.Mode
	}
	return modes
}

// storeBlob writes one blob under its digest. The session checks the digest too, but only after this returns; the name
// must never exist with other content, so it is checked here before the rename.
func (t *tree) storeBlob(b spec.Blob, mode uint32, in io.Reader) error {
	final := rel(blobPath(b.SHA256))
	tmp := final + tmpSuffix
	if err := t.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := t.receive(tmp, b, mode, in); err != nil {
		_ = t.Remove(tmp) // the error that matters is the first
		return err
	}
	if err := t.Chtimes(tmp, verified, verified); err != nil {
		return err
	}
	if err := t.Rename(tmp, final); err != nil {
		return err
	}
	return t.syncDir(blobDir)
}

func (t *tree) receive(tmp string, b spec.Blob, mode uint32, in io.Reader) error {
	f, err := t.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(f, h), in)
	if err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); n != b.SizeBytes || got != b.SHA256 {
		return &spec.Error{Code: spec.CodeDigest, Message: fmt.Sprintf("received %d bytes with sha256 %s, expected %d with %s", n, got, b.SizeBytes, b.SHA256),
			Hint: "the release changed while it was read; run again"}
	}
	if err := f.Chmod(fs.FileMode(mode)); err != nil {
		return err
	}
	return f.Sync()
}

// buildRelease makes the release's tree of hard links beside its place and moves it there: a directory with a digest
// for a name is whole, or it does not exist.
func (t *tree) buildRelease(r *spec.Release) error {
	tmp := path.Join(releaseDir, "."+r.Digest+tmpSuffix)
	if err := t.RemoveAll(rel(tmp)); err != nil {
		return err
	}
	for _, f := range r.Files {
		p := path.Join(tmp, f.Path)
		if err := t.parents(p); err != nil {
			return err
		}
		if err := t.Link(rel(blobPath(f.SHA256)), rel(p)); err != nil {
			return fmt.Errorf("release file %s: %w", f.Path, err)
		}
	}
	final := path.Join(releaseDir, r.Digest)
	// A damaged tree goes; what runs from it keeps its open files, and units start from `current` by name.
	if err := t.RemoveAll(rel(final)); err != nil {
		return err
	}
	if err := t.Rename(rel(tmp), rel(final)); err != nil {
		return err
	}
	return t.syncDir(releaseDir)
}

// pointTo switches current, and lets previous name what ran before. Killed between the two, both name the old release,
// and the next run does it again.
func (t *tree) pointTo(r *spec.Release) error {
	current, err := t.Readlink(rel(currentLink))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if current == linkTarget(r) {
		return nil
	}
	if current != "" {
		if err := t.link(current, previousLink); err != nil {
			return err
		}
	}
	return t.link(linkTarget(r), currentLink)
}

// prune removes all but the newest releases, and blobs that no release links. Current and previous always stay.
func (t *tree) prune() error {
	names, err := t.releasesNewestFirst()
	if err != nil {
		return err
	}
	keep := map[string]bool{}
	for _, l := range []string{currentLink, previousLink} {
		if target, err := t.Readlink(rel(l)); err == nil {
			keep[path.Base(target)] = true
		}
	}
	for _, name := range names {
		if keep[name] || len(keep) < keepReleases && !strings.HasPrefix(name, ".") {
			keep[name] = true
			continue
		}
		if err := t.RemoveAll(rel(path.Join(releaseDir, name))); err != nil {
			return fmt.Errorf("prune release %s: %w", shortDigest(name), err)
		}
	}
	return t.pruneBlobs()
}

func (t *tree) releasesNewestFirst() ([]string, error) {
	entries, err := fs.ReadDir(t.FS(), rel(releaseDir))
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(entries, func(a, b fs.DirEntry) int { return modTime(b).Compare(modTime(a)) })
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, nil
}

func modTime(e fs.DirEntry) time.Time {
	info, err := e.Info()
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

func (t *tree) pruneBlobs() error {
	entries, err := fs.ReadDir(t.FS(), rel(blobDir))
	if err != nil {
		return err
	}
	for _, e := range entries {
		p := rel(blobPath(e.Name()))
		if t.links(p) > 1 {
			continue
		}
		if err := t.Remove(p); err != nil {
			return fmt.Errorf("prune blob %s: %w", shortDigest(e.Name()), err)
		}
	}
	return nil
}
