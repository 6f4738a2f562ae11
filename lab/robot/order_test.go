package robot_test

import (
	"strings"
	"testing"
	"time"

	"popfleet/lab/faults"
	"popfleet/lab/robot"
)

// stocked puts one standard server and one from the market into the stock.
func stocked(o *robot.Options) {
	a, b := server(4), server(5)
	a.Name, b.Name = "", ""
	a.Config.Label, b.Config.Label = "fsn-4", "fsn-5"
	b.Offer, b.Cents, b.DC = 283693, 3400, "HEL1-DC2"
	o.Stock = []robot.Machine{a, b}
}

func (f *fixture) orders(print string) {
	t := f.t
	all := f.ok("GET", "/order/server/product", nil)
	if len(all.list()) != 3 || len(f.ok("GET", "/order/server/product?location=HEL1&max_price=38.00", nil).list()) != 1 {
		t.Errorf("products: %s", all.raw)
	}
	p := f.ok("GET", "/order/server/product/EX44", nil)
	if p.at("product", "prices", "0", "price", "net") != "39.00" || p.at("product", "prices", "0", "price", "gross") != "46.41" {
		t.Errorf("prices: %s", p.raw)
	}
	w := params{"product_id": "EX44", "authorized_key[]": print, "addon[]": "primary_ipv4", "location": "FSN1"}
	done := f.buy("/order/server", w)
	if done.at("transaction", "server_number") != 324.0 || done.at("transaction", "server_ip") != "198.19.0.4" {
		t.Errorf("delivered: %s", done.raw)
	}
	offers := f.ok("GET", "/order/server_market/product", nil)
	if len(offers.list()) != 1 || offers.at("0", "product", "id") != 283693.0 {
		t.Errorf("offers: %s", offers.raw)
	}
	f.ok("GET", "/order/server_market/product/283693", nil)
	done = f.buy("/order/server_market", params{"product_id": "283693", "authorized_key[]": print, "addon[]": "primary_ipv4"})
	f.eventually("SSH", func() bool { return f.stage(325) == "rescue" })
	shown := f.shownKeys(325)
	for _, k := range done.list("transaction", "host_key") {
		if print := k.(map[string]any)["key"].(map[string]any)["fingerprint"].(string); !shown[print] {
			t.Errorf("the order tells of a host key that is not shown: %s", print)
		}
	}
	f.refused(404, "NOT_FOUND", "GET", "/order/server_market/product/283693", nil)
	f.refused(404, "BOOT_NOT_AVAILABLE", "GET", "/boot/325/rescue/last", nil)
}

// buy orders a server, dry first, and waits for it.
func (f *fixture) buy(at string, w params) answer {
	f.t.Helper()
	dry := params{"test": "true"}
	for k, v := range w {
		dry[k] = v
	}
	if a := f.ok("POST", at+"/transaction", dry); a.at("transaction", "status") != "cancelled" {
		f.t.Errorf("a dry run: %s", a.raw)
	}
	if a := f.call("GET", at+"/transaction", nil); a.status != 404 {
		f.t.Errorf("a dry run is in the books: %s", a.raw)
	}
	a := f.ok("POST", at+"/transaction", w)
	if a.status != 201 || a.at("transaction", "status") != "in process" || a.at("transaction", "server_number") != nil {
		f.t.Errorf("ordered: %d %s", a.status, a.raw)
	}
	id := a.at("transaction", "id").(string)
	f.eventually("delivery", func() bool {
		a = f.ok("GET", at+"/transaction/"+id, nil)
		return a.at("transaction", "status") == "ready"
	})
	if n := len(f.ok("GET", at+"/transaction", nil).list()); n != 1 {
		f.t.Errorf("%d orders", n)
	}
	if n := len(a.list("transaction", "host_key")); n != 3 {
		f.t.Errorf("%d host keys: %s", n, a.raw)
	}
	return a
}

