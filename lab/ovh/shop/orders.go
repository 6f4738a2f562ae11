package shop

import (
	"context"
	"fmt"
	"time"

	"popfleet/lab/ovh/api"
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
	ID     int64  `json:"id"`
	Domain string `json:"domain"`
	Text   string `json:"text"`
	Kind   string `json:"kind"`
	Item   *item  `json:"item"`
	Ucents int64  `json:"ucents"`
	Sold   *Sold  `json:"sold"` // of a server's first line; nil elsewhere
}

const tax = 20 // per cent

// summary is what both checkouts answer.
func (s *Shop) summary(c *cart, id *int64) any {
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
func (s *Shop) preview(r *api.Request) (any, error) {
	c, err := s.checkable(r)
	if err != nil {
		return nil, err
	}
	return s.summary(c, nil), nil
}

// checkable finds a cart that could be bought.
func (s *Shop) checkable(r *api.Request) (*cart, error) {
	c, err := s.openCart(r)
	if err != nil {
		return nil, err
	}
	if !c.Assigned {
		return nil, api.Bad("Cart is not assigned to an account")
	}
	return c, c.complete()
}

// checkout buys: a cart can be bought once.
func (s *Shop) checkout(r *api.Request) (any, error) {
	var in struct {
		AutoPay bool `json:"autoPayWithPreferredPaymentMethod"`
		Waive   bool `json:"waiveRetractationPeriod"`
	}
	if len(r.Raw) > 0 {
		if err := r.Decode(&in); err != nil {
			return nil, err
		}
	}
	c, err := s.checkable(r)
	if err != nil {
		return nil, err
	}
	c.Bought = true
	ord := s.place(c)
	if in.AutoPay {
		s.paid(ord)
	}
	return s.summary(c, &ord.ID), nil
}

func (s *Shop) place(c *cart) *order {
	ucents, _ := c.due()
	ord := &order{ID: s.deps.NextID(), At: s.deps.Now(), Status: "notPaid", Ucents: ucents}
	for _, i := range c.Items {
		d := &detail{ID: s.deps.NextID(), Domain: fmt.Sprintf("*%d", i.ID), Text: i.Name, Kind: "DURATION", Item: i, Ucents: i.Ucents}
		if i.Parent == 0 {
			d.Sold = &Sold{Line: d.ID, Plan: i.Plan, Datacenter: i.config("dedicated_datacenter")}
		}
		ord.Details = append(ord.Details, d)
	}
	s.Orders[ord.ID] = ord
	return ord
}

// paid sends a paid order on its way.
func (s *Shop) paid(ord *order) {
	ord.Status = "checking"
	s.deps.Spawn(func(ctx context.Context) { s.deliver(ctx, ord) })
}

// deliver goes from checking to delivered: the machines are built and belong to the account.
func (s *Shop) deliver(ctx context.Context, ord *order) {
	if !pause(ctx, s.deps.PayTime()) {
		return
	}
	s.deps.Change(func() { ord.Status = "delivering" })
	if !pause(ctx, s.deps.DeliverTime()) {
		return
	}
	for _, d := range ord.Details {
		if d.Sold == nil {
			continue
		}
		service, err := s.deps.HandOver(ctx, *d.Sold)
		if err != nil {
			s.deps.Log.Error("deliver server", "order", ord.ID, "error", err)
			return // stays delivering
		}
		s.deps.Change(func() { ord.name(d.Item.ID, service) })
	}
	s.deps.Change(func() { ord.Status = "delivered" })
}

// name writes the service's name on the lines of a server and of its options.
func (ord *order) name(item int64, service string) {
	for _, d := range ord.Details {
		if d.Item.ID == item || d.Item.Parent == item {
			d.Domain = service
		}
	}
}

// Resume goes on with the deliveries a former lab left; the books are open.
func (s *Shop) Resume() {
	for _, id := range sorted(s.Orders) {
		if ord := s.Orders[id]; ord.Status == "checking" || ord.Status == "delivering" {
			s.deps.Spawn(func(ctx context.Context) { s.deliver(ctx, ord) })
		}
	}
}

func (s *Shop) listOrders(r *api.Request) (any, error) {
	from, to, err := between(r)
	if err != nil {
		return nil, err
	}
	out := []int64{}
	for _, id := range sorted(s.Orders) {
		at := s.Orders[id].At
		if !at.Before(from) && (to.IsZero() || !at.After(to)) {
			out = append(out, id)
		}
	}
	return out, nil
}

func between(r *api.Request) (from, to time.Time, err error) {
	for name, at := range map[string]*time.Time{"date.from": &from, "date.to": &to} {
		if v := r.Query.Get(name); v != "" {
			if *at, err = time.Parse(time.RFC3339, v); err != nil {
				return from, to, api.Bad("[query.%s] %q is not a date and time", name, v)
			}
		}
	}
	return from, to, nil
}

// onOrder makes a handler of what is done to one order.
func onOrder(do func(s *Shop, r *api.Request, ord *order) (any, error)) Handler {
	return func(s *Shop, r *api.Request) (any, error) {
		ord := s.Orders[r.ID("orderId")]
		if ord == nil {
			return nil, api.NoObject("orderId", r.Args["orderId"])
		}
		return do(s, r, ord)
	}
}

func (s *Shop) getOrder(_ *api.Request, ord *order) (any, error) {
	withTax := ord.Ucents + ord.Ucents*tax/100
	return map[string]any{
		"date": seconds(ord.At), "expirationDate": seconds(ord.At.AddDate(0, 0, 14)), "orderId": ord.ID, "password": "none",
		"pdfUrl": orderURL(ord.ID) + ".pdf", "url": orderURL(ord.ID), "retractionDate": nil,
		"priceWithTax": price(withTax), "priceWithoutTax": price(ord.Ucents), "tax": price(withTax - ord.Ucents),
	}, nil
}

func (s *Shop) orderStatus(_ *api.Request, ord *order) (any, error) { return ord.Status, nil }

func (s *Shop) listDetails(_ *api.Request, ord *order) (any, error) {
	out := []int64{}
	for _, d := range ord.Details {
		out = append(out, d.ID)
	}
	return out, nil
}

func (ord *order) detail(r *api.Request) (*detail, error) {
	for _, d := range ord.Details {
		if d.ID == r.ID("orderDetailId") {
			return d, nil
		}
	}
	return nil, api.NoObject("orderDetailId", r.Args["orderDetailId"])
}

func (s *Shop) getDetail(r *api.Request, ord *order) (any, error) {
	d, err := ord.detail(r)
	if err != nil {
		return nil, err
	}
	return map[string]any{
		"cancelled": false, "description": d.Text, "detailType": d.Kind, "domain": d.Domain, "orderDetailId": d.ID, "quantity": "1",
		"totalPrice": price(d.Ucents), "unitPrice": price(d.Ucents),
	}, nil
}

func (s *Shop) detailExtension(r *api.Request, ord *order) (any, error) {
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
