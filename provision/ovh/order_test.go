package ovh_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"popfleet/provision/ovh"
	"popfleet/provision/provider"
)

func wish() ovh.Wish {
	return ovh.Wish{PlanCode: "24rise01", Configuration: []ovh.Setting{{Label: "dedicated_datacenter", Value: "gra"},
		{Label: "dedicated_os", Value: "none_64.en"}, {Label: "region", Value: "europe"}},
		Options: []string{"ram-32g", "softraid-2x512nvme"}}
}

func TestAvailability(t *testing.T) {
	f := newFake(t)
	got, err := f.driver(t).Availability(t.Context(), "24rise01", "gra", "rbx", "bhs")
	if err != nil || len(got) != 3 {
		t.Fatalf("stock %+v %v", got, err)
	}
	for i, want := range []time.Duration{time.Hour, 72 * time.Hour, 0} {
		if got[i].Within != want || got[i].Available() != (want > 0) {
			t.Errorf("stock %+v, want within %s", got[i], want)
		}
	}
	if _, err := f.driver(t).Availability(t.Context(), "99none"); !errors.Is(err, provider.ErrNotFound) {
		t.Errorf("unknown plan: %v", err)
	}
}

func TestOrderFromQuoteToServer(t *testing.T) {
	for name, us := range map[string]bool{"eu": false, "us": true} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			if f.orders.us = us; us {
				f.spec = nil // it is Europe's
			}
			d := f.driver(t)
			q := mustQuote(t, d)
			if q.WithTax.String() != "84.00 €" || len(q.Needs) != 0 || len(q.Contracts) != 1 || q.Wish.Duration != "P1M" || len(q.Lines) != 1 {
				t.Errorf("quote %+v", q)
			}
			if len(f.orders.orders) != 0 {
				t.Fatal("asking for the price has ordered")
			}
			cart := f.orders.carts[q.Cart]
			if len(cart.items) != 3 || len(cart.settings) != 3 || !cart.assigned {
				t.Errorf("cart %+v", cart)
			}
			o, err := d.Place(t.Context(), q)
			if err != nil || o.ID == 0 || o.URL == "" {
				t.Fatalf("order %+v %v", o, err)
			}
			for range 2 {
				if err := d.Pay(t.Context(), o, q); err != nil {
					t.Fatal(err)
				}
			}
			got, err := d.Delivered(t.Context(), o, "24rise01")
			if err != nil || got != "ns9.ip-192-0-2.eu" || f.orders.paid != 1 || len(f.orders.orders) != 1 {
				t.Errorf("server %q %v, paid %d times, %d orders", got, err, f.orders.paid, len(f.orders.orders))
			}
		})
	}
}

