package ovh_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"popfleet/lab/faults"
	"popfleet/lab/ovh"
)

type checkout struct {
	OrderID *int64
	Prices  struct {
		WithTax, WithoutTax struct {
			Value        float64
			CurrencyCode string
		}
	}
	Details []struct {
		Description, DetailType string
	}
}

// fillCart puts a server with its options and configurations into a new cart.
func (w *world) fillCart(product, plan, datacenter string, addons ...string) string {
	w.t.Helper()
	var cart struct{ CartID string }
	w.ok("POST", "/order/cart", map[string]any{"ovhSubsidiary": "FR"}, &cart)
	at := "/order/cart/" + cart.CartID
	w.ok("POST", at+"/assign", nil, nil)
	want := map[string]any{"planCode": plan, "duration": "P1M", "pricingMode": "default", "quantity": 1}
	var item struct{ ItemID int64 }
	w.ok("POST", at+"/"+product, want, &item)
	for _, a := range addons {
		want["planCode"], want["itemId"] = a, item.ItemID
		w.ok("POST", at+"/"+product+"/options", want, &struct{}{})
	}
	for label, value := range map[string]string{"dedicated_datacenter": datacenter, "dedicated_os": "none_64.en", "region": "europe"} {
		w.ok("POST", fmt.Sprintf("%s/item/%d/configuration", at, item.ItemID), map[string]string{"label": label, "value": value}, &struct{}{})
	}
	return at
}

func (w *world) fullCart() string {
	return w.fillCart("eco", "24sk10", "gra", "ram-32g-ecc-2133-24sk10", "softraid-2x480ssd-24sk10", "bandwidth-300-24sk")
}

func TestPreviewBuysNothing(t *testing.T) {
	w := start(t, nil)
	at := w.fullCart()
	var seen checkout
	w.ok("GET", at+"/checkout", nil, &seen)
	if seen.OrderID != nil || seen.Prices.WithoutTax.Value != 19 || seen.Prices.WithTax.Value != 22.8 || seen.Prices.WithTax.CurrencyCode != "EUR" {
		t.Errorf("%+v", seen)
	}
	var orders []int64
	w.ok("GET", "/me/order", nil, &orders)
	if len(orders) != 0 {
		t.Errorf("a preview made orders: %v", orders)
	}
}

func TestOrderIsDelivered(t *testing.T) {
	w := start(t, nil)
	var bought checkout
	at := w.fullCart()
	w.ok("POST", at+"/checkout", nil, &bought)
	order := fmt.Sprintf("/me/order/%d", *bought.OrderID)
	status := func() (s string) { w.ok("GET", order+"/status", nil, &s); return s }
	if got := status(); got != "notPaid" {
		t.Errorf("before payment: %s", got)
	}
	w.refused("POST", at+"/checkout", nil, 400, "read only")
	w.refused("POST", order+"/pay", map[string]any{"paymentMethod": map[string]any{"id": 1}}, 400, "payment method")
	var methods []int64
	w.ok("GET", "/me/payment/method?default=true", nil, &methods)
	pay := map[string]any{"paymentMethod": map[string]any{"id": methods[0]}}
	w.ok("POST", order+"/pay", pay, nil)
	w.refused("POST", order+"/pay", pay, 409, "paid already")
	w.until("the order is delivered", func() bool { return status() == "delivered" })
	name := w.delivered(order)
	var s serverState
	w.ok("GET", "/dedicated/server/"+name, nil, &s)
	if s.PowerState != "poweron" || !s.Monitoring || *s.BootID != diskBoot || len(w.ovh.Servers()) != 2 {
		t.Errorf("%+v", s)
	}
}

// delivered reads the name of an order's server from the line whose extension is about the plan.
func (w *world) delivered(order string) string {
	w.t.Helper()
	var ids []int64
	w.ok("GET", order+"/details", nil, &ids)
	for _, id := range ids {
		at := fmt.Sprintf("%s/details/%d", order, id)
		var ext struct {
			Order struct{ Plan struct{ Code string } }
		}
		w.ok("GET", at+"/extension", nil, &ext)
		if ext.Order.Plan.Code == "24sk10" {
			var d struct{ Domain string }
			w.ok("GET", at, nil, &d)
			return d.Domain
		}
	}
	w.t.Fatal("the order has no line about its plan")
	return ""
}

// A checkout whose reply is lost has bought: the order is found by its date, and the cart can't be bought again.
func TestLostCheckoutBoughtOnce(t *testing.T) {
	w := start(t, nil)
	at := w.fullCart()
	before := time.Now().Add(-time.Second).UTC().Format(time.RFC3339)
	w.fault(faults.Fault{Kind: faults.ReplyLost, Call: "checkout", Times: 1})
	if _, _, _, err := w.send(t.Context(), "POST", at+"/checkout", ""); err == nil {
		t.Fatal("the reply came")
	}
	w.refused("POST", at+"/checkout", nil, 400, "read only")
	var orders []int64
	w.ok("GET", "/me/order?date.from="+strings.ReplaceAll(before, ":", "%3A"), nil, &orders)
	if len(orders) != 1 {
		t.Errorf("orders since %s: %v", before, orders)
	}
	w.ok("GET", "/me/order?date.to=2001-01-01T00:00:00Z", nil, &orders)
	if len(orders) != 0 {
		t.Errorf("old orders: %v", orders)
	}
}

