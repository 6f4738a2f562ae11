package ovh

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"popfleet/provision/provider"
)

// settings are the fields of a server that this driver writes; absent ones stay as they are. "" is how OVH takes null.
type settings struct {
	BootID       *int64  `json:"bootId,omitempty"`
	BootScript   *string `json:"bootScript,omitempty"`
	RescueSSHKey *string `json:"rescueSshKey,omitempty"`
	RescueMail   *string `json:"rescueMail,omitempty"`
	Monitoring   *bool   `json:"monitoring,omitempty"`
}

// met says whether a server already has all of them.
func (s settings) met(m machine) bool {
	return (s.BootID == nil || *s.BootID == m.BootID) &&
		(s.BootScript == nil || *s.BootScript == m.BootScript) &&
		(s.RescueSSHKey == nil || sameKey(*s.RescueSSHKey, m.RescueSSHKey)) &&
		(s.RescueMail == nil || *s.RescueMail == m.RescueMail) &&
		(s.Monitoring == nil || *s.Monitoring == m.Monitoring)
}

// sameKey compares two keys but for the comment.
func sameKey(a, b string) bool {
	x, y := strings.Fields(a), strings.Fields(b)
	return slices.Equal(x[:min(2, len(x))], y[:min(2, len(y))])
}

// EnterRescue sets the rescue system as what boots next, with r.Key, and restarts the machine. Monitoring goes off: a
// machine that answers no ping would bring one of OVH's technicians to it. The host keys are trusted on first use; see
// the package comment.
func (d *Driver) EnterRescue(ctx context.Context, id string, r provider.Restart) (provider.Rescue, error) {
	op := "enter rescue on server " + id
	key := strings.TrimSpace(r.Key.Public)
	if key == "" || strings.ContainsAny(key, "\r\n") {
		return provider.Rescue{}, &Error{Op: op, Err: errors.New("the public key is not one line")}
	}
	m, now, err := d.look(ctx, op, id)
	if err != nil {
		return provider.Rescue{}, err
	}
	rescue, err := d.rescueBoot(ctx, op, id)
	if err != nil {
		return provider.Rescue{}, err
	}
	d.rememberDisk(id, now)
	want := settings{BootID: &rescue, RescueSSHKey: &key, Monitoring: new(false)}
	if m.BootScript != "" {
		want.BootScript = new("") // it would be served instead of the rescue system
	}
	if d.opts.RescueMail != "" {
		want.RescueMail = &d.opts.RescueMail
	}
	if err := d.restartWith(ctx, op, id, r, m, want); err != nil {
		return provider.Rescue{}, err
	}
	return provider.Rescue{Origin: provider.FirstUse}, nil
}

// BootDisk sets the disk as what boots next, takes the rescue key back, and restarts the machine. Monitoring stays off:
// the disk is locked until someone unlocks it, and only who sees the node serve knows when [Driver.Monitor] is due.
func (d *Driver) BootDisk(ctx context.Context, id string, r provider.Restart) error {
	return d.toDisk(ctx, "boot the disk of server "+id, id, r)
}

// Reset restarts the machine from its disk; what a rescue left behind is put right first, for it is sticky at OVH.
func (d *Driver) Reset(ctx context.Context, id string, r provider.Restart) error {
	return d.toDisk(ctx, "reset server "+id, id, r)
}

func (d *Driver) toDisk(ctx context.Context, op, id string, r provider.Restart) error {
	m, now, err := d.look(ctx, op, id)
	if err != nil {
		return err
	}
	want, err := d.diskSettings(ctx, op, id, m, now)
	if err != nil {
		return err
	}
	return d.restartWith(ctx, op, id, r, m, want)
}

// diskSettings are those under which only the disk boots and no key is left.
func (d *Driver) diskSettings(ctx context.Context, op, id string, m machine, now boot) (settings, error) {
	disk, err := d.diskBoot(ctx, op, id, now)
	if err != nil {
		return settings{}, err
	}
	want := settings{BootID: &disk, RescueSSHKey: new(""), BootScript: new("")}
	if m.RescueMail != "" && m.RescueMail == d.opts.RescueMail {
		want.RescueMail = new("")
	}
	return want, nil
}

// look reads a server and the boot that it has set.
func (d *Driver) look(ctx context.Context, op, id string) (machine, boot, error) {
	m, err := d.machine(ctx, op, id)
	if err != nil {
		return m, boot{}, err
	}
	now, err := d.bootOf(ctx, op, id, m.BootID)
	return m, now, err
}

// restartWith writes the settings if the server lacks one, then restarts it: by its own system where that can be asked,
// which netboots like any other start, or by a hardReboot.
func (d *Driver) restartWith(ctx context.Context, op, id string, r provider.Restart, m machine, want settings) error {
	had := want.met(m)
	if !had {
		if err := d.set(ctx, op, id, want); err != nil {
			return err
		}
	}
	if r.Ask != nil && r.Try == 0 && m.PowerState != "poweroff" {
		err := d.ask(ctx, r.Ask)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return explain(op, request{}, context.Cause(ctx))
		}
		say(ctx, "%s: its system does not restart when asked (%v): resetting it", op, err)
	}
	return d.hardReboot(ctx, op, id, had)
}

// askDeadline bounds the question to the machine's own system, at pace 1.
const askDeadline = time.Minute

func (d *Driver) ask(ctx context.Context, ask func(context.Context) error) error {
	limit := d.opts.Pace.Of(askDeadline)
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer in %s: %w", limit, context.DeadlineExceeded))
	defer cancel()
	return ask(ctx)
}

// set writes the settings and reads them back: OVH answers null either way, and has been seen to keep the old boot.
func (d *Driver) set(ctx context.Context, op, id string, want settings) error {
	err := d.call(ctx, op+": set what boots", request{method: "PUT", path: serverPath(id), body: want})
	if err != nil {
		return err
	}
	pause := d.opts.Backoff
	for try := 1; ; try++ {
		m, err := d.machine(ctx, op, id)
		if err != nil || want.met(m) {
			return err
		}
		if try == setTries {
			return &Error{Op: op, Kind: provider.ErrActionFailed, Hint: "set it in OVH's control panel, then run the same command again",
				Err: fmt.Errorf("OVH took the settings but shows others: bootId %d, monitoring %t", m.BootID, m.Monitoring)}
		}
		say(ctx, "%s: OVH does not show the new settings yet", op)
		if err := sleep(ctx, jitter(pause)); err != nil {
			return explain(op, request{}, err)
		}
		pause = min(pause*2, maxPause)
	}
}

const setTries = 6

// Monitor switches OVH's ping monitoring. With it on, a machine that does not answer is visited by a technician, who may
// restart it into a system of his own: switch it on, if at all, when the node serves.
func (d *Driver) Monitor(ctx context.Context, id string, on bool) error {
	op := fmt.Sprintf("set the monitoring of server %s to %t", id, on)
	m, err := d.machine(ctx, op, id)
	if err != nil {
		return err
	}
	want := settings{Monitoring: &on}
	if want.met(m) {
		return nil
	}
	return d.set(ctx, op, id, want)
}