func mustQuote(t *testing.T, d *ovh.Driver) ovh.Quote {
	t.Helper()
	q, err := d.Quote(t.Context(), wish())
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func TestALostReplyToTheOrderIsNeverAnsweredWithAnother(t *testing.T) {
	for name, status := range map[string]func(http.ResponseWriter){"cut": cut, "500": status(500)} {
		t.Run("arrived, "+name, func(t *testing.T) {
			f := newFake(t)
			d := f.driver(t)
			q := mustQuote(t, d)
			f.orders.add(object{"value": 84.0, "currencyCode": "EUR", "text": ""}) // a stranger's of the same price, before
			f.orders.orders[9000]["date"] = time.Now().Add(-time.Hour).Format(time.RFC3339)
			f.after = once("POST", "/checkout")
			o, err := d.Place(t.Context(), q)
			if err != nil || o.ID != 9001 || f.count("POST", "/checkout") != 1 {
				t.Fatalf("order %+v %v after %d posts", o, err, f.count("POST", "/checkout"))
			}
		})
		t.Run("never arrived, "+name, func(t *testing.T) {
			f := newFake(t)
			d := f.driver(t, func(o *ovh.Options) { o.Pace = 0.0001 })
			q := mustQuote(t, d)
			f.before = failing(-1, "POST", "/checkout", status)
			_, err := d.Place(t.Context(), q)
			if !errors.Is(err, ovh.ErrUnclear) || !strings.Contains(err.Error(), "control panel") || f.count("POST", "/checkout") != 1 {
				t.Errorf("error %v after %d posts", err, f.count("POST", "/checkout"))
			}
		})
	}
}

// The tool was killed after the order and before it knew; the quote was kept.
func TestAKilledOrderIsFoundAgain(t *testing.T) {
	for name, hide := range map[string]bool{"the cart says so": false, "the cart is open for OVH": true} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			q := mustQuote(t, f.driver(t))
			kept, _ := json.Marshal(q)
			if _, err := f.driver(t).Place(t.Context(), q); err != nil {
				t.Fatal(err)
			}
			f.edit(func(*fakeServer) { f.orders.carts[q.Cart].sold = !hide })
			var again ovh.Quote
			if err := json.Unmarshal(kept, &again); err != nil {
				t.Fatal(err)
			}
			o, err := f.driver(t).Place(t.Context(), again)
			if err != nil || o.ID != 9000 || len(f.orders.orders) != 1 {
				t.Errorf("order %+v %v of %d", o, err, len(f.orders.orders))
			}
		})
	}
}

func TestTwoServersAtOnceAreTwoOrders(t *testing.T) {
	f := newFake(t)
	d := f.driver(t)
	quotes := []ovh.Quote{mustQuote(t, d), mustQuote(t, d)}
	ids := make([]int64, 2)
	var wg sync.WaitGroup
	for i, q := range quotes {
		wg.Go(func() {
			o, err := d.Place(t.Context(), q)
			if err != nil {
				t.Error(err)
			}
			ids[i] = o.ID
		})
	}
	wg.Wait()
	if ids[0] == ids[1] || len(f.orders.orders) != 2 {
		t.Errorf("orders %v of %d", ids, len(f.orders.orders))
	}
}

func TestTwoOrdersThatLookLikeItAreNotGuessedBetween(t *testing.T) {
	f := newFake(t)
	q := mustQuote(t, f.driver(t))
	for range 2 {
		f.orders.add(object{"value": 84.0, "currencyCode": "EUR", "text": ""})
	}
	if _, err := f.driver(t).Place(t.Context(), q); !errors.Is(err, ovh.ErrUnclear) || f.count("POST", "/checkout") != 0 {
		t.Errorf("error %v after %d posts", err, f.count("POST", "/checkout"))
	}
}

func TestWhatStopsAnOrder(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(*fakeOrders)
		kind error
		says string
	}{
		"no payment method": {edit: func(o *fakeOrders) { o.payments = []int64{} }, says: "default payment method"},
		"another price":     {edit: func(o *fakeOrders) { o.price = 70 }, kind: ovh.ErrPriceChanged, says: "was 84.00 € and is 96.00 €"},
		"cart expired":      {edit: func(o *fakeOrders) { clear(o.carts) }, kind: provider.ErrNotFound, says: "ask for the price again"},
		"refused":           {edit: func(o *fakeOrders) { o.carts[cartOf(o)].assigned = false }, says: "cannot be ordered"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			d := f.driver(t)
			if strings.HasPrefix(name, "no pay") {
				c.edit(f.orders)
			}
			q := mustQuote(t, d)
			f.edit(func(*fakeServer) { c.edit(f.orders) })
			_, err := d.Place(t.Context(), q)
			if err == nil || !strings.Contains(err.Error(), c.says) || c.kind != nil && !errors.Is(err, c.kind) {
				t.Errorf("error %v, want %v with %q", err, c.kind, c.says)
			}
			if len(f.orders.orders) != 0 {
				t.Error("something was ordered")
			}
		})
	}
}

func cartOf(o *fakeOrders) string {
	for id := range o.carts {
		return id
	}
	return ""
}

