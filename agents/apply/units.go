package apply

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"time"

	"popfleet/playbooks/spec"
)

const (
	unitDir     = "/etc/systemd/system/"
	unitTimeout = 5 * time.Minute // a stop that drains, and a start, on an emulated machine
)

// unitPlan is everything about one unit: what the spec wants, what systemd says, and with what it should run.
type unitPlan struct {
	spec.Unit
	ours   bool      // in the spec's units; otherwise only named by a file's restart or reload
	now    unitState // as systemd sees it before anything is written
	file   *change   // the unit's file, when it differs
	inputs string    // digest of what a restart would pick up; "" when there is nothing
	reload string    // digest of what a reload would pick up
}

// units writes unit files, then enables, starts, restarts or reloads in the spec's order, only what needs it. Whether a
// running unit needs a restart is decided by what it was last started with, not by what this run wrote.
func (j *job) units(ctx context.Context) (work, error) {
	plans, err := j.unitPlans(ctx)
	if err != nil || len(plans) == 0 {
		return work{}, err
	}
	var w work
	stale := false
	for i := range plans {
		p := &plans[i]
		if p.file != nil {
			w.changes = append(w.changes, *p.file)
		}
		stale = stale || p.now.needReload
	}
	for i := range plans {
		w.changes = append(w.changes, j.bootChanges(&plans[i])...)
	}
	if stale || len(w.changes) > 0 {
		w.changes = append(w.changes, change{"systemd reload", "unit files changed", j.systemctl("daemon-reload")})
	}
	for i := range plans {
		w.changes = append(w.changes, j.unitChanges(&plans[i])...)
	}
	return w, nil
}

func (j *job) unitPlans(ctx context.Context) ([]unitPlan, error) {
	plans := wantedUnits(j.want)
	if len(plans) == 0 {
		return nil, nil
	}
	var names []string
	for _, p := range plans {
		names = append(names, p.Name)
	}
	now, err := j.showUnits(ctx, names)
	if err != nil {
		return nil, err
	}
	for i := range plans {
		p := &plans[i]
		p.now = now[p.Name]
		if p.Content == "" {
			continue
		}
		c, differs, err := j.rootFile(unitDir+p.Name, []byte(p.Content))
		if err != nil {
			return nil, err
		}
		if differs {
			c.name = "unit " + p.Name
			p.file = &c
		}
	}
	return plans, nil
}

// wantedUnits are the system's units that files feed, in the order of the files, then the spec's own. The system's come
// first: a resolver has to let go of port 53 before ours starts.
func wantedUnits(n *spec.Node) []unitPlan {
	var plans []unitPlan
	for _, f := range n.Files {
		for _, u := range slices.Concat(f.Restart, f.Reload) {
			same := func(p unitPlan) bool { return p.Name == u }
			ours := slices.ContainsFunc(n.Units, func(o spec.Unit) bool { return o.Name == u })
			if !ours && !slices.ContainsFunc(plans, same) {
				plans = append(plans, unitPlan{Unit: spec.Unit{Name: u}})
			}
		}
	}
	for _, u := range n.Units {
		plans = append(plans, unitPlan{Unit: u, ours: true})
	}
	for i := range plans {
		p := &plans[i]
		p.inputs = inputsDigest(n, p.Unit)
		p.reload = filesDigest(n, func(f spec.File) bool { return slices.Contains(f.Reload, p.Name) }, "")
	}
	return plans
}

// inputsDigest covers all that makes a restart necessary: the unit's file, its binary, the files that name it.
func inputsDigest(n *spec.Node, u spec.Unit) string {
	head := ""
	if u.Content != "" {
		head = "unit " + u.Content + "\n"
	}
	if f, ok := n.Release.File(u.Release); ok {
		head += "binary " + f.SHA256 + "\n"
	}
	return filesDigest(n, func(f spec.File) bool { return slices.Contains(f.Restart, u.Name) }, head)
}

func filesDigest(n *spec.Node, feeds func(spec.File) bool, head string) string {
	var b strings.Builder
	b.WriteString(head)
	for _, f := range n.Files {
		if feeds(f) {
			fmt.Fprintf(&b, "file %s %x\n", f.Path, sha256.Sum256(f.Content))
		}
	}
	if b.Len() == 0 {
		return ""
	}
	return fmt.Sprintf("%x", sha256.Sum256([]byte(b.String())))
}

