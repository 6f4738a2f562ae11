package hetznerrobot

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"popfleet/provision/provider"
)

// quoteFresh is how long a person's yes holds.
const quoteFresh = 30 * time.Minute

// ordered is how often Robot is asked about an order whose reply was lost before the driver gives up knowing.
const ordered = 6

// awaitDelivery bounds [Driver.Await]: auctioned servers take minutes, new ones may take days and are awaited again.
const awaitDelivery = time.Hour

const ambiguousHint = "look in Robot under Orders before you order again; the same order with the same key looks for it once more"

// Transaction is an order that was placed.
type Transaction struct {
	Market   bool
	ID       string // B20150121-344958-251479
	Status   string // in process, ready, cancelled
	Product  string
	Location string
	Server   string // its number, once it is ready
	At       time.Time
}

// Preview asks Robot for the price and has the order checked with test=true, which orders nothing.
func (d *Driver) Preview(ctx context.Context, o Order) (Quote, error) {
	op := "preview the order of " + o.Product
	p, err := d.product(ctx, op, o)
	if err != nil {
		return Quote{}, err
	}
	q, err := quote(op, o, p)
	if err != nil {
		return Quote{}, err
	}
	form, err := d.orderForm(ctx, op, o)
	if err != nil {
		return Quote{}, err
	}
	form.Set("test", "true")
	var answer wireTransaction
	err = d.call(ctx, op, request{class: classBuy, method: http.MethodPost, path: orderPath(o.Market, "transaction"), form: form}, &answer)
	if err != nil {
		return Quote{}, refusedOrder(op, err)
	}
	t, err := answer.transaction(o.Market)
	if err == nil && t.Product != o.Product {
		err = fmt.Errorf("%w: the test is of product %s", errMalformed, t.Product)
	}
	if err != nil {
		return Quote{}, &provider.Error{Op: op, Err: err}
	}
	q.Test, q.At = "accepted as "+t.ID+", "+t.Status, time.Now()
	return q, nil
}

func quote(op string, o Order, p Product) (Quote, error) {
	price, why := p.priceOf(o)
	if why != "" {
		return Quote{}, &provider.Error{Op: op, Kind: provider.ErrUnavailable, Err: errors.New(why)}
	}
	term := "by the month; Robot states no term: read the product's page for its notice period"
	if price.Net.Hourly > 0 {
		term = "by the hour up to the monthly price, until it is cancelled in Robot; the setup fee is not given back"
	}
	return Quote{Order: o, Name: p.Name, Location: price.Location, Net: price.Net, Gross: price.Gross, Term: term}, nil
}

// Place orders what q quotes, once. An order with o's key that exists already is returned, however old q is, and nothing is
// ordered: so a run that was killed here is repeated with the same o and q. After a lost reply the driver looks for the order; when it cannot be found, the error says so and nothing is sent again.
func (d *Driver) Place(ctx context.Context, o Order, q Quote) (Transaction, error) {
	op := "order " + o.Product
	if q.Order != o {
		return Transaction{}, &provider.Error{Op: op, Err: errors.New("the quote is for another order")}
	}
	select { // one at a time: the second of two with one key finds the first
	case d.ordering <- struct{}{}:
	case <-ctx.Done():
		return Transaction{}, explain(op, context.Cause(ctx))
	}
	defer func() { <-d.ordering }()
	form, err := d.orderForm(ctx, op, o)
	if err != nil {
		return Transaction{}, err
	}
	if t, found, err := d.placed(ctx, op, o); err != nil || found {
		return t, err
	}
	if err := d.stillCosts(ctx, op, o, q); err != nil {
		return Transaction{}, err
	}
	var answer wireTransaction
	err = d.callOnce(ctx, op, request{class: classBuy, method: http.MethodPost, path: orderPath(o.Market, "transaction"), form: form}, &answer)
	if err == nil {
		var t Transaction
		if t, err = answer.transaction(o.Market); err == nil && t.Product == o.Product {
			return t, nil
		}
		if err == nil {
			err = fmt.Errorf("%w: it speaks of product %s", errMalformed, t.Product)
		}
	}
	if ctx.Err() == nil && !mayHaveHappened(err) {
		return Transaction{}, refusedOrder(op, err)
	}
	return d.lookForOrder(ctx, op, o, err)
}

func (d *Driver) orderForm(ctx context.Context, op string, o Order) (url.Values, error) {
	key, err := d.ensureKey(ctx, op, o.Key)
	if err != nil {
		return nil, err
	}
	form := url.Values{"product_id": {o.Product}, "dist": {distRescue}, "lang": {"en"}, "authorized_key[]": {key}}
	if o.Location != "" {
		form.Set("location", o.Location)
	}
	if o.IPv4 {
		form.Set("addon[]", addonIPv4)
	}
	return form, nil
}

