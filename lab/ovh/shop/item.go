package shop

import (
	"slices"
	"strings"

	"popfleet/lab/ovh/api"
)

// item is a server in a cart, or an option of one.
type item struct {
	ID      int64    `json:"id"`
	Parent  int64    `json:"parent"` // 0 for a server
	Product string   `json:"product"`
	Plan    string   `json:"plan"`
	Name    string   `json:"name"`
	Family  string   `json:"family"`
	Wish    wish     `json:"wish"`
	Ucents  int64    `json:"ucents"`
	Setup   int64    `json:"setup"`
	Configs []config `json:"configs"`
}

type wish struct {
	Duration    string `json:"duration"`
	PlanCode    string `json:"planCode"`
	PricingMode string `json:"pricingMode"`
	Quantity    int    `json:"quantity"`
}

type config struct {
	ID    int64  `json:"id"`
	Label string `json:"label"`
	Value string `json:"value"`
}

// required are the configurations of a server, with the values they can have.
func required(p plan) map[string][]string {
	return map[string][]string{
		"dedicated_datacenter": sorted(p.stock),
		"dedicated_os":         {"none_64.en"},
		"region":               {"europe", "canada", "united_states"},
	}
}

// offers lists what can be put in a cart, or the options of a plan.
func offers(product string) Handler {
	return func(s *Shop, r *api.Request) (any, error) {
		if _, err := s.cart(r); err != nil {
			return nil, err
		}
		code, out := r.Query.Get("planCode"), []any{}
		for _, p := range plans() {
			if p.product == product && (code == "" || p.code == code) {
				out = append(out, map[string]any{"planCode": p.code, "productName": p.name, "productType": "delivery", "prices": prices(p.ucents, p.setup)})
			}
		}
		return out, nil
	}
}

func options(product string) Handler {
	return func(s *Shop, r *api.Request) (any, error) {
		if _, err := s.cart(r); err != nil {
			return nil, err
		}
		p, ok := planOf(product, r.Query.Get("planCode"))
		if !ok {
			return nil, api.NoObject("planCode", r.Query.Get("planCode"))
		}
		out := []any{}
		for _, f := range p.families {
			for _, a := range f.addons {
				out = append(out, map[string]any{
					"planCode": a.code, "productName": a.name, "family": f.name, "mandatory": true, "exclusive": true, "prices": prices(a.ucents, 0),
				})
			}
		}
		return out, nil
	}
}

func prices(ucents, setup int64) []any {
	one := func(kind, duration string, ucents int64, capacities ...string) any {
		return map[string]any{
			"capacities": capacities, "description": kind, "duration": duration, "interval": 1, "minimumQuantity": 1, "maximumQuantity": 1,
			"price": price(ucents), "priceInUcents": ucents, "pricingMode": "default", "pricingType": kind,
		}
	}
	out := []any{one("rental", "P1M", ucents, "renew")}
	if setup > 0 {
		out = append(out, one("installation", "P1M", setup, "installation"))
	}
	return out
}

func (w wish) check() error {
	switch {
	case w.Duration != "P1M":
		return api.Bad("[body.duration] %q is not offered for this plan", w.Duration)
	case w.PricingMode != "default":
		return api.Bad("[body.pricingMode] %q is not offered for this plan", w.PricingMode)
	case w.Quantity != 1:
		return api.Bad("[body.quantity] %d: expected 1", w.Quantity)
	}
	return nil
}

func addServer(product string) Handler {
	return func(s *Shop, r *api.Request) (any, error) {
		var in wish
		if err := r.Decode(&in); err != nil {
			return nil, err
		}
		c, err := s.openCart(r)
		if err != nil {
			return nil, err
		}
		p, ok := planOf(product, in.PlanCode)
		if !ok {
			return nil, api.NoObject("planCode", in.PlanCode)
		}
		if err := in.check(); err != nil {
			return nil, err
		}
		i := &item{ID: s.deps.NextID(), Product: product, Plan: p.code, Name: p.name, Wish: in, Ucents: p.ucents, Setup: p.setup}
		c.Items = append(c.Items, i)
		return c.wireItem(i), nil
	}
}

