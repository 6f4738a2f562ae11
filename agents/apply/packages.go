package apply

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"
)

const (
	aptTimeout = 20 * time.Minute // a slow mirror on an emulated machine
	aptLock    = "DPkg::Lock::Timeout=120"
)

// packages installs what is missing, in one transaction. What is installed is read from dpkg's status file, which costs
// nothing, instead of asking dpkg-query.
func (j *job) packages(context.Context) (work, error) {
	if len(j.want.Packages) == 0 {
		return work{}, nil
	}
	have, err := j.tree.installed()
	if err != nil {
		return work{}, err
	}
	var missing []string
	var w work
	for _, p := range j.want.Packages {
		if !have[p] {
			missing = append(missing, p)
			w.changes = append(w.changes, change{name: "package " + p, detail: "install"})
		}
	}
	w.commit = func(ctx context.Context) error { return j.aptInstall(ctx, missing) }
	return w, nil
}

func (t *tree) installed() (map[string]bool, error) {
	raw, err := t.ReadFile("var/lib/dpkg/status")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("no dpkg on this machine: packages need Debian or Ubuntu")
	}
	if err != nil {
		return nil, fmt.Errorf("read package list: %w", err)
	}
	have, name := map[string]bool{}, ""
	lines := bufio.NewScanner(bytes.NewReader(raw))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if v, ok := strings.CutPrefix(lines.Text(), "Package: "); ok {
			name = v
		}
		if v, ok := strings.CutPrefix(lines.Text(), "Status: "); ok {
			have[name] = strings.HasSuffix(v, " ok installed")
		}
	}
	return have, lines.Err()
}

func (j *job) aptInstall(ctx context.Context, names []string) error {
	env := []string{"DEBIAN_FRONTEND=noninteractive", "NEEDRESTART_MODE=a", "APT_LISTCHANGES_FRONTEND=none"}
	update := Command{Args: []string{"apt-get", "-qq", "-o", aptLock, "update"}, Env: env, Timeout: aptTimeout}
	if _, err := j.Runner.Run(ctx, update); err != nil {
		return fmt.Errorf("%w; is the package mirror reachable from the node?", err)
	}
	args := []string{"apt-get", "-qq", "-y", "-o", aptLock, "-o", "Dpkg::Options::=--force-confold", "--no-install-recommends", "install", "--"}
	_, err := j.Runner.Run(ctx, Command{Args: append(args, names...), Env: env, Timeout: aptTimeout})
	return err
}
