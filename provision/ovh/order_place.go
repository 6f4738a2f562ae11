package ovh

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"popfleet/provision/provider"
)

// lookForOrder is how long an order that may have been placed is looked for, at pace 1.
const lookForOrder = 2 * time.Minute

// Place orders what was quoted, once. Keep the quote before the call (it can be marshalled): when the reply is lost, or
// this tool is killed, Place of the same quote looks for the order and does not send a second. When nobody can say
// whether there is one, it fails with [ErrUnclear]. It does not pay. One order is placed at a time: two of the same price
// could not be told apart.
func (d *Driver) Place(ctx context.Context, q Quote) (Order, error) {
	op := "order plan " + q.Wish.PlanCode
	if len(q.Needs) > 0 {
		return Order{}, &Error{Op: op, Err: errors.New("nothing was ordered"), Hint: q.Needs[0]}
	}
	select {
	case d.ordering <- struct{}{}:
		defer func() { <-d.ordering }()
	case <-ctx.Done():
		return Order{}, explain(op, request{}, context.Cause(ctx))
	}
	o, err := d.place(ctx, op, q)
	if err == nil {
		d.claim(q, o)
	}
	return o, err
}

func (d *Driver) place(ctx context.Context, op string, q Quote) (Order, error) {
	sold, err := d.sold(ctx, op, q.Cart)
	if err != nil {
		return Order{}, err
	}
	if sold {
		return d.findOrder(ctx, op, q, errors.New("the cart was ordered before"))
	}
	before, err := d.ordersLike(ctx, op, q)
	if err != nil {
		return Order{}, err
	}
	if len(before) > 0 {
		return onlyOne(op, q, before)
	}
	if err := d.samePrice(ctx, op, q); err != nil {
		return Order{}, err
	}
	var c checkout
	err = d.spend(ctx, op, cartPath(q.Cart)+"/checkout", nil, &c)
	switch {
	case err == nil && c.OrderID != 0:
		d.opts.Log.InfoContext(ctx, "order placed", "order", c.OrderID, "plan", q.Wish.PlanCode)
		return Order{ID: c.OrderID, URL: printable(c.URL, 500), Status: "notPaid"}, nil
	case err != nil && !mayHaveHappened(err) && ctx.Err() == nil:
		return Order{}, err
	case err == nil:
		err = errors.New("OVH answered without the number of an order")
	}
	return d.findOrder(ctx, op, q, err)
}

// claim remembers which order is whose, so that the next quote of the same price does not find it.
func (d *Driver) claim(q Quote, o Order) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.placed[o.ID] = q.Cart
}

func (d *Driver) claimed(id int64, q Quote) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	cart, ok := d.placed[id]
	return ok && cart != q.Cart
}

func onlyOne(op string, q Quote, found []Order) (Order, error) {
	if len(found) > 1 {
		return Order{}, unclear(op, q, fmt.Errorf("%d orders since then look like it, %d and %d among them",
			len(found), found[0].ID, found[1].ID))
	}
	return found[0], nil
}

// samePrice reads the cart's price again just before it is ordered.
func (d *Driver) samePrice(ctx context.Context, op string, q Quote) error {
	var c checkout
	if err := d.get(ctx, op+": read the price again", cartPath(q.Cart)+"/checkout", &c); err != nil {
		return err
	}
	now := c.Prices.WithTax
	if now.cents() != q.WithTax.cents() || now.Currency != q.WithTax.Currency {
		return &Error{Op: op, Kind: ErrPriceChanged, Err: fmt.Errorf("it was %s and is %s; nothing was ordered", q.WithTax, now),
			Hint: "ask for the price again"}
	}
	return nil
}

// findOrder looks for the order of a quote among those since it was made: none known then, of the same price and plan.
func (d *Driver) findOrder(ctx context.Context, op string, q Quote, cause error) (Order, error) {
	say(ctx, "%s: %v; looking for the order", op, bare(cause))
	until := time.Now().Add(d.opts.Pace.Of(lookForOrder))
	for pause := d.opts.Backoff; ; pause = min(pause*8/5, maxPause) {
		found, err := d.ordersLike(ctx, op, q)
		switch {
		case err != nil:
			return Order{}, unclear(op, q, err)
		case len(found) > 0:
			return onlyOne(op, q, found)
		case time.Now().Add(pause).After(until):
			return Order{}, unclear(op, q, fmt.Errorf("%w; OVH shows no such order since %s", bare(cause), q.Made.UTC().Format(time.RFC3339)))
		}
		if err := sleep(ctx, jitter(pause)); err != nil {
			return Order{}, unclear(op, q, err)
		}
	}
}