func TestCartRefuses(t *testing.T) {
	w := start(t, nil)
	w.refused("POST", "/order/cart", map[string]any{"ovhSubsidiary": "XX"}, 400, "OvhSubsidiaryEnum")
	var cart struct{ CartID string }
	w.ok("POST", "/order/cart", map[string]any{"ovhSubsidiary": "FR"}, &cart)
	at := "/order/cart/" + cart.CartID
	w.refused("GET", at+"/checkout", nil, 400, "not assigned")
	w.ok("POST", at+"/assign", nil, nil)
	w.refused("GET", at+"/checkout", nil, 400, "empty")
	want := map[string]any{"planCode": "24sk10", "duration": "P1M", "pricingMode": "default", "quantity": 1}
	w.refused("POST", at+"/baremetalServers", want, 404, "planCode")
	for field, value := range map[string]any{"duration": "P99Y", "pricingMode": "gift", "quantity": 2, "coupon": "x"} {
		wrong := map[string]any{}
		for k, v := range want {
			wrong[k] = v
		}
		wrong[field] = value
		w.refused("POST", at+"/eco", wrong, 400, field)
	}
	var item struct{ ItemID int64 }
	w.ok("POST", at+"/eco", want, &item)
	w.refused("GET", at+"/checkout", nil, 400, "dedicated_datacenter is missing")
	configure := fmt.Sprintf("%s/item/%d/configuration", at, item.ItemID)
	w.refused("POST", configure, map[string]string{"label": "dedicated_datacenter", "value": "moon"}, 400, "expected one of")
	w.refused("POST", configure, map[string]string{"label": "colour", "value": "red"}, 400, "can't be configured")
	comingSoon := w.fillCart("eco", "24sk10", "bhs", "ram-32g-ecc-2133-24sk10", "softraid-2x480ssd-24sk10", "bandwidth-300-24sk")
	w.refused("POST", comingSoon+"/checkout", nil, 400, "not available in bhs")
	optionless := w.fillCart("baremetalServers", "24rise01-v1", "gra")
	w.refused("GET", optionless+"/checkout", nil, 400, "needs one option of the family memory")
	w.refused("GET", "/order/cart/none", nil, 404, "cartId")
}

func TestCartCanBeReadAndThrownAway(t *testing.T) {
	w := start(t, nil)
	at := w.fullCart()
	var cart struct {
		Items    []int64
		ReadOnly bool
	}
	w.ok("GET", at, nil, &cart)
	if len(cart.Items) != 4 || cart.ReadOnly {
		t.Fatalf("%+v", cart)
	}
	item := fmt.Sprintf("%s/item/%d", at, cart.Items[0])
	var got struct{ Options, Configurations []int64 }
	w.ok("GET", item, nil, &got)
	if len(got.Options) != 3 || len(got.Configurations) != 3 {
		t.Errorf("%+v", got)
	}
	var needed []struct {
		Label         string
		AllowedValues []string
	}
	w.ok("GET", item+"/requiredConfiguration", nil, &needed)
	if len(needed) != 3 || needed[0].Label != "dedicated_datacenter" || len(needed[0].AllowedValues) == 0 {
		t.Errorf("%+v", needed)
	}
	var configs []int64
	w.ok("GET", item+"/configuration?label=region", nil, &configs)
	if len(configs) != 1 {
		t.Errorf("%v", configs)
	}
	w.ok("DELETE", at, nil, nil)
	w.refused("GET", at, nil, 404, "cartId")
}

func TestAutomaticPaymentAndRestart(t *testing.T) {
	path := t.TempDir() + "/ovh.json"
	slow := func(o *ovh.Options) {
		o.StatePath = path
		o.Delay = func(what string) time.Duration {
			if what == ovh.Deliver {
				return time.Hour
			}
			return 0
		}
	}
	w := start(t, slow)
	var bought checkout
	w.ok("POST", w.fullCart()+"/checkout", map[string]any{"autoPayWithPreferredPaymentMethod": true, "waiveRetractationPeriod": true}, &bought)
	order := fmt.Sprintf("/me/order/%d", *bought.OrderID)
	w.until("the order is delivering", func() bool { var s string; w.ok("GET", order+"/status", nil, &s); return s == "delivering" })
	w.ovh.Close()
	again := start(t, func(o *ovh.Options) { o.StatePath = path })
	again.until("the order is delivered", func() bool { var s string; again.ok("GET", order+"/status", nil, &s); return s == "delivered" })
	if got := len(again.ovh.Servers()); got != 2 {
		t.Errorf("%d servers", got)
	}
	again.ovh.Close()
	third := start(t, func(o *ovh.Options) { o.StatePath = path })
	if got := third.ovh.Servers(); len(got) != 2 || got[1].Machine == nil {
		t.Errorf("after one more restart: %+v", got)
	}
}

func TestAvailability(t *testing.T) {
	w := start(t, nil)
	var got []struct {
		FQN, PlanCode string
		Datacenters   []struct{ Datacenter, Availability string }
	}
	w.ok("GET", "/dedicated/server/datacenter/availabilities?planCode=24sk10&datacenters=gra,rbx", nil, &got)
	if len(got) != 2 || len(got[0].Datacenters) != 2 || got[1].FQN != "24sk10.ram-32g-ecc-2133.softraid-2x480ssd" {
		t.Errorf("%+v", got)
	}
	w.ok("GET", "/dedicated/server/datacenter/availabilities?planCode=24sk10&datacenters=gra,rbx&excludeDatacenters=true", nil, &got)
	if len(got) != 2 || len(got[0].Datacenters) != 1 || got[0].Datacenters[0].Availability != "comingSoon" {
		t.Errorf("%+v", got)
	}
}
