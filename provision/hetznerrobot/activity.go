package hetznerrobot

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"popfleet/provision/provider"
)

// Activity says which rescue system started last, if that was since then, and what is armed for the next start. Robot
// keeps no log: what was armed and taken back again leaves no trace. A manual reset cannot be read either; it is told when
// one of our own resets was refused for it.
func (d *Driver) Activity(ctx context.Context, id string, since time.Time) ([]provider.Activity, error) {
	op := "look what happened to server " + id
	n, err := parseNumber(op, id)
	if err != nil {
		return nil, err
	}
	last, err := d.lastRescue(ctx, op, n)
	if err != nil {
		return nil, err
	}
	var armedNow boot
	err = d.call(ctx, op, request{class: classBoot, method: http.MethodGet, path: bootPath(n, ""), about: id}, &armedNow)
	if err != nil && codeOf(err) != codeBootNotAvailable {
		return nil, err
	}
	out := d.started(last, since)
	out = append(out, d.manual(n, since)...)
	slices.SortStableFunc(out, func(a, b provider.Activity) int { return cmp.Compare(a.At.UnixNano(), b.At.UnixNano()) })
	return append(out, d.armed(armedNow)...), nil
}

// started is the last rescue system. A start whose time cannot be read is told too, and so is one in the second of since,
// which Robot's times cut: better one too many than one overlooked.
func (d *Driver) started(last rescueState, since time.Time) []provider.Activity {
	if last.BootTime == "" {
		return nil
	}
	at, err := parseTime(string(last.BootTime), d.zone)
	if err == nil && at.Before(since.Truncate(time.Second)) {
		return nil
	}
	if err != nil {
		at = since
	}
	what := "rescue started at " + printable(string(last.BootTime), 30)
	if vkvm(last) {
		what = "vkvm started at " + printable(string(last.BootTime), 30)
	}
	return []provider.Activity{{At: at, Ref: "rescue " + printable(string(last.BootTime), 30), What: what, Risky: true}}
}

func (d *Driver) manual(number int, since time.Time) []provider.Activity {
	d.mu.Lock()
	defer d.mu.Unlock()
	at, ok := d.manuals[number]
	if !ok || at.Before(since) {
		return nil
	}
	return []provider.Activity{{At: at, What: "a technician works on a manual reset", Risky: true}}
}

// armed lists what the next start would be if it were now. Everything but a rescue system for the fleet's own key puts a
// foreign system in front of the disk, and an installation overwrites it.
func (d *Driver) armed(b boot) []provider.Activity {
	var out []provider.Activity
	if r := b.Boot.Rescue; r != nil && r.Active {
		kind := "rescue"
		if vkvm(*r) {
			kind = "vkvm"
		}
		out = append(out, provider.Activity{What: kind + " active", Risky: kind == "vkvm" || !d.ours(r.Authorized)})
	}
	for _, in := range []struct {
		name string
		at   *armed
	}{{"linux", b.Boot.Linux}, {"vnc", b.Boot.VNC}, {"windows", b.Boot.Windows}, {"plesk", b.Boot.Plesk}, {"cpanel", b.Boot.CPanel}} {
		if in.at != nil && in.at.Active {
			out = append(out, provider.Activity{What: fmt.Sprintf("%s installation active", in.name), Risky: true})
		}
	}
	return out
}
