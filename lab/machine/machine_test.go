package machine

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"popfleet/lab/faults"
)

func TestStruck(t *testing.T) {
	names := []string{"321", "demo-fsn-1", "198.19.0.2"}
	for _, c := range []struct {
		fault faults.Fault
		boot  Boot
		ok    func(Boot) bool
	}{
		{faults.Fault{Kind: faults.BootHangs}, Boot{}, func(b Boot) bool { return b.Hangs }},
		{faults.Fault{Kind: faults.RescueNever}, Boot{Rescue: true}, func(b Boot) bool { return b.Hangs }},
		{faults.Fault{Kind: faults.RescueNever}, Boot{}, func(b Boot) bool { return !b.Hangs }},
		{faults.Fault{Kind: faults.RescueSlow, For: faults.Duration(time.Second)}, Boot{Rescue: true}, func(b Boot) bool { return b.Late == time.Second }},
		{faults.Fault{Kind: faults.RescueSlow}, Boot{Rescue: true}, func(b Boot) bool { return b.Late == slowRescue }},
		{faults.Fault{Kind: faults.RescueSlow}, Boot{}, func(b Boot) bool { return b.Late == 0 }},
		{faults.Fault{Kind: faults.DiskMissing, Disk: 1}, Boot{}, func(b Boot) bool { return slices.Equal(b.MissingDisks, []int{1}) }},
		{faults.Fault{Kind: faults.DisksSwapped, Machine: "demo-fsn-1"}, Boot{}, func(b Boot) bool { return b.SwapDisks }},
		{faults.Fault{Kind: faults.DisksSwapped, Machine: "322"}, Boot{}, func(b Boot) bool { return !b.SwapDisks }},
	} {
		var set faults.Set
		set.MustAdd(c.fault)
		if got := c.boot.Struck(&set, names); !c.ok(got) || got.Rescue != c.boot.Rescue {
			t.Errorf("%+v of %+v: %+v", c.fault, c.boot, got)
		}
	}
	if got := (Boot{Rescue: true}).Struck(nil, names); got.Hangs || got.Late != 0 {
		t.Errorf("without faults: %+v", got)
	}
}

func TestInfoHas(t *testing.T) {
	i := Info{ID: "321", Address: netip.MustParseAddr("198.19.0.2"), Prefix6: netip.MustParsePrefix("2001:db8:2:1::/64")}
	for addr, want := range map[string]bool{"198.19.0.2": true, "198.19.0.3": false, "2001:db8:2:1::1": true, "2001:db8:2:2::1": false} {
		if i.Has(netip.MustParseAddr(addr)) != want {
			t.Errorf("%s: want %v", addr, want)
		}
	}
	if (Info{}).Has(netip.MustParseAddr("::1")) {
		t.Error("a machine without addresses has one")
	}
}
