package stack

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/pulumi/pulumi/sdk/v3/go/auto"
	"github.com/pulumi/pulumi/sdk/v3/go/auto/optdestroy"
	"github.com/pulumi/pulumi/sdk/v3/go/auto/optpreview"
	"github.com/pulumi/pulumi/sdk/v3/go/auto/optup"
	"github.com/pulumi/pulumi/sdk/v3/go/common/tokens"
	"github.com/pulumi/pulumi/sdk/v3/go/common/workspace"
	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"
)

// Preview says what Up would do, in Result.Changes, and changes nothing at the provider. What could not be looked at is in
// Result.Errors and Result.Unreachable; whatever else is wrong is the error. When neither says anything and there is no
// change, nothing differs.
func Preview(ctx context.Context, o Options, w Wanted) (Result, error) {
	r, err := open(ctx, o, nil, w)
	if err != nil {
		return Result{}, err
	}
	defer r.close()
	opts := []optpreview.Option{optpreview.Refresh(), optpreview.Parallel(r.opts.Parallel),
		optpreview.SuppressProgress(), optpreview.SuppressOutputs(), optpreview.Color("never")}
	_, cliErr := r.stack.Preview(ctx, opts...)
	res := r.finish(ctx, Wanted{}, cliErr)
	res.hold(w, r.held)
	// The engine works side by side and meets objects in any order; what is printed is compared by people and scripts.
	slices.SortStableFunc(res.Changes, func(a, b Change) int {
		return cmp.Or(cmp.Compare(slices.Index(kindOrder, a.Kind), slices.Index(kindOrder, b.Kind)), strings.Compare(a.Key, b.Key))
	})
	res.Changes = append(res.Changes, r.deletions(w, res.Changes)...)
	return res, errors.Join(res.inTheWay(), r.refuseDeletes(w))
}

// kindOrder is the order in which objects need each other.
var kindOrder = []string{"SSHKey", "Firewall", "Network", "PlacementGroup", "Server", "DedicatedServer", "ReverseDNS"}

// Up brings the provider to w. The error is about the run as a whole; what failed for one node is in Result.Errors, and
// the servers of the others are in Result.Servers all the same. It is safe to cancel, to kill and to repeat.
func Up(ctx context.Context, o Options, w Wanted, progress Progress) (Result, error) {
	r, err := open(ctx, o, progress, w)
	if err != nil {
		return Result{}, err
	}
	defer r.close()
	if err := r.refuseDeletes(w); err != nil {
		return Result{}, err
	}
	opts := []optup.Option{optup.Refresh(), optup.ContinueOnError(), optup.Parallel(r.opts.Parallel),
		optup.SuppressProgress(), optup.SuppressOutputs(), optup.Color("never")}
	_, cliErr := r.stack.Up(ctx, opts...)
	res := r.finish(ctx, w, cliErr)
	res.hold(w, r.held)
	return res, ctx.Err()
}

// Destroy gives back the servers of the target nodes, which may be deleted by being named, or everything the stack holds
// when there are no targets; then every server must be in AllowDelete.
func Destroy(ctx context.Context, o Options, progress Progress, targets ...string) (Result, error) {
	o.AllowDelete = append(slices.Clone(o.AllowDelete), targets...)
	r, err := open(ctx, o, progress, Wanted{})
	if err != nil {
		return Result{}, err
	}
	defer r.close()
	opts := []optdestroy.Option{optdestroy.Refresh(), optdestroy.ContinueOnError(), optdestroy.Parallel(r.opts.Parallel),
		optdestroy.SuppressProgress(), optdestroy.SuppressOutputs(), optdestroy.Color("never")}
	if len(targets) > 0 {
		urns := r.urnsOf(targets)
		if len(urns) == 0 {
			return Result{}, nil
		}
		opts = append(opts, optdestroy.Target(urns), optdestroy.TargetDependents())
	} else if err := r.refuseDeletes(Wanted{}); err != nil {
		return Result{}, err
	}
	_, cliErr := r.stack.Destroy(ctx, opts...)
	res := r.finish(ctx, Wanted{}, cliErr)
	res.stillThere(r.before.servers(), targets, r.rec.isGone)
	return res, ctx.Err()
}

// run is one use of the stack: locked, with our provider served beside it.
type run struct {
	opts   Options
	stack  auto.Stack
	before deployment // the state as it was found
	rec    *recorder
	held   *held
	lock   *os.File
	stop   func()
}

func open(ctx context.Context, o Options, progress Progress, w Wanted) (_ *run, err error) {
	o, err = o.withDefaults(ctx)
	if err != nil {
		return nil, err
	}
	work := filepath.Join(o.Dir, "work")
	if err := os.MkdirAll(work, 0o700); err != nil {
		return nil, fmt.Errorf("stack directory: %w", err)
	}
	r := &run{opts: o, rec: newRecorder(progress), held: newHeld(o.Unreachable), stop: func() {}}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	if r.lock, err = lock(ctx, o.Dir); err != nil {
		return nil, err
	}
	port, stop, err := newCloud(ctx, o, r.rec, r.held).serve(ctx)
	if err != nil {
		return nil, err
	}
	r.stop = stop
	if err := r.openStack(ctx, work, port, program(w, r.registered)); err != nil {
		return nil, err
	}
	return r, r.recover(ctx)
}

func (r *run) close() {
	r.stop()
	if r.lock != nil {
		_ = r.lock.Close() // gives the lock back
	}
}

// local says whether the state is in a file backend of ours.
func (r *run) local() bool { return r.opts.Backend == "" }