func unclear(op string, q Quote, err error) error {
	return &Error{Op: op, Kind: ErrUnclear, Err: bare(err),
		Hint: fmt.Sprintf("look in OVH's control panel (Billing, My orders) for an order of %s over %s before anything is ordered again; cart %s", q.Wish.PlanCode, q.WithTax, q.Cart)}
}

func (d *Driver) ordersLike(ctx context.Context, op string, q Quote) ([]Order, error) {
	ids, err := d.orderIDs(ctx, op, q.Made.Add(-clockSlack))
	if err != nil {
		return nil, err
	}
	var out []Order
	for _, id := range ids {
		if slices.Contains(q.Known, id) || d.claimed(id, q) {
			continue
		}
		o, same, err := d.orderLike(ctx, op, id, q)
		if err != nil {
			return nil, err
		}
		if same {
			out = append(out, o)
		}
	}
	return out, nil
}

func (d *Driver) orderLike(ctx context.Context, op string, id int64, q Quote) (Order, bool, error) {
	var o struct {
		URL          string `json:"url"`
		PriceWithTax Price  `json:"priceWithTax"`
	}
	if err := d.get(ctx, fmt.Sprintf("%s: order %d", op, id), fmt.Sprintf("/me/order/%d", id), &o); err != nil {
		return Order{}, false, err
	}
	if o.PriceWithTax.cents() != q.WithTax.cents() {
		return Order{}, false, nil
	}
	status, err := d.orderStatus(ctx, op, id)
	if err != nil {
		return Order{}, false, err
	}
	name, err := d.orderedItem(ctx, op, id, q.Wish.PlanCode)
	return Order{ID: id, URL: printable(o.URL, 500), Status: status}, name.found, err
}

// Pay pays an order with the account's default payment method, unless it is paid. A lost reply is looked into, never
// answered with a second payment.
func (d *Driver) Pay(ctx context.Context, o Order, q Quote) error {
	op := fmt.Sprintf("pay order %d", o.ID)
	status, err := d.orderStatus(ctx, op, o.ID)
	if err != nil || (status != "notPaid" && status != "unknown") {
		return err
	}
	path := fmt.Sprintf("/me/order/%d/", o.ID)
	body := any(map[string]any{"paymentMethod": map[string]int64{"id": q.Payment}})
	if path += "pay"; q.WithTax.Value == 0 {
		path, body = fmt.Sprintf("/me/order/%d/payWithRegisteredPaymentMean", o.ID), map[string]string{"paymentMean": "fidelityAccount"}
	}
	err = d.spend(ctx, op, path, body, nil)
	if err == nil {
		return nil
	}
	if ctx.Err() == nil && mayHaveHappened(err) {
		say(ctx, "%v; looking whether it was taken", err)
		return d.paid(ctx, op, o, err)
	}
	return payError(op, o, err)
}

func (d *Driver) paid(ctx context.Context, op string, o Order, cause error) error {
	until := time.Now().Add(d.opts.Pace.Of(lookForOrder))
	for pause := d.opts.Backoff; ; pause = min(pause*8/5, maxPause) {
		status, err := d.orderStatus(ctx, op, o.ID)
		switch {
		case err != nil:
			return err
		case status != "notPaid" && status != "unknown":
			return nil
		case time.Now().Add(pause).After(until):
			return payError(op, o, cause)
		}
		if err := sleep(ctx, jitter(pause)); err != nil {
			return explain(op, request{}, err)
		}
	}
}

func payError(op string, o Order, err error) error {
	if errors.Is(err, provider.ErrUnauthorized) || absent(err) {
		return err
	}
	return &Error{Op: op, Err: bare(err), Hint: "the order stands and is not paid as far as OVH shows: pay or let it lapse at " + o.URL}
}
