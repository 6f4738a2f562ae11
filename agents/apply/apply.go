// Package apply brings the machine it runs on to a [spec.Node]: accounts, packages, directories, files, kernel
// parameters, firewall, release, units, in that order, and then waits until the services answer healthy.
//
// Every stage looks first and lists what differs; a plan stops there, an apply acts. When nothing differs nothing is
// written, nothing is restarted and Applied.Changed is empty. It never touches what the spec does not name, never
// follows a symlink in the last element of a path, never shows the content of a secret file, and never runs a shell.
//
// It fails at the first thing it cannot do, with what and why; what was done before stays done. Killed at any point and
// run again it converges: files are replaced by rename, and which configuration each unit runs with is recorded only
// after its restart (see [state]), so a crash between the two is noticed.
package apply

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"time"

	"popfleet/agents/exchange"
	"popfleet/internal/control"
	"popfleet/playbooks/spec"
)

// Options are what differs between a machine and a test. [Default] is complete.
type Options struct {
	Root   string                                         // "/"; every path of the spec is below it
	Runner Runner                                         // programs of the system
	Health func(ctx context.Context, socket string) error // nil when the service behind the socket is healthy
	Poll   time.Duration                                  // between two questions to an unhealthy service
	Log    *slog.Logger
}

// Default works on this machine.
func Default(log *slog.Logger) Options {
	return Options{Root: "/", Runner: Exec{}, Health: askHealth, Poll: 250 * time.Millisecond, Log: log}
}

func askHealth(ctx context.Context, socket string) error {
	h, err := control.Dial(socket).Health(ctx)
	if err != nil {
		return err
	}
	if !h.OK {
		return errors.New(h.Reason)
	}
	return nil
}

// Handlers are the ops this package serves in an exchange.
func Handlers(o Options) map[string]exchange.Handler {
	serve := func(work func(context.Context, Options, *spec.Node, exchange.Session) (spec.Applied, error)) exchange.Handler {
		return func(ctx context.Context, raw json.RawMessage, s exchange.Session) (any, error) {
			n, err := spec.DecodeNode(raw)
			if err != nil {
				return nil, err
			}
			return work(ctx, o, n, s)
		}
	}
	return map[string]exchange.Handler{spec.OpPlan: serve(Plan), spec.OpApply: serve(Apply)}
}

// Plan tells what Apply would change, as diff events and in Applied.Changed, and changes nothing.
func Plan(ctx context.Context, o Options, n *spec.Node, s exchange.Session) (spec.Applied, error) {
	return run(ctx, o, n, s, true)
}

// Apply brings the machine to n. One apply runs on a machine at a time; a second one is refused.
func Apply(ctx context.Context, o Options, n *spec.Node, s exchange.Session) (spec.Applied, error) {
	return run(ctx, o, n, s, false)
}

// job is one plan or apply in progress.
type job struct {
	Options
	want    *spec.Node
	session exchange.Session
	dry     bool
	tree    *tree
	state   *state
	changed []string
}

// work is what a stage found: the changes to make, in order, and what completes them once when there was any.
type work struct {
	changes []change
	commit  func(context.Context) error
}

// change is one difference: what (as Applied.Changed lists it), how it differs in words for people, and how to end it.
type change struct {
	name   string
	detail string
	act    func(context.Context) error // nil: the stage's commit does it
}

type stage struct {
	name string
	look func(context.Context) (work, error)
}

func run(ctx context.Context, o Options, n *spec.Node, s exchange.Session, dry bool) (spec.Applied, error) {
	t, err := openTree(o.Root)
	if err != nil {
		return spec.Applied{}, err
	}
	defer t.Close()
	if err := rightNode(t, n.Name); err != nil {
		return spec.Applied{}, err
	}
	if !dry {
		unlock, err := t.lock("/run/fleet/apply.lock")
		if err != nil {
			return spec.Applied{}, err
		}
		defer unlock()
	}
	j := &job{Options: o, want: n, session: s, dry: dry, tree: t, changed: []string{}}
	if j.state, err = loadState(t); err != nil {
		return spec.Applied{}, err
	}
	for _, st := range j.stages() {
		if err := j.stage(ctx, st); err != nil {
			return spec.Applied{}, fmt.Errorf("%s: %w", st.name, err)
		}
	}
	return j.result()
}

func (j *job) stages() []stage {
	all := []stage{
		{"accounts", j.accounts}, {"packages", j.packages}, {"directories", j.dirs}, {"files", j.files},
		{"sysctl", j.sysctl}, {"nftables", j.nftables}, {"release", j.release}, {"units", j.units},
	}
	if !j.dry {
		all = append(all, stage{"checks", j.checks})
	}
	return all
}

func (j *job) stage(ctx context.Context, st stage) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	j.session.Emit(spec.Event{Kind: spec.KindStep, Step: st.name, Status: "doing"})
	w, err := st.look(ctx)
	if err != nil {
		return err
	}
	for _, c := range w.changes {
		if err := j.change(ctx, c); err != nil {
			return err
		}
	}
	if len(w.changes) > 0 && w.commit != nil && !j.dry {
		if err := w.commit(ctx); err != nil {
			return err
		}
	}
	status := "done"
	if len(w.changes) == 0 {
		status = "skipped"
	}
	j.session.Emit(spec.Event{Kind: spec.KindStep, Step: st.name, Status: status})
	return nil
}

func (j *job) change(ctx context.Context, c change) error {
	j.session.Emit(spec.Event{Kind: spec.KindDiff, Step: c.name, Text: c.detail})
	j.changed = append(j.changed, c.name)
	if j.dry || c.act == nil {
		return nil
	}
	if err := c.act(ctx); err != nil {
		return fmt.Errorf("%s: %w", c.name, err)
	}
	j.Log.Info("changed", "what", c.name)
	return nil
}

func (j *job) result() (spec.Applied, error) {
	a := spec.Applied{Changed: j.changed}
	if target, err := j.tree.Readlink(rel(currentLink)); err == nil {
		a.Release = strings.TrimPrefix(target, "releases/")
	}
	boot, err := j.tree.ReadFile("proc/sys/kernel/random/boot_id")
	if err != nil {
		return a, fmt.Errorf("read boot id: %w", err)
	}
	a.BootID = strings.TrimSpace(string(boot))
	return a, nil
}

// rightNode refuses a spec that was meant for another machine, before anything is looked at.
func rightNode(t *tree, name string) error {
	var id struct {
		Node string `json:"node"`
	}
	raw, err := t.ReadFile("etc/fleet/node.json")
	if errors.Is(err, fs.ErrNotExist) {
		return &spec.Error{Code: spec.CodeWrongNode, Message: "this machine has no identity: /etc/fleet/node.json is missing",
			Hint: "it was not installed by popfleet, or it runs a rescue system"}
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, &id); err != nil {
		return fmt.Errorf("/etc/fleet/node.json: %w", err)
	}
	if id.Node != name {
		return &spec.Error{Code: spec.CodeWrongNode, Message: fmt.Sprintf("this machine is node %q, the spec is for %q", id.Node, name),
			Hint: "an address was reused, or two nodes answer on it; nothing was changed"}
	}
	return nil
}

// IsLocked says whether err means that another apply runs on this machine.
func IsLocked(err error) bool { return errors.Is(err, errLocked) }

var errLocked = errors.New("another apply is running on this node")
