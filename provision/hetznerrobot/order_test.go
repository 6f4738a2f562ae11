package hetznerrobot

import (
	"context"
	"encoding/json"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"popfleet/provision/provider"
)

func order(t *testing.T) Order {
	t.Helper()
	key, err := NewOrderKey("demo-fsn-2-order")
	if err != nil {
		t.Fatal(err)
	}
	return Order{Product: "EX44", Location: "FSN1", IPv4: true, Key: key}
}

func market(t *testing.T) Order {
	o := order(t)
	o.Market, o.Product, o.Location = true, "282323", ""
	return o
}

// bought is how many orders the fake has taken.
func (w world) bought() int { return len(w.orders["server"]) + len(w.orders["server_market"]) }

func TestProducts(t *testing.T) {
	in(t, func(t *testing.T, w world) {
		standard, err := w.d.Products(w.ctx, false)
		if err != nil || len(standard) != 1 || standard[0].ID != "EX44" || standard[0].Prices[1].Net.Monthly.String() != "52.00 €" {
			t.Fatalf("%+v, %v", standard, err)
		}
		auction, err := w.d.Products(w.ctx, true)
		if err != nil || len(auction) != 1 || auction[0].ID != "282323" || auction[0].Prices[0].Gross.Monthly.String() != "34.00 €" {
			t.Fatalf("%+v, %v", auction, err)
		}
	})
}

func TestAvailability(t *testing.T) {
	in(t, func(t *testing.T, w world) {
		for _, c := range []struct {
			o    Order
			want bool
			why  string
		}{
			{o: Order{Product: "EX44", Location: "FSN1", IPv4: true}, want: true},
			{o: Order{Product: "EX44", Location: "NBG1"}, want: true},
			{o: Order{Product: "EX44", Location: "HEL1"}, why: "it is at FSN1, NBG1"},
			{o: Order{Product: "EX44"}, why: "needs a location"},
			{o: Order{Product: "EX44", Location: "NBG1", IPv4: true}, why: "without an IPv4 address"},
			{o: Order{Product: "EX45", Location: "FSN1"}, why: "not on offer now"},
			{o: Order{Market: true, Product: "282323", IPv4: true}, want: true},
			{o: Order{Market: true, Product: "282324"}, why: "not on offer now"},
		} {
			got, err := w.d.Availability(w.ctx, c.o)
			if err != nil || got.Offered != c.want || !strings.Contains(got.Why, c.why) || c.want != (got.Why == "") {
				t.Errorf("%+v: %+v, %v", c.o, got, err)
			}
		}
		for _, o := range []Order{{}, {Product: ".."}, {Product: "a\nb"}, {Market: true, Product: "1", Location: "FSN1"}} {
			if _, err := w.d.Availability(w.ctx, o); err == nil {
				t.Errorf("%+v is accepted", o)
			}
		}
	})
}

func TestPreviewOrdersNothing(t *testing.T) {
	in(t, func(t *testing.T, w world) {
		q, err := w.d.Preview(w.ctx, order(t))
		if err != nil || q.Net.Monthly.String() != "51.28 €" || q.Net.Setup.String() != "41.18 €" || q.Net.Hourly.String() != "0.0822 €" ||
			q.Location != "FSN1" || !strings.Contains(q.Term, "by the hour") || !strings.Contains(q.Test, "accepted") {
			t.Fatalf("%+v, %v", q, err)
		}
		m, err := w.d.Preview(w.ctx, market(t))
		if err != nil || m.Net.Monthly.String() != "30.27 €" || m.Location != "FSN1-DC4" || !strings.Contains(m.Term, "by the month") || m.Net.Hourly != 0 {
			t.Fatalf("%+v, %v", m, err)
		}
		if w.bought() != 0 {
			t.Error("a preview ordered")
		}
	})
}