// bootChanges say whether the unit starts at boot. systemctl would reload systemd after each, which takes an emulated
// machine ten seconds and more; one reload follows all of them.
func (j *job) bootChanges(p *unitPlan) []change {
	switch {
	case !p.ours:
	case p.Enabled && !p.now.enabled():
		return []change{{"unit " + p.Name + " enable", "starts at boot", j.systemctl("--no-reload", "enable", p.Name)}}
	case !p.Enabled && p.now.file == "enabled":
		return []change{{"unit " + p.Name + " disable", "no longer starts at boot", j.systemctl("--no-reload", "disable", p.Name)}}
	}
	return nil
}

// unitChanges are the acts on one running unit, in the order they are done.
func (j *job) unitChanges(p *unitPlan) []change {
	if !p.ours {
		return j.feedChanges(p)
	}
	var out []change
	switch {
	case !p.Running && p.now.up():
		out = append(out, change{"unit " + p.Name + " stop", "is " + p.now.active, j.systemctl("stop", p.Name)})
	case p.Running && !p.now.up():
		out = append(out, j.starting(p, "start", "is "+orUnknown(p.now.active)))
	case p.Running && p.inputs != j.state.Units[p.Name]:
		out = append(out, j.starting(p, "restart", "its configuration, unit file or binary changed since it was started"))
	case p.Running && p.reload != j.state.Reloads[p.Name]:
		out = append(out, j.reloading(p))
	}
	return out
}

// feedChanges are for a unit of the system that our files feed: restarted when it runs, left alone when it does not.
func (j *job) feedChanges(p *unitPlan) []change {
	switch {
	case !p.now.up():
		return nil
	case p.inputs != j.state.Units[p.Name]:
		return []change{j.starting(p, "restart", "its configuration changed")}
	case p.reload != j.state.Reloads[p.Name]:
		return []change{j.reloading(p)}
	}
	return nil
}

// starting starts or restarts the unit and then records what it runs with.
func (j *job) starting(p *unitPlan, verb, why string) change {
	return change{"unit " + p.Name + " " + verb, why, func(ctx context.Context) error {
		if p.now.active == "failed" {
			// Clears the start counter; a unit that failed too often would refuse otherwise.
			if err := j.systemctl("reset-failed", p.Name)(ctx); err != nil {
				return err
			}
		}
		if err := j.systemctl(verb, p.Name)(ctx); err != nil {
			return j.unitError(ctx, p.Name, err)
		}
		j.state.Units[p.Name], j.state.Reloads[p.Name] = p.inputs, p.reload
		return j.state.save()
	}}
}

func (j *job) reloading(p *unitPlan) change {
	return change{"unit " + p.Name + " reload", "a file it reads changed", func(ctx context.Context) error {
		if err := j.systemctl("reload-or-restart", p.Name)(ctx); err != nil {
			return j.unitError(ctx, p.Name, err)
		}
		j.state.Reloads[p.Name] = p.reload
		return j.state.save()
	}}
}

func (j *job) systemctl(args ...string) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := j.Runner.Run(ctx, Command{Args: append([]string{"systemctl"}, args...), Timeout: unitTimeout})
		return err
	}
}

// unitError adds the unit's last words to what systemctl said.
func (j *job) unitError(ctx context.Context, unit string, err error) error {
	return &spec.Error{Code: spec.CodeUnhealthy, Message: fmt.Sprintf("%v; last lines of its journal:\n%s", err, j.journal(ctx, unit)),
		Hint: "on the node: journalctl -u " + unit}
}

const journalLines = "20"

func (j *job) journal(ctx context.Context, unit string) string {
	out, err := j.Runner.Run(ctx, Command{Args: []string{"journalctl", "--no-pager", "--quiet", "-o", "cat", "-n", journalLines, "-u", unit}})
	if err != nil {
		return "(no journal: " + err.Error() + ")"
	}
	return strings.TrimSpace(string(out))
}

func orUnknown(s string) string {
	if s == "" {
		return "not known to systemd"
	}
	return s
}
