package playbooks

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
)

// Playbook is one file, as written.
type Playbook struct {
	Name        string            `yaml:"playbook"`
	Description string            `yaml:"description"`
	When        string            `yaml:"when"`
	Service     *Service          `yaml:"service"`
	Packages    []string          `yaml:"packages"`
	Groups      []string          `yaml:"groups"`
	Users       []User            `yaml:"users"`
	Dirs        []Dir             `yaml:"dirs"`
	Files       []File            `yaml:"files"`
	Sysctl      map[string]string `yaml:"sysctl"`
	Ports       []Port            `yaml:"ports"`
	Nftables    string            `yaml:"nftables"` // the whole ruleset; one playbook has it
	Units       []Unit            `yaml:"units"`

	source
}

// Service is shorthand for what every service of ours has: group and user fleet-<name>, membership in group fleet, the
// check of its control socket, and with TLS the files /etc/fleet/tls/<name>.crt and .key.
type Service struct {
	Name  string `yaml:"name"`
	Check string `yaml:"check"` // duration, at real pace; empty: not checked
	TLS   *TLS   `yaml:"tls"`
}

// TLS asks for a certificate of the fleet's authority.
type TLS struct {
	Names []string `yaml:"names"` // DNS names besides the service's URI
}

// User is a system user.
type User struct {
	Name   string   `yaml:"name"`
	Group  string   `yaml:"group"`
	Groups []string `yaml:"groups"`
	Home   string   `yaml:"home"`
}

// Dir is a directory. Mode is octal text, default "0755"; owner and group default to root.
type Dir struct {
	Path  string `yaml:"path"`
	Mode  string `yaml:"mode"`
	Owner string `yaml:"owner"`
	Group string `yaml:"group"`
}

// File is a file. Mode is octal text, default "0644"; owner and group default to root.
type File struct {
	Path    string   `yaml:"path"`
	Mode    string   `yaml:"mode"`
	Owner   string   `yaml:"owner"`
	Group   string   `yaml:"group"`
	Format  string   `yaml:"format"` // json or empty
	Secret  string   `yaml:"secret"` // renders to true: never shown
	Content string   `yaml:"content"`
	Restart []string `yaml:"restart"`
	Reload  []string `yaml:"reload"`
}

// Port is an opening in the firewall.
type Port struct {
	Port  uint16 `yaml:"port"`
	Proto string `yaml:"proto"` // tcp | udp
	From  string `yaml:"from"`  // any | fleet
}

// Unit is a systemd unit, enabled and running unless said otherwise.
type Unit struct {
	Name    string `yaml:"name"`
	Content string `yaml:"content"` // empty: a unit the system has
	Enabled *bool  `yaml:"enabled"`
	Running *bool  `yaml:"running"`
	Release string `yaml:"release"`
}

// Set is the playbooks of a fleet in the order they are applied.
type Set struct {
	playbooks []*Playbook
	templates []text
}

type text struct{ name, body string }

//go:embed builtin
var builtin embed.FS

const (
	maxFileBytes = 1 << 20
	maxFiles     = 200
)

// Builtin are the playbooks that come with popfleet.
func Builtin() (*Set, error) {
	sub, err := fs.Sub(builtin, "builtin")
	if err != nil {
		return nil, err
	}
	files, templates, err := read(sub, "builtin")
	if err != nil {
		return nil, err
	}
	return parseAll(files, templates)
}

// Load is the built-in playbooks with the operator's from dir, which need not exist.
func Load(dir string) (*Set, error) {
	sub, err := fs.Sub(builtin, "builtin")
	if err != nil {
		return nil, err
	}
	files, templates, err := read(sub, "builtin")
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return parseAll(files, templates)
	}
	ours, own, err := read(os.DirFS(dir), dir)
	if err != nil {
		return nil, err
	}
	return parseAll(override(files, ours), override(templates, own))
}

// override replaces texts of the same base name and adds the rest, in the order of the base names.
func override(under, over []text) []text {
	byName := map[string]text{}
	for _, t := range slices.Concat(under, over) {
		byName[path.Base(t.name)] = t
	}
	var out []text
	for _, t := range byName {
		out = append(out, t)
	}
	slices.SortFunc(out, func(a, b text) int { return strings.Compare(path.Base(a.name), path.Base(b.name)) })
	return out
}

var fileNameRE = regexp.MustCompile(`^[0-9]{2}-[a-z0-9-]+\.yaml$`)

// read collects *.yaml and templates/*.tmpl below files; label is how messages name the folder.
func read(files fs.FS, label string) (books, templates []text, err error) {
	names, err := fs.Glob(files, "*.yaml")
	if err != nil {
		return nil, nil, err
	}
	more, err := fs.Glob(files, "templates/*.tmpl")
	if err != nil {
		return nil, nil, err
	}
	if len(names)+len(more) > maxFiles {
		return nil, nil, fmt.Errorf("%s: %d files, at most %d", label, len(names)+len(more), maxFiles)
	}
	for _, n := range slices.Concat(names, more) {
		body, err := readBounded(files, n)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", label, err)
		}
		t := text{path.Join(label, n), body}
		switch {
		case strings.HasSuffix(n, ".tmpl"):
			templates = append(templates, t)
		case !fileNameRE.MatchString(n):
			return nil, nil, fmt.Errorf("%s: a playbook's file is called NN-name.yaml, its number is its place in the order", t.name)
		default:
			books = append(books, t)
		}
	}
	return books, templates, nil
}

func readBounded(files fs.FS, name string) (string, error) {
	info, err := fs.Stat(files, name)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() || info.Size() > maxFileBytes {
		return "", fmt.Errorf("%s: expected a regular file of at most %d bytes", name, maxFileBytes)
	}
	b, err := fs.ReadFile(files, name)
	return string(b), err
}
