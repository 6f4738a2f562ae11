package ovh_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"popfleet/provision/ovh"
)

// Every call of an order, with every fault: it goes through or stops with a reason, and comes to its end when a person
// runs it again with the same quote. Never is there a second order or a second payment.
func TestEveryCallOfAnOrderMayFailOnce(t *testing.T) {
	f := newFake(t)
	if err := buy(t, f, fault{}, -1, nil); err != nil {
		t.Fatal(err)
	}
	calls := f.calls
	var stopped atomic.Int32
	t.Cleanup(func() {
		t.Logf("%d runs: %d calls, each with %d faults; %d stopped and were run again",
			len(calls)*len(faults), len(calls), len(faults), stopped.Load())
	})
	for name, fault := range faults {
		for n, call := range calls {
			t.Run(fmt.Sprintf("%s of call %d", name, n+1), func(t *testing.T) {
				t.Parallel()
				if name == "time" && strings.HasSuffix(call, "/auth/time") {
					t.Skip("the one call without a signature")
				}
				f := newFake(t)
				f.spec = nil // the run without faults is held against it
				var kept ovh.Quote
				err := buy(t, f, fault, n, &kept)
				if err != nil {
					stopped.Add(1)
					if kept.Cart == "" {
						t.Fatalf("there is no price: %v", err)
					}
					if err = buy(t, f, fault, -1, &kept); err != nil {
						t.Errorf("when run again: %v", err)
					}
				}
				if len(f.orders.orders) != 1 || f.orders.paid != 1 {
					t.Errorf("%d orders, %d payments", len(f.orders.orders), f.orders.paid)
				}
			})
		}
	}
}

// buy runs an order as the CLI does, with a driver of its own; kept is the quote that outlives it.
func buy(t *testing.T, f *fake, fault fault, nth int, kept *ovh.Quote) error {
	seen := -1
	f.edit(func(*fakeServer) {
		f.before = func(w http.ResponseWriter, r *http.Request) bool {
			if seen++; seen != nth || fault.before == nil {
				return false
			}
			fault.before(w)
			return true
		}
		f.after = func(*http.Request) bool { return fault.after && seen == nth }
	})
	d := f.driver(t, func(o *ovh.Options) { o.CallTimeout, o.Pace = 100*time.Millisecond, 0.001 })
	if kept == nil {
		kept = &ovh.Quote{}
	}
	if kept.Cart == "" {
		q, err := d.Quote(t.Context(), wish())
		if err != nil {
			return err
		}
		*kept = q
	}
	o, err := d.Place(t.Context(), *kept)
	if err != nil {
		return err
	}
	if err := d.Pay(t.Context(), o, *kept); err != nil {
		return err
	}
	got, err := d.Delivered(t.Context(), o, kept.Wish.PlanCode)
	if err == nil && got != "ns9.ip-192-0-2.eu" {
		t.Errorf("server %q", got)
	}
	return err
}