func TestOrdersThatComeToNothing(t *testing.T) {
	for _, c := range []struct {
		name   string
		p      params
		fault  faults.Kind
		status string
		ip     bool
	}{
		{"a comment waits for a person", params{"product_id": "EX44", "comment": "fleet demo"}, "", "in process", false},
		{"out of stock", params{"product_id": "AX102"}, "", "in process", false},
		{"stock is elsewhere", params{"product_id": "EX44", "location": "HEL1"}, "", "in process", false},
		{"stuck", params{"product_id": "EX44"}, faults.TaskStuck, "in process", false},
		{"cancelled", params{"product_id": "EX44"}, faults.TaskError, "cancelled", false},
		{"no addon, no IPv4", params{"product_id": "EX44"}, "", "ready", false},
		{"the addon", params{"product_id": "EX44", "addon[]": "primary_ipv4"}, "", "ready", true},
		{"the addon is lost", params{"product_id": "EX44", "addon[]": "primary_ipv4"}, faults.NoIPv4, "ready", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := start(t, nil, func(o *robot.Options) {
				stocked(o)
				o.Delay = func(what string) time.Duration { return map[string]time.Duration{"deliver-manual": time.Hour}[what] }
			})
			if c.fault != "" {
				f.faults.MustAdd(faults.Fault{Kind: c.fault, Call: "order_server"})
			}
			id := f.ok("POST", "/order/server/transaction", c.p).at("transaction", "id").(string)
			var a answer
			f.eventually(c.status, func() bool {
				a = f.ok("GET", "/order/server/transaction/"+id, nil)
				return a.at("transaction", "status") == c.status
			})
			if (a.at("transaction", "server_ip") != nil) != c.ip {
				t.Errorf("address: %s", a.raw)
			}
			if n := len(f.ok("GET", "/server", nil).list()); (n == 3) != (c.status == "ready") {
				t.Errorf("%d servers", n)
			}
		})
	}
}

func TestOrderRefusals(t *testing.T) {
	f := start(t, nil, stocked)
	print := f.addKey()
	for name, p := range map[string]params{
		"product_id":     {"product_id": "EX9000"},
		"location":       {"product_id": "EX44", "location": "NBG1"},
		"dist":           {"product_id": "EX44", "dist": "Debian 7.7 minimal"},
		"addon":          {"product_id": "EX44", "addon[]": "ipv4"},
		"test":           {"product_id": "EX44", "test": "yes"},
		"authorized_key": {"product_id": "EX44", "authorized_key[]": print, "password": "x"},
		"server":         {"product_id": "EX44", "server": "1"},
	} {
		a := f.refused(400, "INVALID_INPUT", "POST", "/order/server/transaction", p)
		if a.at("error", "invalid", "0") != name {
			t.Errorf("%s: %s", name, a.raw)
		}
	}
	f.refused(400, "INVALID_INPUT", "POST", "/order/server_market/transaction", params{"product_id": "1"})
	if n := len(f.robot.Servers()); n != 2 {
		t.Errorf("%d servers after refused orders", n)
	}
}

// An order whose reply is lost is in the books, and is found there.
func TestOrderReplyLost(t *testing.T) {
	f := start(t, nil, stocked)
	f.faults.MustAdd(faults.Fault{Kind: faults.ReplyLost, Call: "order_market_server", Times: 1})
	if a, err := f.try(f.request("POST", "/order/server_market/transaction", params{"product_id": "283693"})); err == nil {
		t.Fatalf("an answer came: %s", a.raw)
	}
	if n := len(f.ok("GET", "/order/server_market/transaction", nil).list()); n != 1 {
		t.Errorf("%d orders", n)
	}
	f.refused(400, "INVALID_INPUT", "POST", "/order/server_market/transaction", params{"product_id": "283693"})
}

func TestOrdersAreLimitedPerDay(t *testing.T) {
	f := start(t, nil, nil)
	for range 20 {
		f.ok("POST", "/order/server/transaction", params{"product_id": "EX44", "test": "true"})
	}
	a := f.refused(403, "RATE_LIMIT_EXCEEDED", "POST", "/order/server/transaction", params{"product_id": "EX44", "test": "true"})
	if a.at("error", "max_request") != 20.0 || a.at("error", "interval") != 86400.0 {
		t.Errorf("limit: %s", a.raw)
	}
}

func TestOrderingOff(t *testing.T) {
	f := start(t, nil, func(o *robot.Options) { o.OrderingOff = true })
	for range 4 { // not a wrong password: it locks nobody out
		f.refused(401, "UNAUTHORIZED", "GET", "/order/server/product", nil)
	}
	if a := f.ok("GET", "/server", nil); !strings.Contains(a.raw, "fsn-2") {
		t.Error(a.raw)
	}
}
