package hetznerrobot

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"popfleet/provision/provider"
)

// rung is one way to restart a server.
type rung struct {
	name  string
	asks  bool // over SSH
	press func(context.Context) error
}

// resetOptions is what Robot offers for a server.
type resetOptions struct {
	types  []string
	status bool // Robot knows whether it runs
}

// hardestAgain is how often the hardest way is taken again before the driver says that it is enough: a button can be lost,
// but a server that ignores it thrice needs a person.
const hardestAgain = 2

// BootDisk takes rescue back if it is armed, and restarts. Robot publishes no sign of a start from disk: it returns when
// the restart was accepted.
func (d *Driver) BootDisk(ctx context.Context, id string, r provider.Restart) error {
	op := "boot the disk of server " + id
	n, err := parseNumber(op, id)
	if err != nil {
		return err
	}
	state, err := d.rescueState(ctx, op, n)
	if err != nil && codeOf(err) != codeBootNotAvailable {
		return err
	}
	if state.Active {
		say(ctx, "%s: rescue is armed; taking it back", op)
		if err := d.disarm(ctx, op, n); err != nil {
			return err
		}
	}
	return d.restart(ctx, op, n, r)
}

// Reset restarts the server, and changes nothing of what it starts.
func (d *Driver) Reset(ctx context.Context, id string, r provider.Restart) error {
	op := "reset server " + id
	n, err := parseNumber(op, id)
	if err != nil {
		return err
	}
	return d.restart(ctx, op, n, r)
}

// restart takes the gentlest way that is left and works. A button whose reply was lost counts as pressed: nothing says
// whether it was, pressing it again could cut a start short, and the caller sees on the machine what came of it.
func (d *Driver) restart(ctx context.Context, op string, number int, r provider.Restart) error {
	rungs, err := d.rungs(ctx, op, number, r)
	if err != nil {
		return err
	}
	for i, rung := range rungs {
		say(ctx, "%s: %s", op, rung.name)
		err = rung.press(ctx)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return explain(op, context.Cause(ctx))
		case !rung.asks && mayHaveHappened(err):
			say(ctx, "%s: %v; taking it as done", op, err)
			d.opts.Log.WarnContext(ctx, "reply of a reset lost", "server", number, "way", rung.name, "error", err)
			return nil
		case codeOf(err) == codeResetManual, !rung.asks && !refusedOnly(err):
			return err
		}
		if i+1 < len(rungs) {
			say(ctx, "%s: %s came to nothing (%v)", op, rung.name, err)
		}
	}
	return &provider.Error{Op: op, Kind: provider.ErrCantRestart, Err: err, Hint: "restart it in Robot, or by a technician"}
}

// refusedOnly says that Robot refused this one way, so that another may do.
func refusedOnly(err error) bool {
	code := codeOf(err)
	return code == codeInvalidInput || strings.HasSuffix(code, "_FAILED")
}

// rungs lists the ways to restart from the r.Try-th on, gentlest first. There is always one in it.
func (d *Driver) rungs(ctx context.Context, op string, number int, r provider.Restart) ([]rung, error) {
	offered, off, err := d.resetOptions(ctx, op, number)
	if err != nil && !(codeOf(err) == codeResetMissing && r.Ask != nil) {
		return nil, err
	}
	all := d.ladder(op, number, offered, off)
	if r.Ask != nil && !off {
		all = slices.Insert(all, 0, rung{name: "a restart over SSH", asks: true, press: r.Ask})
	}
	if len(all) == 0 || r.Try >= len(all)+hardestAgain {
		return nil, &provider.Error{Op: op, Kind: provider.ErrCantRestart, Hint: "restart it in Robot, or by a technician",
			Err: fmt.Errorf("%s offered; %d restarts had no effect", list(offered.types), r.Try)}
	}
	return all[min(max(0, r.Try), len(all)-1):], nil
}

// ladder is what buttons there are. A manual reset, a person at the machine, is never one of them.
func (d *Driver) ladder(op string, number int, offered resetOptions, off bool) []rung {
	has := func(t string) bool { return slices.Contains(offered.types, t) }
	button := func(name, kind string) rung {
		return rung{name: name, press: func(ctx context.Context) error { return d.press(ctx, op, number, kind) }}
	}
	var all []rung
	if off { // Ctrl-Alt-Del does nothing to it, and a power button turns it on
		if has("power") {
			all = append(all, button("the power button", "power"))
		}
		if has("hw") {
			all = append(all, button("a hardware reset", "hw"))
		}
		return all
	}
	if has("sw") {
		all = append(all, button("Ctrl-Alt-Del", "sw"))
	}
	if has("hw") {
		all = append(all, button("a hardware reset", "hw"))
	}
	if has("power") && has("power_long") {
		all = append(all, rung{name: "power off and on", press: func(ctx context.Context) error { return d.cycle(ctx, op, number) }})
	}
	return all
}

// press presses one button, once.
func (d *Driver) press(ctx context.Context, op string, number int, kind string) error {
	err := d.callOnce(ctx, op+": "+kind, request{class: classReset, method: http.MethodPost, path: resetPath(number),
		form: url.Values{"type": {kind}}}, nil)
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case err == nil:
		delete(d.manuals, number)
	case codeOf(err) == codeResetManual:
		d.manuals[number] = time.Now()
	}
	return err
}

// cycle holds the power button until the machine is off, and presses it again.
func (d *Driver) cycle(ctx context.Context, op string, number int) error {
	if err := d.press(ctx, op, number, "power_long"); err != nil && !mayHaveHappened(err) {
		return err
	}
	limit := time.Now().Add(d.opts.Pace.Of(30 * time.Second))
	for {
		if err := sleep(ctx, d.opts.Poll); err != nil {
			return err
		}
		offered, off, err := d.readReset(ctx, op, number)
		if err != nil {
			return err
		}
		if off || !offered.status || time.Now().After(limit) {
			return d.press(ctx, op, number, "power")
		}
	}
}

// resetOptions is what Robot offers for the server, read once a run, and whether it is off, read when Robot can tell.
func (d *Driver) resetOptions(ctx context.Context, op string, number int) (resetOptions, bool, error) {
	d.mu.Lock()
	known, ok := d.resets[number]
	d.mu.Unlock()
	if ok && !known.status {
		return known, false, nil
	}
	return d.readReset(ctx, op, number)
}

func (d *Driver) readReset(ctx context.Context, op string, number int) (resetOptions, bool, error) {
	var out resetAnswer
	err := d.call(ctx, op, request{class: classLook, method: http.MethodGet, path: resetPath(number),
		about: strconv.Itoa(number)}, &out)
	if err != nil {
		return resetOptions{}, false, err
	}
	status := string(out.Reset.Status)
	known := resetOptions{types: out.Reset.Types.list, status: status == "running" || status == "stopped"}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.resets[number] = known
	return known, status == "stopped", nil
}

// stopped says whether the machine is off, as far as Robot can tell.
func (d *Driver) stopped(ctx context.Context, op string, number int) (bool, error) {
	_, off, err := d.resetOptions(ctx, op, number)
	if absent(err) || codeOf(err) == codeServerNotFound {
		return false, nil
	}
	return off, err
}

func resetPath(number int) string { return "/reset/" + strconv.Itoa(number) }

func list(words []string) string {
	if len(words) == 0 {
		return "no reset"
	}
	return strings.Join(words, ", ")
}
