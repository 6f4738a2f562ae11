package hetznerrobot

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"popfleet/provision/provider"
)

// Ordering spends money, so it is no part of [provider.Provider]: whoever calls [Driver.Place] has shown a [Quote] to a
// person and heard yes. Prices are those of the account, in euros.

// Order is a server to be ordered.
//
// Key belongs to this one order (see [NewOrderKey]) and is kept by the caller before Place is called: it is the only thing
// of ours that Robot gives back with a transaction, so a transaction with this key is this order. A comment would do as
// well, but hands the order to a person at Hetzner.
type Order struct {
	Market   bool   // an auctioned server instead of a new one
	Product  string // EX44; for the market the number of the one machine
	Location string // FSN1; of the standard products only, "" leaves it to Hetzner where there is one
	IPv4     bool   // with the chargeable primary IPv4 address: servers come without one otherwise
	Key      provider.SSHKey
}

const addonIPv4 = "primary_ipv4"

// distRescue is what a server is delivered with: it is installed by us, from rescue.
const distRescue = "Rescue system"

// NewOrderKey makes a key for one order. Its private half is dropped: the delivered system is never logged in to, since
// EnterRescue arms a fresh one for the fleet's key.
func NewOrderKey(name string) (provider.SSHKey, error) {
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return provider.SSHKey{}, fmt.Errorf("make an order key: %w", err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		return provider.SSHKey{}, fmt.Errorf("make an order key: %w", err)
	}
	return provider.SSHKey{Name: name, Public: strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))) + " " + name}, nil
}

// Product is a server on offer.
type Product struct {
	Market      bool
	ID          string
	Name        string
	Description []string
	Locations   []string
	Prices      []Price // by location

	dists []string
	ipv4  []Price
}

// Price is what a product costs at a location.
type Price struct {
	Location   string
	Net, Gross Amounts
}

// Amounts are the parts of a price.
type Amounts struct {
	Monthly, Setup, Hourly Euro
}

// Availability says whether an order could be placed now, and if not, why.
type Availability struct {
	Offered   bool
	Locations []string // where it is on offer
	Why       string   // "" when offered
}

// Quote is what an order costs, as shown to the person who is to agree.
type Quote struct {
	Order    Order
	Name     string // of the product
	Location string
	Net      Amounts // the IPv4 address included where ordered
	Gross    Amounts
	Term     string // how it is billed and ends, as far as Robot says
	Test     string // what Robot answered to the same order with test=true
	At       time.Time
}

// Products lists what is on offer now, standard or market.
func (d *Driver) Products(ctx context.Context, market bool) ([]Product, error) {
	var all []wireProduct
	err := d.call(ctx, "list products", request{class: classOrder, method: http.MethodGet, path: orderPath(market, "product")}, &all)
	if err != nil && !absent(err) {
		return nil, err
	}
	var out []Product
	for _, w := range all {
		p, err := w.product(market)
		if err != nil {
			return nil, &provider.Error{Op: "list products", Err: err}
		}
		out = append(out, p)
	}
	return out, nil
}

// Availability asks whether o is on offer: the product, the location, the address and a delivery with the rescue system.
func (d *Driver) Availability(ctx context.Context, o Order) (Availability, error) {
	p, err := d.product(ctx, "look for product "+o.Product, o)
	if errors.Is(err, provider.ErrNotFound) {
		return Availability{Why: fmt.Sprintf("%s is not on offer now", o.Product)}, nil
	}
	if err != nil {
		return Availability{}, err
	}
	_, why := p.priceOf(o)
	return Availability{Offered: why == "", Locations: p.Locations, Why: why}, nil
}

func (d *Driver) product(ctx context.Context, op string, o Order) (Product, error) {
	if err := o.check(); err != nil {
		return Product{}, &provider.Error{Op: op, Err: err}
	}
	var w wireProduct
	err := d.call(ctx, op, request{class: classOrder, method: http.MethodGet,
		path: orderPath(o.Market, "product/"+url.PathEscape(o.Product))}, &w)
	if err != nil {
		return Product{}, err
	}
	p, err := w.product(o.Market)
	if err == nil && p.ID != o.Product {
		err = fmt.Errorf("%w: it speaks of product %s", errMalformed, p.ID)
	}
	if err != nil {
		return Product{}, &provider.Error{Op: op, Err: err}
	}
	return p, nil
}

func (o Order) check() error {
	if o.Product == "" || len(o.Product) > 100 || printable(o.Product, 100) != o.Product || strings.Trim(o.Product, ".") == "" {
		return fmt.Errorf("product %.40q: expected an id as in the list of products", o.Product)
	}
	if o.Market && o.Location != "" {
		return errors.New("an auctioned server stands where it stands: give no location")
	}
	return nil
}

// priceOf is what o costs, all in; or why it cannot be ordered.
func (p Product) priceOf(o Order) (Price, string) {
	at := o.Location
	if at == "" && len(p.Locations) == 1 {
		at = p.Locations[0]
	}
	if at == "" {
		return Price{}, fmt.Sprintf("%s needs a location: one of %s", p.ID, strings.Join(p.Locations, ", "))
	}
	if !slices.Contains(p.Locations, at) {
		return Price{}, fmt.Sprintf("%s is not on offer at %s; it is at %s", p.ID, at, strings.Join(p.Locations, ", "))
	}
	price, ok := priceAt(p.Prices, at)
	if !ok {
		return Price{}, fmt.Sprintf("Robot names no price of %s at %s", p.ID, at)
	}
	if !slices.Contains(p.dists, distRescue) {
		return Price{}, fmt.Sprintf("%s is not delivered with the rescue system", p.ID)
	}
	if !o.IPv4 {
		return price, ""
	}
	address, ok := priceAt(p.ipv4, at)
	if !ok {
		if address, ok = priceAt(p.ipv4, strings.SplitN(at, "-", 2)[0]); !ok { // the market names data centers: FSN1-DC4
			return Price{}, fmt.Sprintf("%s at %s comes without an IPv4 address", p.ID, at)
		}
	}
	price.Net, price.Gross = price.Net.plus(address.Net), price.Gross.plus(address.Gross)
	return price, ""
}

func priceAt(all []Price, location string) (Price, bool) {
	i := slices.IndexFunc(all, func(p Price) bool { return p.Location == location })
	if i < 0 {
		return Price{}, false
	}
	return all[i], true
}

func (a Amounts) plus(b Amounts) Amounts {
	sum := Amounts{Monthly: a.Monthly + b.Monthly, Setup: a.Setup + b.Setup}
	if a.Hourly > 0 { // a part that is not billed by the hour has no hourly price
		sum.Hourly = a.Hourly + b.Hourly
	}
	return sum
}

// above says whether any part of a is dearer than in b.
func (a Amounts) above(b Amounts) bool {
	return a.Monthly > b.Monthly || a.Setup > b.Setup || a.Hourly > b.Hourly
}

func orderPath(market bool, tail string) string {
	if market {
		return "/order/server_market/" + tail
	}
	return "/order/server/" + tail
}
