package bootkeep

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"popfleet/agents/facts"
	"popfleet/internal/strictjson"
	"popfleet/playbooks/spec"
)

// What dpkg does to what the node boots from is written down by dpkg's own hooks: before it begins and after it ended,
// also when a package failed. A dpkg that is killed leaves no word, and so what it changed stays undeclared. All of it lies
// in /run: a declaration is worth nothing in another boot (docs/decisions/017).
const (
	runDir      = "/run/fleet-boot"
	changesFile = "changes.json"
	dpkgLog     = "/var/log/dpkg.log"
)

// begun is a run that is going on, in run-PID.json.
type begun struct {
	PID       int               `json:"pid"`
	Start     string            `json:"start"` // of the process, by which a pid that was used again is known
	LogBytes  int64             `json:"log_bytes"`
	UnixMilli int64             `json:"unix_milli"`
	From      spec.BootManifest `json:"from"`
}

func (b begun) file() string { return fmt.Sprintf("run-%d.json", b.PID) }

// BeginRun keeps what the node would boot from as the dpkg with this pid begins.
func (k Keeper) BeginRun(ctx context.Context, pid int) error {
	unlock, err := k.lock()
	if err != nil {
		return err
	}
	defer unlock()
	start, err := k.started(pid)
	if err != nil {
		return fmt.Errorf("package run: %w", err)
	}
	if err := os.MkdirAll(k.path(runDir), 0o755); err != nil {
		return err
	}
	if _, err := k.underWay(); err != nil { // clears away what killed runs left
		return err
	}
	b := begun{PID: pid, Start: start, UnixMilli: k.now().UnixMilli()}
	if b.From, err = k.manifest(ctx); err != nil {
		return fmt.Errorf("package run: %w", err)
	}
	if b.LogBytes, err = k.logSize(); err != nil {
		return fmt.Errorf("package run: %w", err)
	}
	return k.put(b.file(), b)
}

// EndRun declares what the dpkg with this pid changed; nil when nothing.
func (k Keeper) EndRun(ctx context.Context, pid int) (*spec.BootChange, error) {
	unlock, err := k.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	b, err := k.begun(pid)
	if err != nil {
		return nil, fmt.Errorf("package run: %w", err)
	}
	c, err := k.declare(ctx, b)
	if err != nil {
		err = fmt.Errorf("package run: %w", err)
	}
	// Last, so that nobody takes the time in between for after a run whose word is missing.
	return c, errors.Join(err, os.Remove(k.runPath(b.file())))
}

func (k Keeper) declare(ctx context.Context, b begun) (*spec.BootChange, error) {
	now, err := k.manifest(ctx)
	if err != nil || now.Digest == b.From.Digest {
		return nil, err
	}
	packages, err := k.packages(b.LogBytes)
	if err != nil {
		return nil, err
	}
	if len(packages) == 0 {
		return nil, fmt.Errorf("what this node boots from changed, and %s names no package that did it", dpkgLog)
	}
	said, err := k.declared()
	if err != nil {
		return nil, err
	}
	c := spec.BootChange{From: b.From, To: now.Digest, Packages: packages, UnixMilli: k.now().UnixMilli()}
	said.Changes = bounded(append(said.Changes, c))
	if err := k.put(changesFile, said); err != nil {
		return nil, err
	}
	return &c, k.write(filepath.Base(facts.BootChangedFile), []byte(c.To+"\n"))
}

// bounded joins the oldest changes when there are too many: whoever heard of none of them must still find where the chain
// begins. Two that do not follow each other lead nowhere, so the older is dropped.
func bounded(all []spec.BootChange) []spec.BootChange {
	for len(all) > spec.MaxBootChanges {
		first, second := all[0], all[1]
		all = all[1:]
		if first.To == second.From.Digest {
			second.From, second.Packages = first.From, named(append(slices.Clone(first.Packages), second.Packages...))
			all = append([]spec.BootChange{second}, all[1:]...)
		}
	}
	return all
}

// Changes serves [spec.OpBootChanges]. The lock keeps a run from beginning meanwhile.
func (k Keeper) Changes(ctx context.Context) (spec.BootChanges, error) {
	unlock, err := k.lock()
	if err != nil {
		return spec.BootChanges{}, err
	}
	defer unlock()
	said, err := k.declared()
	if err != nil {
		return said, fmt.Errorf("boot changes: %w", err)
	}
	if said.UnderWay, err = k.underWay(); err != nil || said.UnderWay != "" || len(said.Changes) == 0 {
		return said, err
	}
	now, err := k.manifest(ctx)
	said.Manifest = &now
	return said, err
}

// declared are the changes of this boot; those of another are forgotten.
func (k Keeper) declared() (said spec.BootChanges, err error) {
	boot, err := k.Checker.Host.BootID()
	if err != nil {
		return said, err
	}
	err = strictjson.File(k.runPath(changesFile), &said)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return said, err
	}
	if said.BootID != boot {
		said = spec.BootChanges{BootID: boot}
	}
	return said, nil
}

// underWay names the run that is going on, "" when there is none, and takes away what killed ones left.
func (k Keeper) underWay() (words string, err error) {
	left, err := filepath.Glob(k.runPath("run-*.json"))
	if err != nil {
		return "", err
	}
	for _, path := range left {
		pid, err := strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(filepath.Base(path), "run-"), ".json"))
		if err == nil {
			var b begun
			if b, err = k.begun(pid); err == nil {
				words = fmt.Sprintf("dpkg (pid %d) since %s", pid, time.UnixMilli(b.UnixMilli).UTC().Format(time.RFC3339))
				continue
			}
		}
		k.Log.Warn("a package run ended without a word; what it changed is not declared", "run", filepath.Base(path), "error", err)
		if err := os.Remove(path); err != nil {
			return "", err
		}
	}
	return words, nil
}

// begun reads what was kept of a run that is going on.
func (k Keeper) begun(pid int) (b begun, err error) {
	if err := strictjson.File(k.runPath(begun{PID: pid}.file()), &b); err != nil {
		return b, fmt.Errorf("its beginning was not seen: %w", err)
	}
	start, err := k.started(pid)
	if err == nil && start != b.Start {
		err = fmt.Errorf("process %d is another than the one that began", pid)
	}
	return b, err
}

// started is when a process started, in ticks since the boot (proc_pid_stat(5), field 22).
func (k Keeper) started(pid int) (string, error) {
	path := k.path(fmt.Sprintf("/proc/%d/stat", pid))
	data, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	text := string(data)
	f := strings.Fields(text[strings.LastIndexByte(text, ')')+1:]) // the name before may hold anything
	if len(f) < 20 {
		return "", fmt.Errorf("%s: not understood", path)
	}
	return f[19], nil
}

func (k Keeper) manifest(ctx context.Context) (spec.BootManifest, error) {
	if k.Manifest != nil {
		return k.Manifest(ctx)
	}
	return k.Checker.Manifest(ctx)
}

func (k Keeper) now() time.Time {
	if k.Checker.Now != nil {
		return k.Checker.Now()
	}
	return time.Now()
}

func (k Keeper) runPath(name string) string { return filepath.Join(k.path(runDir), name) }

func (k Keeper) put(name string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return k.write(name, append(data, '\n'))
}

// write replaces a file whole. It lies in memory: there is nothing to sync.
func (k Keeper) write(name string, data []byte) error {
	tmp := k.runPath(name + ".new")
	if err := os.WriteFile(tmp, data, 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, k.runPath(name))
}
