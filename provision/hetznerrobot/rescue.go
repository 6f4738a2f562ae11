package hetznerrobot

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"popfleet/provision/provider"
)

// How long a restart may take to show a new rescue system: 80 s are usual and five and a half minutes were seen. One that
// was asked for over SSH and answered with an error has likely not begun; a machine that published its start publishes
// its host keys with it or soon after.
const (
	bootPatience  = 7 * time.Minute
	askedPatience = 2 * time.Minute
	keysPatience  = time.Minute
)

// EnterRescue arms the rescue system for r.Key, restarts the server, and returns when Robot publishes the host keys of a
// rescue system that started after that. A start time that does not change means that the restart was lost: rescue is
// armed again and the next harder way is tried, from SSH to the power button. A person is never asked to press it.
func (d *Driver) EnterRescue(ctx context.Context, id string, r provider.Restart) (provider.Rescue, error) {
	op := "enter rescue on server " + id
	n, err := parseNumber(op, id)
	if err != nil {
		return provider.Rescue{}, err
	}
	key, err := d.ensureKey(ctx, op, r.Key)
	if err != nil {
		return provider.Rescue{}, err
	}
	e := &entry{Driver: d, op: op, number: n, key: key}
	before, err := d.lastRescue(ctx, op, n) // before anything restarts
	if err != nil {
		return provider.Rescue{}, err
	}
	e.before = before.BootTime
	rungs, err := d.rungs(ctx, op, n, r)
	if err != nil {
		return provider.Rescue{}, err
	}
	return e.climb(ctx, rungs)
}

// entry is one EnterRescue under way.
type entry struct {
	*Driver
	op     string
	number int
	key    string     // MD5
	before nullString // when the last rescue system started before we began
	tried  []string
}

func (e *entry) climb(ctx context.Context, rungs []rung) (provider.Rescue, error) {
	var last error
	for i, rung := range rungs {
		if err := e.arm(ctx, i > 0); err != nil {
			return provider.Rescue{}, err
		}
		found, err := e.step(ctx, rung)
		if err == nil {
			return found, nil
		}
		if !errors.Is(err, errNext) {
			return provider.Rescue{}, err
		}
		last = err
		e.tried = append(e.tried, rung.name)
		if i+1 < len(rungs) {
			say(ctx, "%s: %v; next: %s", e.op, err, rungs[i+1].name)
		}
		e.opts.Log.WarnContext(ctx, "no rescue", "server", e.number, "way", rung.name, "error", err)
	}
	return provider.Rescue{}, &provider.Error{Op: e.op, Kind: provider.ErrNoRescue,
		Err:  fmt.Errorf("tried %s; %w", strings.Join(e.tried, ", then "), last),
		Hint: "look at the machine's screen (Robot: Support, Remote console), or name another server: some never reach rescue"}
}

// errNext says that a way to restart came to nothing and a harder one may help.
var errNext = errors.New("the restart had no effect")

func (e *entry) step(ctx context.Context, rung rung) (provider.Rescue, error) {
	start := time.Now()
	patience := e.opts.Pace.Of(bootPatience)
	if err := rung.press(ctx); err != nil {
		switch {
		case ctx.Err() != nil:
			return provider.Rescue{}, explain(e.op, context.Cause(ctx))
		case rung.asks:
			patience = e.opts.Pace.Of(askedPatience)
			say(ctx, "%s: %v; looking whether it restarts all the same", e.op, err)
		case mayHaveHappened(err):
			say(ctx, "%s: %v; looking whether it restarts all the same", e.op, err)
		case codeOf(err) == codeResetManual, !refusedOnly(err):
			return provider.Rescue{}, err
		default:
			return provider.Rescue{}, fmt.Errorf("%w: %w", errNext, err)
		}
	}
	found, err := e.awaitBoot(ctx, rung, patience)
	if err == nil {
		e.boots.learn(time.Since(start))
	}
	return found, err
}

// arm makes the next start a rescue system for our key. The first time, whatever is armed is taken back: what a second
// activation does is not documented. Later, and after a reply that was lost, what is ours is left as it is.
func (e *entry) arm(ctx context.Context, keep bool) error {
	const rounds = 4
	var last error
	for round := 0; round < rounds; round++ {
		state, err := e.rescueState(ctx, e.op, e.number)
		if err != nil {
			return err
		}
		mine := state.Active && holds(state.Authorized, e.key) && !vkvm(state)
		if mine && (keep || round > 0) {
			return nil
		}
		if state.Active {
			whose := "it is not ours"
			if mine || e.ours(state.Authorized) && !vkvm(state) {
				whose = "an earlier run of ours left it"
			}
			say(ctx, "%s: rescue is armed already (%s); taking it back first", e.op, whose)
			e.opts.Log.InfoContext(ctx, "rescue was armed", "server", e.number, "ours", whose != "it is not ours")
			if err := e.disarm(ctx, e.op, e.number); err != nil {
				return err
			}
		}
		if last = e.activate(ctx); last == nil {
			return nil
		}
		if codeOf(last) == codeInvalidInput { // the key may have been deleted meanwhile: the next run looks for it again
			e.setHeld(e.key, false)
		}
		if ctx.Err() != nil || !mayHaveHappened(last) {
			return last
		}
		say(ctx, "%s: %v; looking whether rescue is armed all the same", e.op, last)
		if err := sleep(ctx, jitter(e.opts.Backoff)); err != nil {
			return explain(e.op, err)
		}
	}
	return last
}

func (e *entry) activate(ctx context.Context) error {
	var out rescue
	return e.callOnce(ctx, e.op, request{class: classBoot, method: http.MethodPost, path: bootPath(e.number, "/rescue"),
		about: strconv.Itoa(e.number), form: url.Values{"os": {"linux"}, "authorized_key[]": {e.key}}}, &out)
}

func vkvm(s rescueState) bool { return s.OS.single && s.OS.list[0] == "vkvm" }

// disarm takes back what is armed; nothing armed is no error.
func (d *Driver) disarm(ctx context.Context, op string, number int) error {
	var out rescue
	op += ": deactivate rescue"
	err := d.call(ctx, op, request{class: classBoot, method: http.MethodDelete, path: bootPath(number, "/rescue"),
		about: strconv.Itoa(number)}, &out)
	switch {
	case absent(err):
		return nil
	case err == nil && out.Rescue.Active:
		return &provider.Error{Op: op, Err: errors.New("it is active still"), Hint: "look in Robot what is armed for this server"}
	}
	return err
}

func (d *Driver) rescueState(ctx context.Context, op string, number int) (rescueState, error) {
	var out rescue
	err := d.call(ctx, op, request{class: classBoot, method: http.MethodGet, path: bootPath(number, "/rescue"),
		about: strconv.Itoa(number)}, &out)
	return out.Rescue, err
}

// lastRescue is the rescue system that started last; the zero value when there never was one.
func (d *Driver) lastRescue(ctx context.Context, op string, number int) (rescueState, error) {
	var out rescue
	err := d.call(ctx, op, request{class: classBoot, method: http.MethodGet, path: bootPath(number, "/rescue/last"),
		about: strconv.Itoa(number)}, &out)
	if absent(err) {
		return rescueState{}, nil
	}
	return out.Rescue, err
}

func bootPath(number int, tail string) string { return "/boot/" + strconv.Itoa(number) + tail }
