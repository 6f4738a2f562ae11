package ovh

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"popfleet/provision/provider"
)

// harmless are the tasks that put no other system in front of the disk and no other machine at the address. All others
// are risky, those included that OVH invents tomorrow. hardReboot is risky: a boot that was set to rescue and back leaves
// no other trace at OVH than the two reboots. Who did them is for the caller to know, by what it did itself and when.
var harmless = []string{
	"addWindowSplaFromExistingSerial", "applyBackupFtpAcls", "applyBackupFtpQuota", "bypassAntiDDosGame",
	"changePasswordBackupFTP", "changeRipeOrg", "createBackupFTP", "createOrUpdateRipeOrg", "createPrivateNetwork",
	"disableFirewall", "enableFirewall", "migrateBackupFTP", "removeBackupFTP",
	"testIPMIhttp", "testIPMIpassword", "testIPMIping",
}

const (
	// olderInRow ends the walk back through ids, which rise with time but for clocks and schedules.
	olderInRow = 5
	// mostRead bounds the walk; a server has a handful of tasks a month.
	mostRead = 100
)

// Activity lists the tasks and interventions since then by our clock, oldest first, and after them, without a time, what holds now:
// a state that is not ok, a boot that is not the disk, an iPXE script, a rescue key.
func (d *Driver) Activity(ctx context.Context, id string, since time.Time) ([]provider.Activity, error) {
	op := "list the activity of server " + id
	m, now, err := d.look(ctx, op, id)
	if err != nil {
		return nil, err
	}
	since = d.clock.theirs(since)
	out, err := d.taskActivity(ctx, op, id, since)
	if err != nil {
		return nil, err
	}
	interventions, err := d.interventions(ctx, op, id, since)
	if err != nil {
		return nil, err
	}
	out = append(out, interventions...)
	slices.SortStableFunc(out, byTime)
	return append(out, states(m, now)...), nil
}

// byTime puts what has no time last: it holds now.
func byTime(a, b provider.Activity) int {
	switch {
	case a.At.IsZero() == b.At.IsZero():
		return a.At.Compare(b.At)
	case a.At.IsZero():
		return 1
	}
	return -1
}

// states are what is armed for the next start, and what else is not as it should be.
func states(m machine, now boot) []provider.Activity {
	var out []provider.Activity
	add := func(risky bool, format string, args ...any) {
		out = append(out, provider.Activity{What: fmt.Sprintf(format, args...), Risky: risky})
	}
	if m.State != "ok" {
		add(true, "state=%s", printable(m.State, 40))
	}
	switch {
	case m.BootID == 0:
		add(true, "bootId=null")
	case now.Type == "":
		add(true, "bootId=%d (unknown)", m.BootID)
	case now.Type != "harddisk":
		add(true, "bootId=%s", printable(now.Type, 40))
	}
	if m.BootScript != "" {
		add(true, "bootScript=set")
	}
	if m.RescueSSHKey != "" {
		add(false, "rescueSshKey=set") // lets nobody in unless rescue boots
	}
	return out
}

func (d *Driver) taskActivity(ctx context.Context, op, id string, since time.Time) ([]provider.Activity, error) {
	ids, err := d.tasks(ctx, op, id, "")
	if err != nil {
		return nil, err
	}
	fresh := true // until one could be read: its region does not show a fresh task, and OVH forgets old ones
	return newest(ids, "tasks", func(n int64) (provider.Activity, bool, error) {
		t, err := d.task(ctx, op, id, n)
		if errors.Is(err, provider.ErrNotFound) {
			return provider.Activity{Ref: strconv.FormatInt(n, 10), What: "a task that is not shown yet", Risky: true}, fresh, nil
		}
		fresh = false
		a := provider.Activity{At: d.clock.ours(t.Start), Ref: strconv.FormatInt(n, 10), What: printable(t.Function, 80),
			Risky: !slices.Contains(harmless, t.Function)}
		recent := !t.over() || !t.Start.Before(since) || !t.Done.Before(since)
		return a, recent, err
	})
}

func (d *Driver) interventions(ctx context.Context, op, id string, since time.Time) ([]provider.Activity, error) {
	var ids []int64
	if err := d.get(ctx, op+": list its interventions", serverPath(id)+"/intervention", &ids); err != nil {
		return nil, err
	}
	slices.Sort(ids)
	return newest(ids, "interventions", func(n int64) (provider.Activity, bool, error) {
		var v struct {
			Date time.Time `json:"date"`
			Type string    `json:"type"`
		}
		err := d.get(ctx, fmt.Sprintf("%s: intervention %d", op, n), fmt.Sprintf("%s/intervention/%d", serverPath(id), n), &v)
		a := provider.Activity{At: d.clock.ours(v.Date), Ref: "intervention/" + strconv.FormatInt(n, 10),
			What: "intervention " + printable(v.Type, 80), Risky: true}
		return a, v.Date.IsZero() || !v.Date.Before(since), err
	})
}

// newest reads backwards from the highest id until several in a row are too old.
func newest(ids []int64, what string, read func(int64) (provider.Activity, bool, error)) ([]provider.Activity, error) {
	var out []provider.Activity
	older := 0
	for i, n := range slices.Backward(ids) {
		if older == olderInRow {
			break
		}
		if len(ids)-i > mostRead {
			return append(out, provider.Activity{What: fmt.Sprintf("more than %d %s", mostRead, what), Risky: true}), nil
		}
		a, recent, err := read(n)
		if err != nil {
			return nil, err
		}
		if older++; recent {
			out, older = append(out, a), 0
		}
	}
	return out, nil
}
