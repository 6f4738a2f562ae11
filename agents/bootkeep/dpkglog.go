package bootkeep

import (
	"bufio"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"popfleet/playbooks/spec"
)

// maxLogBytes bounds what is read of one run; thousands of packages stay below it.
const maxLogBytes = 4 << 20

func (k Keeper) logSize() (int64, error) {
	st, err := os.Stat(k.path(dpkgLog))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// packages are those that dpkg's log names behind an offset; a log that is shorter by now was rotated.
func (k Keeper) packages(offset int64) ([]string, error) {
	f, err := os.Open(k.path(dpkgLog))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.Size() < offset {
		offset = 0
	}
	return packagesIn(io.NewSectionReader(f, offset, maxLogBytes))
}

// packagesIn reads dpkg's log (dpkg(1), --log): "2026-11-23 02:42:39 upgrade linux-image-amd64:amd64 6.1.119-1 6.1.123-1".
// It names each package once, by what became of it last.
func packagesIn(r io.Reader) ([]string, error) {
	became := map[string]string{}
	var order []string
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 64<<10)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 6 || !plain(f[3]) || !plain(f[4]) || !plain(f[5]) {
			continue
		}
		name, _, _ := strings.Cut(f[3], ":")
		version := f[4]
		switch f[2] {
		case "install", "upgrade":
			version = f[5]
		case "remove", "purge", "disappear":
			version = "removed"
		case "configure", "trigproc":
		default:
			continue
		}
		if _, known := became[name]; !known {
			order = append(order, name)
		}
		became[name] = version
	}
	for i, name := range order {
		order[i] = name + " " + became[name]
	}
	return named(order), lines.Err()
}

// plain says whether a word can be a package, an architecture or a version, or "<none>".
func plain(word string) bool {
	return word != "" && len(word) <= 200 && !strings.ContainsFunc(word, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("+-.:~_<>", r))
	})
}

// andMore ends a list that was too long.
const andMore = "and more"

// named bounds a list of packages.
func named(all []string) []string {
	cut := slices.Contains(all, andMore)
	all = slices.DeleteFunc(all, func(s string) bool { return s == andMore })
	if len(all) > spec.MaxRunPackages {
		cut, all = true, all[:spec.MaxRunPackages:spec.MaxRunPackages]
	}
	if cut {
		all = append(all, andMore)
	}
	return all
}
