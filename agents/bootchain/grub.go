package bootchain

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
)

// GrubFile is what GRUB reads from /boot, relative to the root.
const GrubFile = "/boot/grub/grub.cfg"

const (
	maxGrubBytes = 256 << 10
	maxGrubLine  = 16 << 10
)

// Grub is a grub.cfg as far as it decides what boots. It understands what the image's grub-cfg writes: settings of
// default and fallback by number, and entries of one kernel line and one initrd line. A file that says more (submenus,
// an entry that loads another configuration) is an error: nobody could say what such a file boots.
type Grub struct {
	Default  int
	Fallback int // -1: none
	Entries  []GrubEntry
}

// GrubEntry is one bootable entry. Paths are below /boot, as GRUB sees them.
type GrubEntry struct {
	Title   string
	Kernel  string   // "/vmlinuz-6.1.0-50-amd64"
	Args    []string // of the kernel
	Initrds []string // in the order they are laid over each other
}

// Version is the kernel's version by its file's name.
func (e GrubEntry) Version() string {
	return strings.TrimPrefix(path.Base(e.Kernel), "vmlinuz-")
}

// First is the entry that boots when nobody touches a key.
func (g Grub) First() GrubEntry { return g.Entries[g.Default] }

// ParseGrub reads a grub.cfg. The first entry exists when it returns no error.
func ParseGrub(cfg []byte) (Grub, error) {
	g := Grub{Fallback: -1}
	if len(cfg) > maxGrubBytes {
		return g, fmt.Errorf("%d bytes are more than a grub.cfg needs", len(cfg))
	}
	p := grubParser{grub: &g}
	lines := bufio.NewScanner(bytes.NewReader(cfg))
	lines.Buffer(nil, maxGrubLine)
	for lines.Scan() {
		if err := p.line(strings.TrimSpace(lines.Text())); err != nil {
			return g, err
		}
	}
	if err := lines.Err(); err != nil {
		return g, err
	}
	return g, p.end()
}

type grubParser struct {
	grub  *Grub
	entry *GrubEntry
}

func (p *grubParser) line(line string) error {
	words := strings.Fields(line)
	if len(words) == 0 || strings.HasPrefix(line, "#") {
		return nil
	}
	if p.entry != nil {
		return p.inEntry(words)
	}
	switch words[0] {
	case "menuentry":
		return p.begin(line)
	case "submenu", "configfile":
		return fmt.Errorf("%s is not understood", words[0])
	case "set":
		return p.set(words[1:])
	}
	return nil
}

func (p *grubParser) begin(line string) error {
	_, rest, _ := strings.Cut(line, `"`)
	title, rest, ok := strings.Cut(rest, `"`)
	if !ok || !strings.HasSuffix(rest, "{") {
		return fmt.Errorf("entry %q is not understood", line)
	}
	p.entry = &GrubEntry{Title: title}
	return nil
}

func (p *grubParser) inEntry(words []string) error {
	e := p.entry
	switch words[0] {
	case "linux":
		if e.Kernel != "" || len(words) < 2 {
			return fmt.Errorf("entry %q has no single kernel line", e.Title)
		}
		e.Kernel, e.Args = words[1], words[2:]
	case "initrd":
		if e.Initrds != nil {
			return fmt.Errorf("entry %q has two initrd lines; GRUB would take the last alone", e.Title)
		}
		e.Initrds = words[1:]
	case "}":
		if e.Kernel == "" || len(e.Initrds) == 0 {
			return fmt.Errorf("entry %q lacks a kernel or an initramfs", e.Title)
		}
		p.grub.Entries = append(p.grub.Entries, *e)
		p.entry = nil
	default:
		return fmt.Errorf("entry %q: %q is not understood", e.Title, words[0])
	}
	return nil
}

func (p *grubParser) set(words []string) error {
	key, value, _ := strings.Cut(strings.Join(words, " "), "=")
	into := map[string]*int{"default": &p.grub.Default, "fallback": &p.grub.Fallback}[key]
	if into == nil {
		return nil
	}
	n, err := strconv.Atoi(strings.Trim(value, `"`))
	if err != nil || n < 0 {
		return fmt.Errorf("%s %q is no number of an entry", key, value)
	}
	*into = n
	return nil
}

func (p *grubParser) end() error {
	g := p.grub
	switch {
	case p.entry != nil:
		return fmt.Errorf("entry %q does not end: the file is cut", p.entry.Title)
	case len(g.Entries) == 0:
		return errors.New("no bootable entry")
	case g.Default >= len(g.Entries):
		return fmt.Errorf("entry %d is to boot, there are %d", g.Default, len(g.Entries))
	}
	return nil
}
