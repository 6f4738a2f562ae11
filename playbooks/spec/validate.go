package spec

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"popfleet/internal/strictjson"
)

// Bounds of a node spec. They are far above what a fleet needs and far below what could hurt a small machine.
const (
	MaxSpecBytes      = 16 << 20
	MaxFileBytes      = 1 << 20
	maxItems          = 2000    // of each list
	maxReleaseBytes   = 8 << 30 // one file of a release
	maxCheckSec       = 3600
	maxProblemsListed = 20
)

// DecodeNode reads a node spec strictly: an unknown key, a second value or anything [Node.Validate] refuses is an
// *Error with CodeBadSpec that lists the problems.
func DecodeNode(raw []byte) (*Node, error) {
	if len(raw) > MaxSpecBytes {
		return nil, badSpec("%d bytes, at most %d are accepted", len(raw), MaxSpecBytes)
	}
	var n Node
	if err := strictjson.Decode(raw, &n); err != nil {
		return nil, badSpec("%v", err)
	}
	if err := n.Validate(); err != nil {
		return nil, err
	}
	return &n, nil
}

func badSpec(format string, args ...any) *Error {
	return &Error{Code: CodeBadSpec, Message: "node spec: " + fmt.Sprintf(format, args...)}
}

// Validate reports everything that apply would refuse to do, all at once. Both sides call it: the compiler so that a bad
// playbook fails on the operator's desk, the agent because it trusts no sender.
func (n *Node) Validate() error {
	v := &validation{paths: map[string]string{}}
	v.node(n)
	if len(v.problems) == 0 {
		return nil
	}
	more := ""
	if extra := len(v.problems) - maxProblemsListed; extra > 0 {
		v.problems, more = v.problems[:maxProblemsListed], fmt.Sprintf("; and %d more", extra)
	}
	return badSpec("%s%s", strings.Join(v.problems, "; "), more)
}

type validation struct {
	problems []string
	paths    map[string]string // path → what claims it
}

func (v *validation) addf(format string, args ...any) {
	v.problems = append(v.problems, fmt.Sprintf(format, args...))
}

func (v *validation) node(n *Node) {
	if n.Version != 1 {
		v.addf("version %d: only 1 is known", n.Version)
	}
	if !labelRE.MatchString(n.Name) {
		v.addf("name %q: expected a node name", n.Name)
	}
	lists := []struct {
		name string
		n    int
	}{{"packages", len(n.Packages)}, {"groups", len(n.Groups)}, {"users", len(n.Users)}, {"dirs", len(n.Dirs)},
		{"files", len(n.Files)}, {"sysctl", len(n.Sysctl)}, {"units", len(n.Units)}, {"checks", len(n.Checks)}}
	for _, l := range lists {
		if l.n > maxItems {
			v.addf("%s: %d items, at most %d are accepted", l.name, l.n, maxItems)
			return
		}
	}
	v.accounts(n)
	v.tree(n)
	v.kernel(n)
	v.release(n.Release)
	v.units(n)
}

