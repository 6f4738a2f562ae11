package stack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/pulumi/pulumi/sdk/v3/go/auto"
)

const project = "popfleet"

// lockWait is how long a run waits for the lock: a CLI whose run was killed notices within seconds that its provider is
// gone, and ends.
const lockWait = 60 * time.Second

// lock takes the stack's lock. The file is handed to every CLI started under it, so the lock lasts as long as any of
// them lives, even when this process is killed, and not a moment longer.
func lock(ctx context.Context, dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("stack lock: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			_ = f.Close()
			return nil, fmt.Errorf("stack lock %s: %w", f.Name(), err)
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, fmt.Errorf("stack lock %s, waited %s: %w", f.Name(), lockWait, ErrLocked)
		case <-tick.C:
		}
	}
}

// deployment is the part of Pulumi's state that we look at.
type deployment struct {
	Resources []struct {
		URN    string `json:"urn"`
		ID     string `json:"id"`
		Type   string `json:"type"`
		Custom bool   `json:"custom"`
		Inputs struct {
			Key  string `json:"key"`
			Node string `json:"node"`
			// Provider is whose the object is; "" is Hetzner Cloud.
			Provider string `json:"provider"`
		} `json:"inputs"`
	} `json:"resources"`
	Pending []json.RawMessage `json:"pending_operations"`
}

// servers are the nodes whose servers are in the state, sorted.
func (d deployment) servers() []string {
	var out []string
	for _, r := range d.Resources {
		if isServer(r.Type) {
			out = append(out, r.Inputs.Node)
		}
	}
	slices.Sort(out)
	return out
}

func isServer(kind string) bool { return kind == token("Server") || kind == token("DedicatedServer") }

// localState is where the file backend keeps the stack.
func localState(dir, stack string) string {
	return filepath.Join(dir, ".pulumi", "stacks", project, stack+".json")
}

// readLocal reads the file backend's state; a stack that does not exist yet is empty.
func readLocal(path string) (deployment, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return deployment{}, nil
	}
	if err != nil {
		return deployment{}, fmt.Errorf("stack state: %w", err)
	}
	var file struct {
		Checkpoint struct {
			Latest *deployment `json:"latest"`
		} `json:"checkpoint"`
	}
	if err := json.Unmarshal(b, &file); err != nil {
		return deployment{}, fmt.Errorf("stack state %s: %w", path, err)
	}
	if file.Checkpoint.Latest == nil {
		return deployment{}, nil
	}
	return *file.Checkpoint.Latest, nil
}

// clearPending drops operations that a killed run left open. Pulumi would ask a person about them, because it can't know
// whether the create happened; our creates look first, and every run refreshes.
func clearPending(ctx context.Context, s *auto.Stack) error {
	exported, err := s.Export(ctx)
	if err != nil {
		return fmt.Errorf("export the stack: %w", err)
	}
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(exported.Deployment, &raw); err != nil {
		return fmt.Errorf("read the exported stack: %w", err)
	}
	delete(raw, "pending_operations")
	if exported.Deployment, err = json.Marshal(raw); err != nil {
		return fmt.Errorf("write the exported stack: %w", err)
	}
	if err := s.Import(ctx, exported); err != nil {
		return fmt.Errorf("import the stack without pending operations: %w", err)
	}
	return nil
}
