package apply

import (
	"context"
	"strings"
)

// unitState is a unit as systemd sees it.
type unitState struct {
	load       string // loaded | not-found | masked
	active     string // active | inactive | failed | activating | deactivating | reloading
	file       string // enabled | disabled | static | …
	needReload bool   // its file changed after systemd read it
}

// up: it runs, or systemd keeps restarting it. What keeps failing is reported by its check, with its journal.
func (s unitState) up() bool {
	return s.active == "active" || s.active == "activating" || s.active == "reloading"
}

// enabled is also true for units that cannot be enabled because something else pulls them in.
func (s unitState) enabled() bool {
	switch s.file {
	case "enabled", "enabled-runtime", "static", "alias", "indirect", "generated":
		return true
	}
	return false
}

// showUnits asks for all units in one call. A unit that does not exist is an answer, not an error.
func (j *job) showUnits(ctx context.Context, names []string) (map[string]unitState, error) {
	args := append([]string{"systemctl", "show", "--property=Id,Names,LoadState,ActiveState,UnitFileState,NeedDaemonReload", "--"}, names...)
	out, err := j.Runner.Run(ctx, Command{Args: args})
	if err != nil {
		return nil, err
	}
	return parseShow(string(out)), nil
}

// parseShow reads blocks of key=value lines, one block a unit, parted by empty lines.
func parseShow(out string) map[string]unitState {
	states := map[string]unitState{}
	for block := range strings.SplitSeq(out, "\n\n") {
		var s unitState
		var names []string
		for line := range strings.SplitSeq(block, "\n") {
			key, value, _ := strings.Cut(line, "=")
			switch key {
			case "Id", "Names":
				names = append(names, strings.Fields(value)...)
			case "LoadState":
				s.load = value
			case "ActiveState":
				s.active = value
			case "UnitFileState":
				s.file = value
			case "NeedDaemonReload":
				s.needReload = value == "yes"
			}
		}
		for _, n := range names {
			states[n] = s
		}
	}
	return states
}