var (
	labelRE   = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	accountRE = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,30}$`)
	packageRE = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]{1,127}$`)
	unitRE    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9@_.-]{0,127}\.(service|socket|timer|path|target)$`)
	sysctlRE  = regexp.MustCompile(`^[a-z0-9_]+(\.[A-Za-z0-9_-]+)+$`)
	sha256RE  = regexp.MustCompile(`^[0-9a-f]{64}$`)
	relPathRE = regexp.MustCompile(`^[A-Za-z0-9_+-][A-Za-z0-9_.+-]*(/[A-Za-z0-9_+-][A-Za-z0-9_.+-]*){0,7}$`)
)

func (v *validation) accounts(n *Node) {
	for _, p := range n.Packages {
		v.match("package", p, packageRE)
	}
	seen := map[string]bool{}
	for _, g := range n.Groups {
		v.match("group", g.Name, accountRE)
		v.once(seen, "group "+g.Name)
	}
	for _, u := range n.Users {
		v.match("user", u.Name, accountRE)
		v.once(seen, "user "+u.Name)
		v.match("user "+u.Name+": group", u.Group, accountRE)
		for _, g := range u.Groups {
			v.match("user "+u.Name+": group", g, accountRE)
		}
		if u.Home != "" {
			v.path("user "+u.Name+": home", u.Home)
		}
		if u.Name == "root" {
			v.addf("user root: not ours to change")
		}
	}
}

func (v *validation) match(what, s string, re *regexp.Regexp) {
	if !re.MatchString(s) {
		v.addf("%s %q: bad name", what, s)
	}
}

func (v *validation) once(seen map[string]bool, what string) {
	if seen[what] {
		v.addf("%s: named twice", what)
	}
	seen[what] = true
}

func (v *validation) tree(n *Node) {
	for _, d := range n.Dirs {
		v.claim("dir", d.Path)
		v.owned("dir "+d.Path, d.Owner, d.Group)
		if d.Mode&^0o7777 != 0 || d.Mode&0o6000 != 0 {
			v.addf("dir %s: mode %04o: set-id bits are refused", d.Path, d.Mode)
		}
	}
	total := 0
	for _, f := range n.Files {
		v.claim("file", f.Path)
		v.file(f)
		total += len(f.Content)
	}
	if total > MaxSpecBytes {
		v.addf("files: %d bytes together, at most %d", total, MaxSpecBytes)
	}
}

func (v *validation) file(f File) {
	v.owned("file "+f.Path, f.Owner, f.Group)
	if f.Mode == 0 || f.Mode&^0o777 != 0 {
		v.addf("file %s: mode %04o: expected one between 0001 and 0777", f.Path, f.Mode)
	}
	if f.Secret && f.Mode&^0o640 != 0 {
		v.addf("file %s: mode %04o: a secret is 0640 or narrower", f.Path, f.Mode)
	}
	if len(f.Content) > MaxFileBytes {
		v.addf("file %s: %d bytes, at most %d; larger files belong into the release", f.Path, len(f.Content), MaxFileBytes)
	}
	for _, u := range f.Restart {
		v.match("file "+f.Path+": restart", u, unitRE)
	}
	for _, u := range f.Reload {
		v.match("file "+f.Path+": reload", u, unitRE)
	}
}

func (v *validation) owned(what, owner, group string) {
	v.match(what+": owner", owner, accountRE)
	v.match(what+": group", group, accountRE)
}

// reserved are files that apply or install own; two writers would undo each other for ever.
var reserved = map[string]string{
	"/etc/fleet/node.json":        "the installer",
	"/etc/sysctl.d/90-fleet.conf": "sysctl",
	"/etc/sysusers.d/fleet.conf":  "groups and users",
	"/etc/nftables.conf":          "nftables",
	"/var/lib/fleet/apply.json":   "apply",
	"/boot/fleet-node.cpio.zst":   "the installer",
	"/etc/fleet/sealed":           "seal",
}

// forbidden are trees that are not files on a disk, and the release's own.
var forbidden = []string{"/proc", "/sys", "/dev", "/opt/fleet"}

func (v *validation) claim(kind, p string) {
	if !v.path(kind, p) {
		return
	}
	if owner, ok := reserved[p]; ok {
		v.addf("%s %s: belongs to %s", kind, p, owner)
	}
	if other, ok := v.paths[p]; ok {
		v.addf("%s %s: already named as a %s", kind, p, other)
	}
	v.paths[p] = kind
}

func (v *validation) path(what, p string) bool {
	switch {
	case len(p) > 255 || !strings.HasPrefix(p, "/") || path.Clean(p) != p || p == "/" || strings.ContainsAny(p, "\x00\n\\"):
		v.addf("%s %q: expected an absolute, clean path", what, p)
		return false
	case below(p, forbidden):
		v.addf("%s %s: not below %s", what, p, strings.Join(forbidden, ", "))
		return false
	}
	return true
}

func below(p string, trees []string) bool {
	for _, t := range trees {
		if p == t || strings.HasPrefix(p, t+"/") {
			return true
		}
	}
	return false
}

func (v *validation) kernel(n *Node) {
	seen := map[string]bool{}
	for _, s := range n.Sysctl {
		v.match("sysctl", s.Key, sysctlRE)
		v.once(seen, "sysctl "+s.Key)
		if s.Value == "" || len(s.Value) > 256 || strings.ContainsAny(s.Value, "\n\x00") || strings.TrimSpace(s.Value) != s.Value {
			v.addf("sysctl %s: value %q: expected one line without outer spaces", s.Key, s.Value)
		}
	}
	if len(n.Nftables) > MaxFileBytes {
		v.addf("nftables: %d bytes, at most %d", len(n.Nftables), MaxFileBytes)
	}
}

func (v *validation) release(r *Release) {
	if r == nil {
		return
	}
	if !sha256RE.MatchString(r.Digest) {
		v.addf("release %q: expected 64 hex digits", r.Digest)
	}
	if len(r.Files) == 0 || len(r.Files) > maxItems {
		v.addf("release: %d files, expected 1 to %d", len(r.Files), maxItems)
		return
	}
	seen, modes := map[string]bool{}, map[string]uint32{}
	for _, f := range r.Files {
		v.match("release file", f.Path, relPathRE)
		v.once(seen, "release file "+f.Path)
		if f.Mode != 0o644 && f.Mode != 0o755 {
			v.addf("release file %s: mode %04o: expected 0644 or 0755", f.Path, f.Mode)
		}
		if _, err := hex.DecodeString(f.SHA256); err != nil || len(f.SHA256) != 64 {
			v.addf("release file %s: sha256 %q: expected 64 hex digits", f.Path, f.SHA256)
		}
		if f.SizeBytes < 0 || f.SizeBytes > maxReleaseBytes {
			v.addf("release file %s: %d bytes, at most %d", f.Path, f.SizeBytes, int64(maxReleaseBytes))
		}
		if m, ok := modes[f.SHA256]; ok && m != f.Mode {
			v.addf("release file %s: same content as another file, but another mode; equal files share one blob", f.Path)
		}
		modes[f.SHA256] = f.Mode
	}
	if got := r.ManifestDigest(); got != r.Digest {
		v.addf("release %s: its files have the digest %s", r.Digest, got)
	}
}

func (v *validation) units(n *Node) {
	seen := map[string]bool{}
	for _, u := range n.Units {
		v.match("unit", u.Name, unitRE)
		v.once(seen, "unit "+u.Name)
		if u.Content != "" {
			v.claim("unit", "/etc/systemd/system/"+u.Name)
		}
		if len(u.Content) > MaxFileBytes {
			v.addf("unit %s: %d bytes, at most %d", u.Name, len(u.Content), MaxFileBytes)
		}
		if u.Release != "" && !n.Release.Has(u.Release) {
			v.addf("unit %s: runs %s, which the release does not have", u.Name, u.Release)
		}
	}
	for _, c := range n.Checks {
		v.match("check", c.Service, labelRE)
		v.path("check "+c.Service, c.Socket)
		if c.TimeoutSec < 1 || c.TimeoutSec > maxCheckSec {
			v.addf("check %s: %d s: expected 1 to %d", c.Service, c.TimeoutSec, maxCheckSec)
		}
	}
}

// Has says whether the release carries the file at path. A node spec without a release leaves the running one alone, so
// nothing can be said about it: a nil release has everything.
func (r *Release) Has(path string) bool {
	if r == nil {
		return true
	}
	_, ok := r.File(path)
	return ok
}

// File returns the release's file at path.
func (r *Release) File(path string) (ReleaseFile, bool) {
	if r == nil {
		return ReleaseFile{}, false
	}
	for _, f := range r.Files {
		if f.Path == path {
			return f, true
		}
	}
	return ReleaseFile{}, false
}

// ManifestDigest is the release's name by its content (docs/formats/release.md): whoever has the manifest can check the
// digest, and two bundles of the same files have the same name wherever they were made.
func (r *Release) ManifestDigest() string {
	files := slices.Clone(r.Files)
	slices.SortFunc(files, func(a, b ReleaseFile) int { return strings.Compare(a.Path, b.Path) })
	h := sha256.New()
	fmt.Fprint(h, "popfleet release 1\n")
	for _, f := range files {
		fmt.Fprintf(h, "%04o %s %d %s\n", f.Mode, f.SHA256, f.SizeBytes, f.Path)
	}
	return hex.EncodeToString(h.Sum(nil))
}
