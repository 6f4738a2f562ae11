package e2e

import (
	"errors"
	"testing"
	"time"

	"popfleet/lab/faults"
	"popfleet/provision/hetznercloud"
	"popfleet/provision/provider"
)

// Every call of the driver, with the answers a bad day brings, as the provider describes every exchange.
func TestDriverAgainstTheLab(t *testing.T) {
	lab, check := checkedLab(t)
	d := labDriver(t, lab)
	for _, f := range []faults.Fault{
		{Kind: faults.Locked, Call: "enable_rescue", Times: 2},
		{Kind: faults.RateLimited, Call: "create_server", Times: 1},
		{Kind: faults.BadGateway, Call: "create_ssh_key", Times: 1},
		{Kind: faults.Unavailable, Call: "start_server", Times: 1},
		{Kind: faults.Conflict, Call: "change_dns_ptr", Times: 1},
		{Kind: faults.ReplyLost, Call: "reset_server", Times: 1},
		{Kind: faults.ActionError, Call: "enable_rescue", Times: 1},
	} {
		lab.Faults.Add(f)
	}
	ctx := t.Context()
	s, err := d.EnsureServer(ctx, hetznercloud.ServerSpec{Name: "fsn-1", ServerType: "cx23", Location: "fsn1", Image: "debian-12",
		Labels: hetznercloud.Labels("demo", "fsn-1", "server.fsn-1")})
	must(t, err)
	for range 2 { // from off by poweron, from running by reset
		must(t, d.EnterRescue(ctx, s.ID, stackKey, "demo-rescue"))
	}
	must(t, d.SetReverse(ctx, s.ID, s.Addr4.String(), "fsn-1.demo.test"))
	must(t, d.BootDisk(ctx, s.ID))
	must(t, d.PowerOff(ctx, s.ID))
	must(t, d.PowerOn(ctx, s.ID))
	acts, err := d.Activity(ctx, s.ID, time.Time{})
	must(t, err)
	if len(acts) < 6 {
		t.Errorf("activity %v", acts)
	}
	must(t, d.Delete(ctx, s.ID))
	if _, ok, err := d.Describe(ctx, "demo", "fsn-1"); ok || err != nil {
		t.Errorf("after delete: %t %v", ok, err)
	}
	if left := lab.Faults.List(); len(left) > 0 {
		t.Errorf("faults that never struck: %+v", left)
	}
	t.Logf("%d exchanges checked", check.Total())
}

func TestNoCapacityIsFinal(t *testing.T) {
	lab, _ := checkedLab(t)
	lab.Faults.Add(faults.Fault{Kind: faults.ResourceUnavailable, Call: "create_server"})
	_, err := labDriver(t, lab).EnsureServer(t.Context(), hetznercloud.ServerSpec{Name: "fsn-1", ServerType: "cx23",
		Location: "fsn1", Image: "debian-12", Labels: hetznercloud.Labels("demo", "fsn-1", "server.fsn-1")})
	if !errors.Is(err, provider.ErrUnavailable) {
		t.Errorf("error %v", err)
	}
}
