package ovh

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"popfleet/provision/provider"
)

// cartRounds bounds how often a cart is filled anew after a lost reply.
const cartRounds = 3

// checkout is order.Order: what a cart costs (GET) or has become (POST).
type checkout struct {
	OrderID   int64  `json:"orderId"`
	URL       string `json:"url"`
	Contracts []struct {
		Name string `json:"name"`
		URL  string `json:"url"`
	} `json:"contracts"`
	Details []struct {
		Description string `json:"description"`
		Quantity    int    `json:"quantity"`
		TotalPrice  Price  `json:"totalPrice"`
	} `json:"details"`
	Prices struct {
		WithoutTax Price `json:"withoutTax"`
		Tax        Price `json:"tax"`
		WithTax    Price `json:"withTax"`
	} `json:"prices"`
}

// cartItem is what is put into a cart.
type cartItem struct {
	PlanCode    string `json:"planCode"`
	Duration    string `json:"duration"`
	PricingMode string `json:"pricingMode"`
	Quantity    int    `json:"quantity"`
	ItemID      int64  `json:"itemId,omitempty"` // of an option: what it belongs to
}

// Quote fills a cart and reads what it costs. Nothing is ordered; a cart that is not used expires.
func (d *Driver) Quote(ctx context.Context, w Wish) (Quote, error) {
	w = w.withDefaults()
	op := "ask for the price of plan " + w.PlanCode
	if err := w.check(); err != nil {
		return Quote{}, &Error{Op: op, Err: err}
	}
	if w.Subsidiary == "" {
		var me struct{ OvhSubsidiary string }
		if err := d.get(ctx, op+": read the account", "/me", &me); err != nil {
			return Quote{}, err
		}
		w.Subsidiary = me.OvhSubsidiary
	}
	w.Subsidiary = strings.ToUpper(w.Subsidiary)
	cart, err := d.filledCart(ctx, op, w)
	if err != nil {
		return Quote{}, err
	}
	return d.price(ctx, op, cart, w)
}

// filledCart fills a cart. An item whose reply is lost may be in it or not, and a second would be a second server: the
// cart is thrown away and the next one filled.
func (d *Driver) filledCart(ctx context.Context, op string, w Wish) (string, error) {
	for round := 1; ; round++ {
		cart, err := d.fill(ctx, op, w)
		if err == nil {
			return cart, nil
		}
		if cart != "" {
			d.discard(ctx, cart)
		}
		if ctx.Err() != nil || round == cartRounds || !mayHaveHappened(err) {
			return "", err
		}
		say(ctx, "%v; starting over with an empty cart", err)
		if err := sleep(ctx, jitter(d.opts.Backoff)); err != nil {
			return "", explain(op, request{}, err)
		}
	}
}

func (d *Driver) fill(ctx context.Context, op string, w Wish) (cart string, err error) {
	var made struct {
		CartID string `json:"cartId"`
	}
	err = d.post(ctx, op+": make a cart", "/order/cart", map[string]string{"ovhSubsidiary": w.Subsidiary,
		"description": "popfleet"}, &made)
	if err != nil {
		return "", err
	}
	path := cartPath(made.CartID)
	if err := d.post(ctx, op+": assign the cart", path+"/assign", nil, nil); err != nil {
		return made.CartID, err
	}
	var server struct {
		ItemID int64 `json:"itemId"`
	}
	item := cartItem{PlanCode: w.PlanCode, Duration: w.Duration, PricingMode: w.PricingMode, Quantity: 1}
	if err := d.post(ctx, op+": put the server into the cart", path+"/"+w.Range, item, &server); err != nil {
		return made.CartID, err
	}
	for _, c := range w.Configuration {
		err := d.post(ctx, op+": configure "+c.Label, fmt.Sprintf("%s/item/%d/configuration", path, server.ItemID), c, nil)
		if err != nil {
			return made.CartID, err
		}
	}
	for _, option := range w.Options {
		item.PlanCode, item.ItemID = option, server.ItemID
		if err := d.post(ctx, op+": add option "+option, path+"/"+w.Range+"/options", item, nil); err != nil {
			return made.CartID, err
		}
	}
	return made.CartID, nil
}

func cartPath(cart string) string { return "/order/cart/" + url.PathEscape(cart) }

// price reads what the cart costs, and what is missing to pay it.
func (d *Driver) price(ctx context.Context, op, cart string, w Wish) (Quote, error) {
	q := Quote{Cart: cart, Wish: w, Made: d.clock.theirs(time.Now())}
	var c checkout
	if err := d.get(ctx, op, cartPath(cart)+"/checkout", &c); err != nil {
		return q, err
	}
	q.WithoutTax, q.Tax, q.WithTax = c.Prices.WithoutTax, c.Prices.Tax, c.Prices.WithTax
	for _, l := range c.Details {
		q.Lines = append(q.Lines, Line{Description: printable(l.Description, 200), Quantity: l.Quantity, Price: l.TotalPrice})
	}
	for _, t := range c.Contracts {
		q.Contracts = append(q.Contracts, printable(t.Name, 80)+": "+printable(t.URL, 300))
	}
	var err error
	if q.Payment, err = d.defaultPayment(ctx, op); err != nil {
		return q, err
	}
	if q.Payment == 0 && q.WithTax.Value > 0 {
		q.Needs = append(q.Needs, "the account has no default payment method: add one in OVH's control panel (Billing, Payment methods) and make it the default")
	}
	q.Known, err = d.orderIDs(ctx, op, q.Made.Add(-clockSlack))
	return q, err
}

func (d *Driver) defaultPayment(ctx context.Context, op string) (int64, error) {
	var ids []int64
	err := d.get(ctx, op+": read the payment methods", "/me/payment/method?default=true", &ids)
	if err != nil || len(ids) == 0 {
		return 0, err
	}
	return ids[0], nil
}

// Discard empties the quote's cart at OVH; it is politeness, for carts expire.
func (d *Driver) Discard(ctx context.Context, q Quote) error {
	err := d.call(ctx, "discard cart "+q.Cart, request{method: http.MethodDelete, path: cartPath(q.Cart)})
	if absent(err) {
		return nil
	}
	return err
}

func (d *Driver) discard(ctx context.Context, cart string) {
	if err := d.Discard(ctx, Quote{Cart: cart}); err != nil {
		d.opts.Log.DebugContext(ctx, "cart is left to expire", "cart", cart, "error", err)
	}
}

// sold says whether the cart has become an order: OVH makes it read-only then.
func (d *Driver) sold(ctx context.Context, op, cart string) (bool, error) {
	var c struct {
		ReadOnly bool `json:"readOnly"`
	}
	err := d.get(ctx, op+": read the cart", cartPath(cart), &c)
	if absent(err) {
		return false, &Error{Op: op, Kind: provider.ErrNotFound, Err: bare(err), Hint: "the cart has expired: ask for the price again"}
	}
	return c.ReadOnly, err
}
