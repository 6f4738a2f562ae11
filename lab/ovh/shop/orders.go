package ovh

import (
	"fmt"
	"time"
)

// order is a bought cart: paid for, checked, delivered.
type order struct {
	ID      int64     `json:"id"`
	At      time.Time `json:"at"`
	Status  string    `json:"status"`
	Ucents  int64     `json:"ucents"`
	Details []*detail `json:"details"`
}

// detail is a line of an order. Its domain is a placeholder until the server is delivered, then the service's name.
type detail struct {
	ID       int64     `json:"id"`
	Domain   string    `json:"domain"`
	Text     string    `json:"text"`
	Kind     string    `json:"kind"`
	Item     *item     `json:"item"`
	Ucents   int64     `json:"ucents"`
	Delivery *Delivery `json:"delivery"` // of a server's first line; nil elsewhere
}

const tax = 20 // per cent

// summary is what both checkouts answer.
func (o *OVH) summary(c *cart, id *int64) any {
	ucents, details := c.due()
	withTax := ucents + ucents*tax/100
	var url any
	if id != nil {
		url = orderURL(*id)
	}
	return map[string]any{
		"contracts": []any{map[string]any{"name": "Dedicated server terms", "url": "https://lab.invalid/terms.pdf", "content": ""}},
		"details":   details, "orderId": id, "url": url,
		"prices": map[string]any{
			"originalWithoutTax": price(ucents), "reduction": price(0), "tax": price(withTax - ucents), "withTax": price(withTax), "withoutTax": price(ucents),
		},
	}
}

func orderURL(id int64) string { return fmt.Sprintf("https://lab.invalid/order/%d", id) }

// preview says what buying would cost and buys nothing.
func (o *OVH) preview(r *request) (any, error) {
	c, err := o.checkable(r)
	if err != nil {
		return nil, err
	}
	return o.summary(c, nil), nil
}

// checkable finds a cart that could be bought.
func (o *OVH) checkable(r *request) (*cart, error) {
	c, err := o.openCart(r)
	if err != nil {
		return nil, err
	}
	if !c.Assigned {
		return nil, bad("Cart is not assigned to an account")
	}
	return c, c.complete()
}

// checkout buys: a cart can be bought once.
func (o *OVH) checkout(r *request) (any, error) {
	var in struct {
		AutoPay bool `json:"autoPayWithPreferredPaymentMethod"`
		Waive   bool `json:"waiveRetractationPeriod"`
	}
	if len(r.body) > 0 {
		if err := r.decode(&in); err != nil {
			return nil, err
		}
	}
	c, err := o.checkable(r)
	if err != nil {
		return nil, err
	}
	c.Bought = true
	ord := o.place(c)
	if in.AutoPay {
		o.paid(ord)
	}
	return o.summary(c, &ord.ID), nil
}

func (o *OVH) place(c *cart) *order {
	ucents, _ := c.due()
	ord := &order{ID: o.state.nextID(), At: o.clock(), Status: "notPaid", Ucents: ucents}
	for _, i := range c.Items {
		d := &detail{ID: o.state.nextID(), Domain: fmt.Sprintf("*%d", i.ID), Text: i.Name, Kind: "DURATION", Item: i, Ucents: i.Ucents}
		if i.Parent == 0 {
			d.Delivery = &Delivery{Plan: i.Plan, Datacenter: i.config("dedicated_datacenter")}
		}
		ord.Details = append(ord.Details, d)
	}
	o.state.Orders[ord.ID] = ord
	return ord
}

// paid sends a paid order on its way.
func (o *OVH) paid(ord *order) {
	ord.Status = "checking"
	o.spawn(func() { o.deliver(ord) })
}

// deliver goes from checking to delivered: the machines are built and belong to the account.
func (o *OVH) deliver(ord *order) {
	if !pause(o.life, o.opt.Delay(Payment)) {
		return
	}
	o.change(func() { ord.Status = "delivering" })
	if !pause(o.life, o.opt.Delay(Deliver)) {
		return
	}
	for _, s := range o.handOver(ord) {
		if err := o.build(o.life, s); err != nil {
			o.opt.Log.Error("deliver server", "server", s.Service, "error", err)
			return // stays delivering
		}
	}
	o.change(func() { ord.Status = "delivered" })
}

