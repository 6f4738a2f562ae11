package ovh_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// fakeOrders is the fake's shop.
type fakeOrders struct {
	f        *fake
	carts    map[string]*fakeCart
	orders   map[int64]object
	status   map[int64][]string // what each read of an order's status says; the last stays
	payments []int64
	price    float64
	paid     int
	domain   string // what a delivered order's detail names
	us       bool   // operations instead of extensions
}

type fakeCart struct {
	items    []cartedItem
	settings []object
	assigned bool
	sold     bool
}

type cartedItem struct {
	plan   string
	option bool
}

func newFakeOrders(f *fake) *fakeOrders {
	return &fakeOrders{f: f, carts: map[string]*fakeCart{}, orders: map[int64]object{}, status: map[int64][]string{},
		payments: []int64{77}, price: 60, domain: "ns9.ip-192-0-2.eu"}
}

func (o *fakeOrders) route(w http.ResponseWriter, r *http.Request, parts []string, body []byte) {
	switch {
	case parts[0] == "dedicated":
		o.stock(w, r)
	case parts[0] == "order":
		o.cart(w, r, parts[2:], body)
	case len(parts) == 1:
		reply(w, object{"ovhSubsidiary": "FR", "nichandle": "xx1-ovh", "email": "a@example.org", "country": "FR"})
	case parts[1] == "payment":
		reply(w, o.payments)
	case len(parts) == 2:
		o.list(w, r)
	default:
		o.order(w, r, parts[2:])
	}
}

func (o *fakeOrders) stock(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Get("planCode") != "24rise01" {
		reply(w, []object{})
		return
	}
	reply(w, []object{{"fqn": "24rise01.ram-32g.softraid-2x512nvme", "planCode": "24rise01", "server": "24rise01",
		"datacenters": []object{{"availability": "1H-high", "datacenter": "gra"}, {"availability": "72H", "datacenter": "rbx"},
			{"availability": "unavailable", "datacenter": "bhs"}}}})
}

func (o *fakeOrders) cart(w http.ResponseWriter, r *http.Request, parts []string, body []byte) {
	if len(parts) == 0 {
		id := fmt.Sprintf("0000000%d-aaaa-bbbb-cccc-000000000000", len(o.carts))
		o.carts[id] = &fakeCart{}
		reply(w, object{"cartId": id, "items": []int{}, "readOnly": false})
		return
	}
	c := o.carts[parts[0]]
	if c == nil {
		notFound(w)
		return
	}
	switch call := r.Method + " " + strings.Join(parts[1:], "/"); {
	case call == "GET ":
		reply(w, object{"cartId": parts[0], "readOnly": c.sold})
	case call == "DELETE ":
		delete(o.carts, parts[0])
		reply(w, nil)
	case call == "POST assign":
		c.assigned = true
		reply(w, nil)
	case strings.HasSuffix(call, "/checkout") || strings.HasSuffix(call, " checkout"):
		o.checkout(w, r, c)
	case strings.HasSuffix(call, "/configuration"):
		var s object
		json.Unmarshal(body, &s)
		c.settings = append(c.settings, s)
		reply(w, object{"id": len(c.settings)})
	default:
		o.item(w, c, parts[1:], body)
	}
}

func (o *fakeOrders) item(w http.ResponseWriter, c *fakeCart, parts []string, body []byte) {
	var in struct {
		PlanCode, Duration, PricingMode string
		Quantity                        int
		ItemID                          int64
	}
	json.Unmarshal(body, &in)
	option := len(parts) == 2 && parts[1] == "options"
	if in.PlanCode == "" || in.Duration == "" || in.PricingMode == "" || in.Quantity != 1 || option != (in.ItemID == 5) ||
		(parts[0] != "eco" && parts[0] != "baremetalServers") {
		newError(w, 400, "Client::BadRequest", "bad item "+string(body))
		return
	}
	c.items = append(c.items, cartedItem{in.PlanCode, option})
	id := 5
	if option {
		id = 5 + len(c.items)
	}
	reply(w, object{"cartId": "x", "itemId": id})
}