func addOption(product string) Handler {
	return func(s *Shop, r *api.Request) (any, error) {
		var in struct {
			wish
			ItemID int64 `json:"itemId"`
		}
		if err := r.Decode(&in); err != nil {
			return nil, err
		}
		c, err := s.openCart(r)
		if err != nil {
			return nil, err
		}
		parent := c.item(in.ItemID)
		if parent == nil || parent.Parent != 0 || parent.Product != product {
			return nil, api.NoObject("itemId", in.ItemID)
		}
		if err := in.check(); err != nil {
			return nil, err
		}
		p, _ := planOf(product, parent.Plan)
		f, a, ok := p.option(in.PlanCode)
		if !ok {
			return nil, api.Bad("[body.planCode] %q is no option of %s", in.PlanCode, p.code)
		}
		i := &item{ID: s.deps.NextID(), Parent: parent.ID, Product: product, Plan: a.code, Name: a.name, Family: f.name, Wish: in.wish, Ucents: a.ucents}
		c.Items = append(c.Items, i)
		return c.wireItem(i), nil
	}
}

func (c *cart) item(id int64) *item {
	for _, i := range c.Items {
		if i.ID == id {
			return i
		}
	}
	return nil
}

func (c *cart) wireItem(i *item) any {
	configs, opts := []int64{}, []int64{}
	for _, k := range i.Configs {
		configs = append(configs, k.ID)
	}
	for _, other := range c.Items {
		if other.Parent == i.ID {
			opts = append(opts, other.ID)
		}
	}
	return map[string]any{
		"cartId": c.ID, "itemId": i.ID, "parentItemId": i.Parent, "configurations": configs, "options": opts, "duration": i.Wish.Duration,
		"offerId": nil, "productId": i.Product, "settings": i.Wish, "prices": lines(i),
	}
}

// lines are what an item costs, by label.
func lines(i *item) []any {
	out := []any{map[string]any{"label": "RENEW", "price": price(i.Ucents)}}
	if i.Setup > 0 {
		out = append(out, map[string]any{"label": "INSTALLATION", "price": price(i.Setup)})
	}
	return append(out, map[string]any{"label": "TOTAL", "price": price(i.Ucents + i.Setup)})
}

// cartItem finds the item of a path.
func (s *Shop) cartItem(r *api.Request) (*cart, *item, error) {
	c, err := s.cart(r)
	if err != nil {
		return nil, nil, err
	}
	i := c.item(r.ID("itemId"))
	if i == nil {
		return nil, nil, api.NoObject("itemId", r.Args["itemId"])
	}
	return c, i, nil
}

func (s *Shop) getItem(r *api.Request) (any, error) {
	c, i, err := s.cartItem(r)
	if err != nil {
		return nil, err
	}
	return c.wireItem(i), nil
}

func (s *Shop) requiredConfiguration(r *api.Request) (any, error) {
	_, i, err := s.cartItem(r)
	if err != nil {
		return nil, err
	}
	out := []any{}
	if p, ok := planOf(i.Product, i.Plan); ok {
		for _, label := range sorted(required(p)) {
			out = append(out, map[string]any{"label": label, "required": true, "type": "String", "fields": []string{}, "allowedValues": required(p)[label]})
		}
	}
	return out, nil
}

func (s *Shop) listConfigurations(r *api.Request) (any, error) {
	_, i, err := s.cartItem(r)
	if err != nil {
		return nil, err
	}
	out := []int64{}
	for _, k := range i.Configs {
		if l := r.Query.Get("label"); l == "" || l == k.Label {
			out = append(out, k.ID)
		}
	}
	return out, nil
}

func (s *Shop) configure(r *api.Request) (any, error) {
	var in struct {
		Label string `json:"label"`
		Value string `json:"value"`
	}
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	if _, err := s.openCart(r); err != nil {
		return nil, err
	}
	_, i, err := s.cartItem(r)
	if err != nil {
		return nil, err
	}
	p, _ := planOf(i.Product, i.Plan)
	allowed, ok := required(p)[in.Label]
	switch {
	case !ok || i.Parent != 0:
		return nil, api.Bad("[body.label] %q can't be configured for this item", in.Label)
	case !slices.Contains(allowed, in.Value):
		return nil, api.Bad("[body.value] %q: expected one of %s", in.Value, strings.Join(allowed, ", "))
	case i.config(in.Label) != "":
		return nil, api.Conflict("%s is configured already", in.Label)
	}
	k := config{s.deps.NextID(), in.Label, in.Value}
	i.Configs = append(i.Configs, k)
	return k, nil
}

func (i *item) config(label string) string {
	for _, k := range i.Configs {
		if k.Label == label {
			return k.Value
		}
	}
	return ""
}