// handOver enters the order's servers in the books, once.
func (o *OVH) handOver(ord *order) (all []*server) {
	o.change(func() {
		for _, d := range ord.Details {
			if d.Delivery == nil {
				continue
			}
			if s := o.state.named(d.Domain); s != nil {
				all = append(all, s)
				continue
			}
			d.Delivery.N = o.delivered() + 1
			s := o.enter(o.opt.Deliver(*d.Delivery))
			s.Order = d.Delivery
			o.name(ord, d.Item.ID, s.Service)
			all = append(all, s)
		}
	})
	return all
}

func (o *OVH) delivered() int {
	n := 0
	for _, s := range o.state.Servers {
		if s.Order != nil {
			n++
		}
	}
	return n
}

// name writes the service's name on the lines of a server and of its options.
func (o *OVH) name(ord *order, item int64, service string) {
	for _, d := range ord.Details {
		if d.Item.ID == item || d.Item.Parent == item {
			d.Domain = service
		}
	}
}

// resumeOrders goes on with the deliveries a former lab left; o.mu is held.
func (o *OVH) resumeOrders() {
	for _, id := range sorted(o.state.Orders) {
		if ord := o.state.Orders[id]; ord.Status == "checking" || ord.Status == "delivering" {
			o.spawn(func() { o.deliver(ord) })
		}
	}
}

func (o *OVH) listOrders(r *request) (any, error) {
	from, to, err := between(r)
	if err != nil {
		return nil, err
	}
	out := []int64{}
	for _, id := range sorted(o.state.Orders) {
		at := o.state.Orders[id].At
		if !at.Before(from) && (to.IsZero() || !at.After(to)) {
			out = append(out, id)
		}
	}
	return out, nil
}

func between(r *request) (from, to time.Time, err error) {
	for name, at := range map[string]*time.Time{"date.from": &from, "date.to": &to} {
		if v := r.query.Get(name); v != "" {
			if *at, err = time.Parse(time.RFC3339, v); err != nil {
				return from, to, bad("[query.%s] %q is not a date and time", name, v)
			}
		}
	}
	return from, to, nil
}

// onOrder makes a handler of what is done to one order.
func onOrder(do func(o *OVH, r *request, ord *order) (any, error)) handler {
	return onBooks(func(o *OVH, r *request) (any, error) {
		ord := o.state.Orders[r.id("orderId")]
		if ord == nil {
			return nil, noObject("orderId", r.args["orderId"])
		}
		return do(o, r, ord)
	})
}

func (o *OVH) getOrder(_ *request, ord *order) (any, error) {
	withTax := ord.Ucents + ord.Ucents*tax/100
	return map[string]any{
		"date": seconds(ord.At), "expirationDate": seconds(ord.At.AddDate(0, 0, 14)), "orderId": ord.ID, "password": "none",
		"pdfUrl": orderURL(ord.ID) + ".pdf", "url": orderURL(ord.ID), "retractionDate": nil,
		"priceWithTax": price(withTax), "priceWithoutTax": price(ord.Ucents), "tax": price(withTax - ord.Ucents),
	}, nil
}

func (o *OVH) orderStatus(_ *request, ord *order) (any, error) { return ord.Status, nil }

func (o *OVH) listDetails(_ *request, ord *order) (any, error) {
	out := []int64{}
	for _, d := range ord.Details {
		out = append(out, d.ID)
	}
	return out, nil
}

func (ord *order) detail(r *request) (*detail, error) {
	for _, d := range ord.Details {
		if d.ID == r.id("orderDetailId") {
			return d, nil
		}
	}
	return nil, noObject("orderDetailId", r.args["orderDetailId"])
}

func (o *OVH) getDetail(r *request, ord *order) (any, error) {
	d, err := ord.detail(r)
	if err != nil {
		return nil, err
	}
	return map[string]any{
		"cancelled": false, "description": d.Text, "detailType": d.Kind, "domain": d.Domain, "orderDetailId": d.ID, "quantity": "1",
		"totalPrice": price(d.Ucents), "unitPrice": price(d.Ucents),
	}, nil
}

func (o *OVH) detailExtension(r *request, ord *order) (any, error) {
	d, err := ord.detail(r)
	if err != nil {
		return nil, err
	}
	configs := []any{}
	for _, k := range d.Item.Configs {
		configs = append(configs, map[string]any{"label": k.Label, "value": k.Value})
	}
	return map[string]any{"order": map[string]any{
		"action": "installation", "type": "plan", "configurations": configs,
		"plan": map[string]any{
			"code": d.Item.Plan, "duration": d.Item.Wish.Duration, "pricingMode": d.Item.Wish.PricingMode, "quantity": 1,
			"product": map[string]any{"name": d.Item.Product},
		},
	}}, nil
}