func (o *fakeOrders) prices(c *fakeCart) object {
	total := 0.0
	for _, i := range c.items {
		if total += 5; !i.option {
			total += o.price - 5
		}
	}
	p := func(v float64) object {
		return object{"currencyCode": "EUR", "text": fmt.Sprintf("%.2f €", v), "value": v}
	}
	return object{"withoutTax": p(total), "tax": p(total / 5), "withTax": p(total * 1.2)}
}

func (o *fakeOrders) checkout(w http.ResponseWriter, r *http.Request, c *fakeCart) {
	if !c.assigned || len(c.items) == 0 || c.sold {
		newError(w, 400, "Client::BadRequest", "the cart cannot be ordered")
		return
	}
	out := object{"orderId": nil, "url": nil, "prices": o.prices(c),
		"contracts": []object{{"name": "Terms", "url": "https://example.org/terms", "content": "…"}},
		"details":   []object{{"description": "Server RISE-1", "quantity": 1, "totalPrice": o.prices(c)["withoutTax"]}}}
	if r.Method == http.MethodPost {
		id := o.add(o.prices(c)["withTax"])
		c.sold = true
		out["orderId"], out["url"] = id, o.orders[id]["url"]
	}
	reply(w, out)
}

// add makes an order as if one had been placed.
func (o *fakeOrders) add(price any) int64 {
	id := int64(9000 + len(o.orders))
	o.orders[id] = object{"orderId": id, "date": o.f.now().Format(time.RFC3339), "url": fmt.Sprint("https://example.org/order/", id),
		"priceWithTax": price, "password": "x", "pdfUrl": "x"}
	o.status[id] = []string{"notPaid"}
	return id
}

func (o *fakeOrders) list(w http.ResponseWriter, r *http.Request) {
	from, err := time.Parse(time.RFC3339, r.URL.Query().Get("date.from"))
	ids := []int64{}
	for id, v := range o.orders {
		at, _ := time.Parse(time.RFC3339, v["date"].(string))
		if err == nil && !at.Before(from) {
			ids = append(ids, id)
		}
	}
	reply(w, ids)
}

func (o *fakeOrders) order(w http.ResponseWriter, r *http.Request, parts []string) {
	id, _ := strconv.ParseInt(parts[0], 10, 64)
	if o.orders[id] == nil {
		notFound(w)
		return
	}
	switch call := r.Method + " " + strings.Join(parts[1:], "/"); call {
	case "GET ":
		reply(w, o.orders[id])
	case "GET status":
		s := o.status[id]
		reply(w, s[0])
		if len(s) > 1 {
			o.status[id] = s[1:]
		}
	case "GET details":
		reply(w, []int{1, 2})
	case "GET details/1/extension", "GET details/2/extension":
		if o.us {
			notFound(w)
			return
		}
		plan := map[string]string{"1": "ram-32g", "2": "24rise01"}[parts[2]]
		reply(w, object{"order": object{"plan": object{"code": plan}}})
	case "GET details/2":
		reply(w, object{"orderDetailId": 2, "domain": o.domain, "description": "d", "cancelled": false, "quantity": "1"})
	case "POST pay", "POST payWithRegisteredPaymentMean":
		if o.status[id][0] != "notPaid" {
			newError(w, 400, "Client::BadRequest", "already paid")
			return
		}
		o.paid++
		o.status[id] = []string{"checking", "delivering", "delivered"}
		reply(w, nil)
	default:
		o.operations(w, call)
	}
}

func (o *fakeOrders) operations(w http.ResponseWriter, call string) {
	switch {
	case o.us && call == "GET details/1/operations":
		reply(w, []int{})
	case o.us && call == "GET details/2/operations":
		reply(w, []int{4})
	case o.us && call == "GET details/2/operations/4":
		reply(w, object{"id": 4, "resource": object{"name": o.domain}})
	default:
		notFound(w)
	}
}