// TestPlace is every way in which an order can go, and that it is never made twice.
func TestPlace(t *testing.T) {
	for _, c := range []struct {
		name   string
		fault  func(w world)
		bought int
		ok     bool
		kind   error
		text   string
	}{
		{name: "goes through", bought: 1, ok: true},
		{name: "reply lost", fault: func(w world) { w.once("POST /order", fault{cut: io.EOF, after: true}) }, bought: 1, ok: true},
		{name: "hangs and did it", fault: func(w world) { w.once("POST /order", fault{hang: true, after: true}) }, bought: 1, ok: true},
		{name: "502 and did it", fault: func(w world) { w.once("POST /order", fault{status: 502, after: true}) }, bought: 1, ok: true},
		{name: "internal error and did it", fault: func(w world) {
			w.once("POST /order", fault{status: 500, code: "INTERNAL_ERROR", after: true})
		}, bought: 1, ok: true},
		{name: "answers nonsense and did it", fault: func(w world) { w.once("POST /order", fault{body: "<html>", after: true}) }, bought: 1, ok: true},
		{name: "answers no id and did it", fault: func(w world) { w.once("POST /order", fault{body: `{"transaction":{}}`, after: true}) }, bought: 1, ok: true},
		{name: "hangs and did not", fault: func(w world) { w.once("POST /order", fault{hang: true}) }, kind: provider.ErrAmbiguous, text: "not known"},
		{name: "503 and did not", fault: func(w world) { w.once("POST /order", fault{status: 503}) }, kind: provider.ErrAmbiguous, text: "before you order again"},
		{name: "refused", fault: func(w world) { w.once("POST /order", fault{status: 400, code: "INVALID_INPUT"}) }, kind: provider.ErrUnavailable},
		{name: "ordering is not activated", fault: func(w world) { w.once("POST /order", fault{status: 403, code: "FORBIDDEN"}) },
			kind: provider.ErrUnauthorized, text: "activated"},
		{name: "the list cannot be read before", fault: func(w world) { w.times(-1, "GET /order/server/transaction", fault{status: 502}) },
			kind: provider.ErrBudget},
		{name: "limit, then goes through", fault: func(w world) {
			w.once("POST /order", fault{status: 403, code: "RATE_LIMIT_EXCEEDED", extra: map[string]any{"max_request": 20, "interval": 600}})
		}, bought: 1, ok: true},
	} {
		for _, kind := range []string{"standard", "market"} {
			t.Run(c.name+"/"+kind, func(t *testing.T) {
				in(t, func(t *testing.T, w world) {
					o := order(t)
					if kind == "market" {
						o = market(t)
						if strings.HasPrefix(c.name, "the list") {
							t.Skip("the same list")
						}
					}
					q, err := w.d.Preview(w.ctx, o)
					if err != nil {
						t.Fatal(err)
					}
					posts := w.count("POST /order")
					if c.fault != nil {
						c.fault(w)
					}
					tr, err := w.d.Place(w.ctx, o, q)
					switch {
					case c.ok && (err != nil || tr.ID != "B20261122-1" || tr.Product != o.Product):
						t.Fatalf("%+v, %v", tr, err)
					case !c.ok:
						wantKind(t, err, c.kind)
						if !strings.Contains(err.Error(), c.text) {
							t.Errorf("error %v does not say %q", err, c.text)
						}
					}
					sent := w.count("POST /order") - posts
					if w.bought() != c.bought || sent > 1 && !strings.HasPrefix(c.name, "limit") {
						t.Errorf("%d orders, sent %d times", w.bought(), sent)
					}
				})
			})
		}
	}
}

func TestPlaceAgainFindsTheOrder(t *testing.T) {
	in(t, func(t *testing.T, w world) {
		o := order(t)
		q, err := w.d.Preview(w.ctx, o)
		if err != nil {
			t.Fatal(err)
		}
		w.latency = 100 * time.Millisecond
		var wg sync.WaitGroup
		for range 5 { // a second run of the same command, or two at once
			wg.Go(func() {
				if tr, err := w.d.Place(w.ctx, o, q); err != nil || tr.ID != "B20261122-1" {
					t.Errorf("%+v, %v", tr, err)
				}
			})
		}
		wg.Wait()
		if w.bought() != 1 {
			t.Fatalf("%d orders", w.bought())
		}
		var late Quote // as a later run reads it from the journal
		if text, err := json.Marshal(q); err != nil {
			t.Fatal(err)
		} else if err := json.Unmarshal(text, &late); err != nil {
			t.Fatal(err)
		}
		time.Sleep(24 * time.Hour) // on the test's own clock
		if tr, err := w.d.Place(w.ctx, late.Order, late); err != nil || tr.ID != "B20261122-1" || late.Net != q.Net {
			t.Errorf("a day later: %+v, %v", tr, err)
		}
		w.orders["server"][0]["status"] = "cancelled"
		_, err = w.d.Place(w.ctx, o, q)
		wantKind(t, err, provider.ErrAmbiguous)
		other := order(t)
		if q, err = w.d.Preview(w.ctx, other); err != nil {
			t.Fatal(err)
		}
		if tr, err := w.d.Place(w.ctx, other, q); err != nil || tr.ID != "B20261122-2" {
			t.Fatalf("another order: %+v, %v", tr, err)
		}
	})
}

