package shop

import (
	"cmp"
	"crypto/rand"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"popfleet/lab/ovh/api"
)

// cart is a shopping cart: what would be bought, by whom once it is assigned. No description of it is published;
// shapes follow what the provider's own Terraform provider and its order-cart examples send and read.
type cart struct {
	ID          string    `json:"id"`
	Subsidiary  string    `json:"subsidiary"`
	Description string    `json:"description"`
	Expires     time.Time `json:"expires"`
	Assigned    bool      `json:"assigned"`
	Bought      bool      `json:"bought"`
	Items       []*item   `json:"items"`
}

func (s *Shop) createCart(r *api.Request) (any, error) {
	var in struct {
		Subsidiary  string     `json:"ovhSubsidiary"`
		Description string     `json:"description"`
		Expire      *time.Time `json:"expire"`
	}
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	if !slices.Contains([]string{"CZ", "DE", "ES", "EU", "FI", "FR", "GB", "IE", "IT", "LT", "MA", "NL", "PL", "PT", "SN", "TN"}, in.Subsidiary) {
		return nil, api.Bad("[body.ovhSubsidiary] Given data (%s) does not belong to the OvhSubsidiaryEnum enumeration", in.Subsidiary)
	}
	c := &cart{ID: strings.ToLower(rand.Text()), Subsidiary: in.Subsidiary, Description: in.Description, Expires: s.deps.Now().AddDate(0, 0, 1)}
	if in.Expire != nil {
		c.Expires = *in.Expire
	}
	s.Carts[c.ID] = c
	return c.wire(), nil
}

func (c *cart) wire() any {
	ids := []int64{}
	for _, i := range c.Items {
		ids = append(ids, i.ID)
	}
	return map[string]any{"cartId": c.ID, "description": c.Description, "expire": seconds(c.Expires), "items": ids, "readOnly": c.Bought}
}

func (s *Shop) cart(r *api.Request) (*cart, error) {
	c := s.Carts[r.Args["cartId"]]
	if c == nil || s.deps.Now().After(c.Expires) {
		return nil, api.NoObject("cartId", r.Args["cartId"])
	}
	return c, nil
}

// open finds a cart that can still be changed.
func (s *Shop) openCart(r *api.Request) (*cart, error) {
	c, err := s.cart(r)
	if err == nil && c.Bought {
		err = api.Fail(http.StatusBadRequest, "Client::BadRequest", "Cart %s is read only: it was checked out", c.ID)
	}
	return c, err
}

func (s *Shop) getCart(r *api.Request) (any, error) {
	c, err := s.cart(r)
	if err != nil {
		return nil, err
	}
	return c.wire(), nil
}

func (s *Shop) deleteCart(r *api.Request) (any, error) {
	c, err := s.openCart(r)
	if err != nil {
		return nil, err
	}
	delete(s.Carts, c.ID)
	return nil, nil
}

func (s *Shop) assignCart(r *api.Request) (any, error) {
	c, err := s.openCart(r)
	if err != nil {
		return nil, err
	}
	if c.Assigned {
		return nil, api.Conflict("Cart is already assigned")
	}
	c.Assigned = true
	return nil, nil
}

// complete says what is missing before a cart can be bought, or nil.
func (c *cart) complete() error {
	servers := 0
	for _, i := range c.Items {
		if i.Parent != 0 {
			continue
		}
		servers++
		p, _ := planOf(i.Product, i.Plan)
		for _, label := range sorted(required(p)) {
			if i.config(label) == "" {
				return api.Bad("Required configuration %s is missing for item %d", label, i.ID)
			}
		}
		if err := c.optioned(i, p); err != nil {
			return err
		}
		if dc := i.config("dedicated_datacenter"); !p.deliverable(dc) {
			return api.Bad("%s is not available in %s", p.code, dc)
		}
	}
	if servers == 0 {
		return api.Bad("Cart is empty")
	}
	return nil
}

// optioned holds an item's options against what its plan needs: one of each family.
func (c *cart) optioned(i *item, p plan) error {
	for _, f := range p.families {
		n := 0
		for _, other := range c.Items {
			if other.Parent == i.ID && other.Family == f.name {
				n++
			}
		}
		if n != 1 {
			return api.Bad("Item %d needs one option of the family %s, it has %d", i.ID, f.name, n)
		}
	}
	return nil
}

// due is what a cart costs now and what is on the bill, servers first.
func (c *cart) due() (ucents int64, details []any) {
	items := slices.Clone(c.Items)
	slices.SortStableFunc(items, func(a, b *item) int { return cmp.Compare(a.Parent, b.Parent) })
	for _, i := range items {
		for _, l := range []struct {
			kind   string
			ucents int64
		}{{"DURATION", i.Ucents}, {"INSTALLATION", i.Setup}} {
			if l.kind == "INSTALLATION" && l.ucents == 0 {
				continue
			}
			ucents += l.ucents
			details = append(details, map[string]any{
				"cartItemID": i.ID, "description": fmt.Sprintf("%s (1 month)", i.Name), "detailType": l.kind, "domain": fmt.Sprintf("*%d", i.ID),
				"quantity": 1, "unitPrice": price(l.ucents), "totalPrice": price(l.ucents), "originalTotalPrice": price(l.ucents), "reductions": []any{},
			})
		}
	}
	return ucents, details
}