func TestACartWithALostReplyIsFilledAnew(t *testing.T) {
	for _, suffix := range []string{"/order/cart", "/assign", "/baremetalServers", "/configuration", "/options"} {
		t.Run(suffix, func(t *testing.T) {
			f := newFake(t)
			f.after = once("POST", suffix)
			q, err := f.driver(t).Quote(t.Context(), wish())
			if err != nil || q.WithTax.String() != "84.00 €" || len(f.orders.carts[q.Cart].items) != 3 {
				t.Errorf("quote %+v %v", q, err)
			}
			if n := len(f.orders.carts); n != 1 && suffix != "/order/cart" { // nobody knows the number of that one
				t.Errorf("%d carts are left", n)
			}
		})
	}
}

func TestABadWish(t *testing.T) {
	f := newFake(t)
	d := f.driver(t)
	if _, err := d.Quote(t.Context(), ovh.Wish{}); err == nil || !strings.Contains(err.Error(), "no plan code") {
		t.Errorf("error %v", err)
	}
	w := wish()
	w.Range = "../../me"
	if _, err := d.Quote(t.Context(), w); err == nil || len(f.calls) != 0 {
		t.Errorf("error %v after %d calls", err, len(f.calls))
	}
}

func TestPayment(t *testing.T) {
	for name, c := range map[string]struct {
		lose  bool
		drop  bool
		price float64
		fails bool
		path  string
	}{
		"reply lost":    {lose: true, price: 60, path: "/pay"},
		"never arrived": {drop: true, price: 60, fails: true, path: "/pay"},
		"free":          {price: -10, path: "/payWithRegisteredPaymentMean"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.orders.price = c.price
			d := f.driver(t, func(o *ovh.Options) { o.Pace = 0.0001 })
			q := mustQuote(t, d)
			o, err := d.Place(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			if c.lose {
				f.after = once("POST", c.path)
			}
			if c.drop {
				f.before = failing(-1, "POST", c.path, cut)
			}
			err = d.Pay(t.Context(), o, q)
			if (err != nil) != c.fails || c.fails && !strings.Contains(err.Error(), o.URL) {
				t.Errorf("error %v", err)
			}
			if n := f.count("POST", c.path); n != 1 {
				t.Errorf("%d payments sent, want 1", n)
			}
		})
	}
}

func TestDelivery(t *testing.T) {
	for name, c := range map[string]struct {
		status []string
		domain string
		kind   error
		says   string
	}{
		"all the way":    {status: []string{"notPaid", "checking", "documentsRequested", "delivering", "delivered"}, domain: "ns9.ip-192-0-2.eu"},
		"cancelled":      {status: []string{"checking", "cancelled"}, kind: provider.ErrActionFailed, says: "cancelled"},
		"too late":       {status: []string{"documentsRequested"}, kind: provider.ErrTimeout, says: "send them at"},
		"no name, never": {status: []string{"delivered"}, domain: "*", kind: provider.ErrTimeout, says: "name yet"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.orders.domain = c.domain
			id := f.orders.add(object{"value": 84.0, "currencyCode": "EUR", "text": ""})
			f.orders.status[id] = c.status
			d := f.driver(t, func(o *ovh.Options) {
				if c.kind == provider.ErrTimeout {
					o.Pace = 0.00002
				}
			})
			got, err := d.Delivered(t.Context(), ovh.Order{ID: id, URL: "https://example.org/o"}, "24rise01")
			if c.kind == nil {
				if err != nil || got != c.domain {
					t.Errorf("server %q %v", got, err)
				}
				return
			}
			if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, want %v with %q", err, c.kind, c.says)
			}
		})
	}
}

func TestDiscard(t *testing.T) {
	f := newFake(t)
	d := f.driver(t)
	q := mustQuote(t, d)
	for range 2 {
		if err := d.Discard(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	if len(f.orders.carts) != 0 {
		t.Error("the cart is left")
	}
}