func TestPlaceKilledWhileOrdering(t *testing.T) {
	in(t, func(t *testing.T, w world) {
		o := order(t)
		q, err := w.d.Preview(w.ctx, o)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(w.ctx, time.Second)
		defer cancel()
		w.once("POST /order", fault{hang: true, after: true})
		_, err = w.d.Place(ctx, o, q)
		wantKind(t, err, provider.ErrAmbiguous)
		if tr, err := w.d.Place(w.ctx, o, q); err != nil || tr.ID != "B20261122-1" || w.bought() != 1 {
			t.Fatalf("%+v, %v, %d orders", tr, err, w.bought())
		}
	})
}

func TestPlaceOrdersOnlyWhatWasAgreed(t *testing.T) {
	in(t, func(t *testing.T, w world) {
		o := order(t)
		q, err := w.d.Preview(w.ctx, o)
		if err != nil {
			t.Fatal(err)
		}
		for name, c := range map[string]func() (Order, Quote){
			"another product":  func() (Order, Quote) { p := o; p.Location = "NBG1"; return p, q },
			"no quote":         func() (Order, Quote) { return o, Quote{} },
			"the price rose":   func() (Order, Quote) { c := q; c.Net.Monthly--; return o, c },
			"the setup rose":   func() (Order, Quote) { c := q; c.Gross.Setup--; return o, c },
			"the quote is old": func() (Order, Quote) { c := q; c.At = c.At.Add(-time.Hour); return o, c },
		} {
			order, quote := c()
			if _, err := w.d.Place(w.ctx, order, quote); err == nil {
				t.Errorf("%s: ordered", name)
			}
		}
		if w.bought() != 0 {
			t.Errorf("%d orders", w.bought())
		}
		cheaper := q
		cheaper.Net.Monthly++
		if _, err := w.d.Place(w.ctx, o, cheaper); err != nil {
			t.Errorf("it fell: %v", err)
		}
	})
}

func TestAwait(t *testing.T) {
	in(t, func(t *testing.T, w world) {
		o := market(t)
		q, err := w.d.Preview(w.ctx, o)
		if err != nil {
			t.Fatal(err)
		}
		tr, err := w.d.Place(w.ctx, o, q)
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.d.Await(w.ctx, tr)
		wantKind(t, err, provider.ErrTimeout)
		time.AfterFunc(70*time.Second, func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.orders["server_market"][0]["status"], w.orders["server_market"][0]["server_number"] = "ready", 107239
		})
		start := time.Now()
		if id, err := w.d.Await(w.ctx, tr); err != nil || id != "107239" || time.Since(start) > 3*time.Minute {
			t.Fatalf("%q, %v, after %s", id, err, time.Since(start))
		}
		w.orders["server_market"][0]["status"] = "cancelled"
		_, err = w.d.Await(w.ctx, tr)
		wantKind(t, err, provider.ErrActionFailed)
		tr.ID = "B9"
		_, err = w.d.Await(w.ctx, tr)
		wantKind(t, err, provider.ErrNotFound)
	})
}

func TestOrdersAreFewADay(t *testing.T) {
	in(t, func(t *testing.T, w world) {
		for range 20 {
			if _, err := w.d.Preview(w.ctx, order(t)); err != nil {
				t.Fatal(err)
			}
		}
		_, err := w.d.Preview(w.ctx, order(t))
		wantKind(t, err, provider.ErrRateLimited)
		if n := w.count("POST /order"); n != 20 {
			t.Errorf("%d", n)
		}
	})
}
