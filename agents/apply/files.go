package apply

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"strings"

	"popfleet/playbooks/spec"
)

func (j *job) dirs(context.Context) (work, error) {
	db, err := j.tree.accountDB()
	if err != nil {
		return work{}, err
	}
	var w work
	for _, d := range j.want.Dirs {
		m, err := j.tree.look(d.Path)
		if err != nil {
			return w, fmt.Errorf("dir %s: %w", d.Path, err)
		}
		if m.exists && !m.kind.IsDir() {
			return w, fmt.Errorf("dir %s: a %s is in the way; move it by hand", d.Path, kindWord(m.kind))
		}
		if diff := ownedDiff(db, m, d.Mode, d.Owner, d.Group); diff != "" {
			w.changes = append(w.changes, change{"dir " + d.Path, diff, func(context.Context) error { return j.makeDir(d) }})
		}
	}
	return w, nil
}

func (j *job) makeDir(d spec.Dir) error {
	uid, gid, err := j.ids(d.Owner, d.Group)
	if err != nil {
		return err
	}
	if err := j.tree.parents(d.Path); err != nil {
		return err
	}
	if err := j.tree.MkdirAll(rel(d.Path), 0o700); err != nil {
		return err
	}
	if err := j.tree.Lchown(rel(d.Path), uid, gid); err != nil {
		return err
	}
	if err := j.tree.Chmod(rel(d.Path), fs.FileMode(d.Mode&0o777)|stickyBit(d.Mode)); err != nil {
		return err
	}
	return j.tree.syncDir(d.Path)
}

func stickyBit(mode uint32) fs.FileMode {
	if mode&0o1000 != 0 {
		return fs.ModeSticky
	}
	return 0
}

// ids resolves owner and group after accounts were made.
func (j *job) ids(owner, grp string) (int, int, error) {
	db, err := j.tree.accountDB()
	if err != nil {
		return 0, 0, err
	}
	uid, gid, ok := db.ids(owner, grp)
	if !ok {
		return 0, 0, fmt.Errorf("owner %s:%s does not exist on this machine; name it in users and groups", owner, grp)
	}
	return uid, gid, nil
}

// ownedDiff says how an entry's existence, mode and owner differ, in words; "" when they do not.
func ownedDiff(db accountDB, m meta, mode uint32, owner, grp string) string {
	if !m.exists {
		return fmt.Sprintf("new, %04o %s:%s", mode, owner, grp)
	}
	var diffs []string
	if m.mode != mode {
		diffs = append(diffs, fmt.Sprintf("mode %04o → %04o", m.mode, mode))
	}
	if uid, gid, ok := db.ids(owner, grp); !ok || uid != m.uid || gid != m.gid {
		diffs = append(diffs, fmt.Sprintf("owner %d:%d → %s:%s", m.uid, m.gid, owner, grp))
	}
	return strings.Join(diffs, "; ")
}

func kindWord(kind fs.FileMode) string {
	switch {
	case kind.IsDir():
		return "directory"
	case kind&fs.ModeSymlink != 0:
		return "symlink"
	case kind.IsRegular():
		return "file"
	}
	return "special file"
}

func (j *job) files(context.Context) (work, error) {
	db, err := j.tree.accountDB()
	if err != nil {
		return work{}, err
	}
	var w work
	for _, f := range j.want.Files {
		c, differs, err := j.file(db, f)
		if err != nil {
			return w, fmt.Errorf("file %s: %w", f.Path, err)
		}
		if differs {
			w.changes = append(w.changes, c)
		}
	}
	return w, nil
}

// file compares one file with what is there. A symlink in its place is refused, not followed and not replaced: someone
// meant something by it.
func (j *job) file(db accountDB, f spec.File) (change, bool, error) {
	m, have, err := j.tree.readRegular(f.Path, len(f.Content))
	if err != nil {
		return change{}, false, err
	}
	owned := ownedDiff(db, m, f.Mode, f.Owner, f.Group)
	same := m.exists && bytes.Equal(have, f.Content)
	if owned == "" && same {
		return change{}, false, nil
	}
	detail := owned
	if !same {
		detail = strings.TrimPrefix(owned+"\n"+contentDiff(f, have), "\n")
	}
	return change{"file " + f.Path, detail, func(context.Context) error {
		uid, gid, err := j.ids(f.Owner, f.Group)
		if err != nil {
			return err
		}
		return j.tree.replace(f.Path, f.Content, f.Mode, uid, gid)
	}}, true, nil
}

// readRegular reads the file at p when it is a regular one of a size worth comparing: a file that is larger than any
// spec's differs by that alone.
func (t *tree) readRegular(p string, wantBytes int) (meta, []byte, error) {
	m, err := t.look(p)
	if err != nil || !m.exists {
		return m, nil, err
	}
	if !m.kind.IsRegular() {
		return m, nil, fmt.Errorf("a %s is in the way; move it by hand", kindWord(m.kind))
	}
	if m.size > spec.MaxFileBytes && m.size != int64(wantBytes) {
		return m, []byte(fmt.Sprintf("(a file of %d bytes)\n", m.size)), nil
	}
	have, err := t.ReadFile(rel(p))
	return m, have, err
}

func contentDiff(f spec.File, have []byte) string {
	if f.Secret {
		return fmt.Sprintf("content of a secret: sha256 %s → %s", short(have), short(f.Content))
	}
	return unified(f.Path, string(have), string(f.Content))
}

// short is enough of a digest to tell two contents apart.
func short(b []byte) string {
	if b == nil {
		return "none"
	}
	return fmt.Sprintf("%x", sha256.Sum256(b))[:12]
}