func (r *run) openStack(ctx context.Context, work string, port int, prog pulumi.RunFunc) error {
	backend := r.opts.Backend
	if r.local() {
		// Sidecar files with metadata are not written atomically: a killed CLI leaves a torn one, and the stack unreadable.
		backend = "file://" + r.opts.Dir + "?metadata=skip"
	}
	s, err := auto.UpsertStackInlineSource(ctx, r.opts.Fleet, project, prog,
		auto.WorkDir(work), auto.PulumiHome(filepath.Join(r.opts.Dir, "home")),
		auto.Pulumi(&command{path: r.opts.CLI, lock: r.lock, known: r.known}),
		auto.SecretsProvider("passphrase"),
		auto.Project(workspace.Project{Name: tokens.PackageName(project), Runtime: workspace.NewProjectRuntimeInfo("go", nil)}),
		auto.EnvVars(map[string]string{
			"PULUMI_BACKEND_URL":                            backend,
			"PULUMI_CONFIG_PASSPHRASE":                      string(r.opts.Passphrase.Reveal()),
			"PULUMI_DEBUG_PROVIDERS":                        ProviderName + ":" + strconv.Itoa(port),
			"PULUMI_SKIP_UPDATE_CHECK":                      "true",
			"PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION":   "true",
			"PULUMI_AUTOMATION_API_SKIP_VERSION_CHECK":      "true",
			"PULUMI_DIY_BACKEND_NO_LEGACY_WARNING":          "true",
			"PULUMI_DIY_BACKEND_RETAIN_CHECKPOINTS":         "false",
			"PULUMI_DIY_BACKEND_DISABLE_CHECKPOINT_BACKUPS": "true",
		}))
	if err != nil {
		return fmt.Errorf("open stack %s: %w", r.opts.Fleet, shorten(err))
	}
	r.stack = s
	return nil
}

// known answers calls of the automation API that would start the CLI for something we know: each start costs about half
// a second. Outputs come from our own provider, and the history is of no use here.
func (r *run) known(args []string) (string, bool, error) {
	if len(args) < 2 || args[0] != "stack" {
		return "", false, nil
	}
	switch args[1] {
	case "output":
		return "{}", true, nil
	case "history":
		return "[]", true, nil
	case "select":
		if !r.local() {
			return "", false, nil
		}
		if _, err := os.Stat(localState(r.opts.Dir, r.opts.Fleet)); err != nil {
			return "", true, fmt.Errorf("no stack named '%s' found", r.opts.Fleet)
		}
		return "", true, nil
	}
	return "", false, nil
}

// recover clears what a killed run left. We hold the lock, so a lock of Pulumi's own file backend has no owner. In a
// shared backend it may have one: there it is left alone and Pulumi names it.
func (r *run) recover(ctx context.Context) (err error) {
	if r.local() {
		if left, _ := filepath.Glob(filepath.Join(r.opts.Dir, ".pulumi", "locks", "*", "*", r.opts.Fleet, "*.json")); len(left) > 0 {
			if err := r.stack.Cancel(ctx); err != nil {
				return fmt.Errorf("clear the lock of a killed run: %w", shorten(err))
			}
		}
		r.before, err = readLocal(localState(r.opts.Dir, r.opts.Fleet))
	} else {
		err = r.exportState(ctx)
	}
	if err != nil || len(r.before.Pending) == 0 {
		return err
	}
	return clearPending(ctx, &r.stack)
}

func (r *run) exportState(ctx context.Context) error {
	exported, err := r.stack.Export(ctx)
	if err != nil {
		return fmt.Errorf("export the stack: %w", shorten(err))
	}
	if err := json.Unmarshal(exported.Deployment, &r.before); err != nil {
		return fmt.Errorf("read the exported stack: %w", err)
	}
	return nil
}

// refuseDeletes stops before anything is done when the state holds servers that are neither wanted nor allowed to go.
func (r *run) refuseDeletes(w Wanted) error {
	wanted := map[string]bool{}
	for _, node := range w.nodes() {
		wanted[node] = true
	}
	refused := slices.DeleteFunc(r.before.servers(), func(node string) bool {
		return wanted[node] || slices.Contains(r.opts.AllowDelete, node)
	})
	if len(refused) == 0 {
		return nil
	}
	return refusal(refused)
}

func refusal(nodes []string) error {
	list := strings.Join(nodes, " ")
	return fmt.Errorf("%w: %s: not in the fleet file any more (`fleet down %s` wipes the keys and gives them back)",
		ErrDeleteRefused, list, list)
}

// deletions are the objects of the state that w does not want; those that already vanished are not deleted again.
func (r *run) deletions(w Wanted, seen Changes) Changes {
	wanted := w.keys()
	for _, c := range seen {
		if c.Op == "vanished" {
			wanted[c.Key] = true
		}
	}
	var out Changes
	for _, res := range slices.Backward(r.before.Resources) {
		if kind, ours := strings.CutPrefix(res.Type, token("")); ours && !wanted[res.Inputs.Key] && r.held.why(res.Inputs.Provider, "") == nil {
			out = append(out, Change{Op: "delete", Kind: kind, Key: res.Inputs.Key, Node: nodeOf(res.Inputs.Key)})
		}
	}
	return out
}

func (r *run) urnsOf(nodes []string) []string {
	var out []string
	for _, res := range r.before.Resources {
		if isServer(res.Type) && slices.Contains(nodes, res.Inputs.Node) {
			out = append(out, res.URN)
		}
	}
	return out
}

// finish makes the result. An error of the CLI is told only when none of our own explains it.
func (r *run) finish(ctx context.Context, w Wanted, cliErr error) Result {
	res := r.rec.result(w)
	if cliErr != nil && ctx.Err() == nil && !r.rec.failed() {
		res.Errors[""] = fmt.Errorf("pulumi: %w", shorten(cliErr))
	}
	return res
}
