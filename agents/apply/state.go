package apply

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

const statePath = "/var/lib/fleet/apply.json"

// state is what cannot be seen on the machine: with which content each unit was last started, and how the kernel printed
// the ruleset that was last loaded. An entry is written after the act it records, so a crash in between leaves the old
// entry, and the next run acts again. Losing the file costs one restart of each unit, nothing more.
type state struct {
	V        int               `json:"v"` // 1
	Units    map[string]string `json:"units"`
	Reloads  map[string]string `json:"reloads"`
	Nftables string            `json:"nftables,omitempty"` // of the text last loaded and of `nft -s list ruleset` after it

	tree *tree
}

func loadState(t *tree) (*state, error) {
	empty := &state{V: 1, Units: map[string]string{}, Reloads: map[string]string{}, tree: t}
	raw, err := t.ReadFile(rel(statePath))
	if errors.Is(err, fs.ErrNotExist) {
		return empty, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read state: %w", err)
	}
	s := *empty
	// A file of a later version, or one damaged by hand, is as good as none.
	if json.Unmarshal(raw, &s) != nil || s.V != 1 || s.Units == nil || s.Reloads == nil {
		return empty, nil
	}
	return &s, nil
}

func (s *state) save() error {
	raw, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("state: %w", err)
	}
	if err := s.tree.replace(statePath, append(raw, '\n'), 0o600, os.Getuid(), os.Getgid()); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	return nil
}