// stillCosts refuses an order that has become dearer than what a person agreed to, or whose yes is too old.
func (d *Driver) stillCosts(ctx context.Context, op string, o Order, q Quote) error {
	if age := time.Since(q.At); age > quoteFresh {
		return &provider.Error{Op: op, Err: fmt.Errorf("the quote is %s old", age.Round(time.Minute)), Hint: "ask for a new one"}
	}
	p, err := d.product(ctx, op, o)
	if err != nil {
		return err
	}
	now, err := quote(op, o, p)
	if err != nil {
		return err
	}
	if now.Net.above(q.Net) || now.Gross.above(q.Gross) || q.Net.Hourly > 0 && now.Net.Hourly == 0 {
		return &provider.Error{Op: op, Hint: "ask for a new quote",
			Err: fmt.Errorf("the price rose to %s a month and %s once, net, since it was shown", now.Net.Monthly, now.Net.Setup)}
	}
	return nil
}

// placed looks for the order that carries o's key in the list of the last 30 days.
func (d *Driver) placed(ctx context.Context, op string, o Order) (Transaction, bool, error) {
	key, err := fingerprintMD5(o.Key.Public)
	if err != nil {
		return Transaction{}, false, &provider.Error{Op: op, Err: err}
	}
	var all []wireTransaction
	err = d.call(ctx, op, request{class: classOrder, method: http.MethodGet, path: orderPath(o.Market, "transaction")}, &all)
	if err != nil && !absent(err) {
		return Transaction{}, false, err
	}
	var found []Transaction
	for _, w := range all {
		if !holds(w.Transaction.Authorized, key) {
			continue
		}
		t, err := w.transaction(o.Market)
		if err != nil {
			return Transaction{}, false, &provider.Error{Op: op, Err: err}
		}
		found = append(found, t)
	}
	return theOne(op, o, found)
}

// theOne accepts one order for o's product, and no order twice.
func theOne(op string, o Order, found []Transaction) (Transaction, bool, error) {
	if len(found) == 0 {
		return Transaction{}, false, nil
	}
	if t := found[0]; len(found) == 1 && t.Product == o.Product &&
		(t.Location == o.Location || t.Location == "" || o.Location == "") && t.Status != "cancelled" {
		return t, true, nil
	}
	ids := ""
	for _, t := range found {
		ids += fmt.Sprintf(" %s (%s, %s)", t.ID, t.Product, t.Status)
	}
	return Transaction{}, false, &provider.Error{Op: op, Kind: provider.ErrAmbiguous,
		Err: errors.New("orders with this key exist already:" + ids), Hint: "look at them in Robot; a new order needs a new key"}
}

// lookForOrder finds out what became of an order whose reply was lost. It never orders.
func (d *Driver) lookForOrder(ctx context.Context, op string, o Order, cause error) (Transaction, error) {
	unknown := &provider.Error{Op: op, Kind: provider.ErrAmbiguous, Hint: ambiguousHint,
		Err: fmt.Errorf("it is not known whether the order was placed: %w", cause)}
	for range ordered {
		say(ctx, "%s: %v; looking whether the order was placed all the same", op, cause)
		if err := sleep(ctx, d.opts.Poll); err != nil {
			return Transaction{}, unknown
		}
		t, found, err := d.placed(ctx, op, o)
		if found {
			d.opts.Log.WarnContext(ctx, "reply of an order lost, found it", "transaction", t.ID)
			return t, nil
		}
		if err != nil {
			unknown.Err = fmt.Errorf("%w; and looking for it: %w", unknown.Err, err)
			return Transaction{}, unknown
		}
	}
	return Transaction{}, unknown
}

// Await waits until the ordered server is delivered, and returns its number.
func (d *Driver) Await(ctx context.Context, t Transaction) (string, error) {
	op := "await the delivery of order " + t.ID
	limit := d.opts.Pace.Of(awaitDelivery)
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not delivered in %s", limit))
	defer cancel()
	for pause := d.opts.Poll; ; pause = min(pause*8/5, 12*d.opts.Poll) {
		var w wireTransaction
		err := d.call(ctx, op, request{class: classOrder, method: http.MethodGet,
			path: orderPath(t.Market, "transaction/"+url.PathEscape(t.ID))}, &w)
		if err != nil {
			return "", undelivered(ctx, op, err)
		}
		now, err := w.transaction(t.Market)
		switch {
		case err != nil:
			return "", &provider.Error{Op: op, Err: err}
		case now.ID != t.ID:
			return "", &provider.Error{Op: op, Err: fmt.Errorf("%w: it speaks of order %s", errMalformed, now.ID)}
		case now.Status == "ready" && now.Server != "":
			return now.Server, nil
		case now.Status == "cancelled":
			return "", &provider.Error{Op: op, Kind: provider.ErrActionFailed, Err: errors.New("cancelled by Hetzner"),
				Hint: "Hetzner says why by mail"}
		}
		say(ctx, "%s: %s", op, now.Status)
		if err := sleep(ctx, pause); err != nil {
			return "", undelivered(ctx, op, err)
		}
	}
}

func undelivered(ctx context.Context, op string, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return &provider.Error{Op: op, Kind: provider.ErrTimeout, Err: context.Cause(ctx),
		Hint: "the order goes on at Hetzner: run the same command again to go on waiting"}
}

// refusedOrder explains an order that was refused for certain.
func refusedOrder(op string, err error) error {
	if codeOf(err) == codeInvalidInput {
		return &provider.Error{Op: op, Kind: provider.ErrUnavailable, Err: err,
			Hint: "the product may be sold out, or ordering not activated for the webservice (Robot: Settings, Web service settings)"}
	}
	return explain(op, err)
}
