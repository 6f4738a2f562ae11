package ovh

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"popfleet/provision/provider"
)

// Ordering is apart from [provider.Provider] on purpose: it spends money. The way is Availability, [Driver.Quote], a
// person's yes (the CLI's part), [Driver.Place], [Driver.Pay], [Driver.Delivered]. Shapes: OVH's API console, /order/cart,
// which is in none of the published descriptions.

// ErrPriceChanged says that the cart costs something else than the person agreed to.
var ErrPriceChanged = errors.New("the price is not the one that was agreed to")

// ErrUnclear says that an order may or may not have been placed. Nothing is ordered again by itself.
var ErrUnclear = errors.New("nobody can say whether the order was placed")

// Order ranges, as OVH's catalog splits them.
const (
	RangeStandard = "baremetalServers"
	RangeEco      = "eco"
)

// Wish is one server to order.
type Wish struct {
	Range         string // RangeStandard (default) or RangeEco
	PlanCode      string // 24rise01
	Duration      string // ISO 8601; default P1M
	PricingMode   string // default "default": month by month; degressivity12 binds for a year
	Subsidiary    string // FR, DE, …; default: the account's
	Configuration []Setting
	Options       []string // plan codes of memory, storage, bandwidth, …
}

// Setting is one configuration of a server: dedicated_datacenter, dedicated_os, region.
type Setting struct {
	Label string `json:"label"`
	Value string `json:"value"`
}

func (w Wish) withDefaults() Wish {
	for _, f := range []struct {
		field *string
		value string
	}{{&w.Range, RangeStandard}, {&w.Duration, "P1M"}, {&w.PricingMode, "default"}} {
		if *f.field == "" {
			*f.field = f.value
		}
	}
	return w
}

func (w Wish) check() error {
	switch {
	case w.PlanCode == "":
		return errors.New("no plan code")
	case w.Range != RangeStandard && w.Range != RangeEco:
		return fmt.Errorf("range %q: expected %s or %s", w.Range, RangeStandard, RangeEco)
	}
	return nil
}

// Price is order.Price.
type Price struct {
	Text     string  `json:"text"`
	Value    float64 `json:"value"`
	Currency string  `json:"currencyCode"`
}

func (p Price) String() string {
	if p.Text != "" {
		return printable(p.Text, 40)
	}
	return fmt.Sprintf("%.2f %s", p.Value, printable(p.Currency, 8))
}

// cents compares prices without the noise of floating point.
func (p Price) cents() int64 { return int64(p.Value*100 + 0.5) }

// Line is one position of a quote or an order.
type Line struct {
	Description string
	Quantity    int
	Price       Price
}

// Quote is what a server would cost. It orders nothing.
type Quote struct {
	Cart       string
	Wish       Wish
	Made       time.Time // OVH's clock
	Lines      []Line
	WithoutTax Price
	Tax        Price
	WithTax    Price    // due now, set-up fee and first term together
	Contracts  []string // where the terms are to be read
	Payment    int64    // the account's default payment method; 0 is none
	Needs      []string // what a person has to do first, if anything
	Known      []int64  // orders that existed when the quote was made
}

// Order is what a quote has become.
type Order struct {
	ID     int64
	URL    string // where a person sees and pays it
	Status string // checking, delivering, delivered, notPaid, documentsRequested, cancelling, cancelled, unknown
}

// Stock is what OVH has of one configuration at one datacenter.
type Stock struct {
	Configuration string // plan, memory and storage, as OVH names them together
	Datacenter    string
	Word          string        // OVH's: 1H-high, 72H, comingSoon, unavailable, …
	Within        time.Duration // delivery; 0 when it cannot be had
}

// Available says whether it can be had at all.
func (s Stock) Available() bool { return s.Within > 0 }

// Availability reads what OVH has of a plan, everywhere or at some datacenters.
func (d *Driver) Availability(ctx context.Context, plan string, datacenters ...string) ([]Stock, error) {
	op := "read the availability of plan " + plan
	query := url.Values{"planCode": {plan}}
	if len(datacenters) > 0 {
		query.Set("datacenters", strings.Join(datacenters, ","))
	}
	var found []struct {
		FQN         string
		Datacenters []struct{ Availability, Datacenter string }
	}
	err := d.get(ctx, op, "/dedicated/server/datacenter/availabilities?"+query.Encode(), &found)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, &Error{Op: op, Kind: provider.ErrNotFound, Hint: "the plan code is the one in OVH's catalog of this region (24rise01)"}
	}
	var out []Stock
	for _, f := range found {
		for _, c := range f.Datacenters {
			out = append(out, Stock{Configuration: printable(f.FQN, 120), Datacenter: printable(c.Datacenter, 40),
				Word: printable(c.Availability, 20), Within: within(c.Availability)})
		}
	}
	return out, nil
}

// within reads 1H-low, 72H, 2160H; the other words mean that it cannot be had.
func within(word string) time.Duration {
	hours, _, ok := strings.Cut(word, "H")
	n, err := strconv.Atoi(hours)
	if !ok || err != nil || n < 0 || n > 24*365 {
		return 0
	}
	return time.Duration(n) * time.Hour
}

// orderIDs lists the account's orders since then, on OVH's clock.
func (d *Driver) orderIDs(ctx context.Context, op string, since time.Time) ([]int64, error) {
	var ids []int64
	query := url.Values{"date.from": {since.UTC().Format(time.RFC3339)}}
	err := d.get(ctx, op+": list the orders", "/me/order?"+query.Encode(), &ids)
	return ids, err
}

func (d *Driver) orderStatus(ctx context.Context, op string, id int64) (string, error) {
	var status string
	err := d.get(ctx, op, fmt.Sprintf("/me/order/%d/status", id), &status)
	return printable(status, 40), err
}

// post is a call that must not be taken twice.
func (d *Driver) post(ctx context.Context, op, path string, body, out any) error {
	return d.call(ctx, op, request{method: http.MethodPost, path: path, body: body, out: out})
}

// spend is a call that costs money: it is sent once, also where the answer says that it was not taken.
func (d *Driver) spend(ctx context.Context, op, path string, body, out any) error {
	return d.call(ctx, op, request{method: http.MethodPost, path: path, body: body, out: out, money: true})
}
