package cli

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"popfleet/inventory"
	"popfleet/provision/hetznerrobot"
	"popfleet/provision/ovh"
	"popfleet/provision/provider"
)

// orderArgs are what a person says of a server to be ordered.
type orderArgs struct {
	Product  string            `json:"product"`
	Location string            `json:"location,omitempty"`
	Market   bool              `json:"market,omitempty"`  // Hetzner: an auctioned machine
	Eco      bool              `json:"eco,omitempty"`     // OVH: the eco range
	Options  []string          `json:"options,omitempty"` // OVH: plan codes
	Settings map[string]string `json:"settings,omitempty"`
	allow    bool
}

func (a *app) orderCommand() *cobra.Command {
	var o orderArgs
	c := &cobra.Command{
		Use:   "order PROVIDER PRODUCT | order ID",
		Short: "Show what a dedicated server costs, and with --allow-orders order it",
		Long: "order asks the provider for price, term and availability. Nothing is ordered without --allow-orders, a terminal, and the product's name typed by a person. " +
			"An order that was begun is kept under .fleet/orders/; `fleet order ID` goes on with it and never places it twice.",
		Args: cobra.RangeArgs(1, 2),
		RunE: func(c *cobra.Command, args []string) error { return a.runOrder(c.Context(), args, o) },
	}
	f := c.Flags()
	f.BoolVar(&o.allow, "allow-orders", false, "this may cost money")
	f.StringVar(&o.Location, "location", "", "`where`: FSN1 at Hetzner, gra at OVH")
	f.BoolVar(&o.Market, "market", false, "hetznerrobot: PRODUCT is the number of an auctioned machine")
	f.BoolVar(&o.Eco, "eco", false, "ovh: PRODUCT is a plan of the eco range")
	f.StringSliceVar(&o.Options, "option", nil, "ovh: `PLAN` code of memory, storage, bandwidth; may be repeated")
	f.StringToStringVar(&o.Settings, "setting", nil, "ovh: `KEY=VALUE` of the product's configuration")
	return c
}

// order is one order as it is kept: it is on disk before anything is sent, so that it is never placed twice.
type order struct {
	ID       string              `json:"id"`
	Provider string              `json:"provider"`
	Args     orderArgs           `json:"args"`
	State    string              `json:"state"` // quoted, placing, placed, delivered
	Robot    *hetznerrobot.Order `json:"robot,omitempty"`
	RobotQ   *hetznerrobot.Quote `json:"robot_quote,omitempty"`
	OVHQ     *ovh.Quote          `json:"ovh_quote,omitempty"`
	Placed   string              `json:"placed,omitempty"` // the provider's number of it
	Server   string              `json:"server,omitempty"`
}

// seller is what ordering asks of a provider.
type seller interface {
	// quote asks for price and term, and has the provider check the order; nothing is ordered.
	quote(ctx context.Context, o *order) (lines []string, err error)
	// place orders what was quoted, once, however often it is called.
	place(ctx context.Context, o *order) error
	// deliver waits for the server.
	deliver(ctx context.Context, o *order) error
}

func (a *app) runOrder(ctx context.Context, args []string, given orderArgs) (err error) {
	s, err := a.open(ctx, "order", args, needs{lock: true})
	if err != nil {
		return err
	}
	defer func() { s.close(ctx, codeOf(err)) }()
	o, err := s.theOrder(args, given)
	if err != nil {
		return err
	}
	shop, err := s.seller(ctx, o.Provider)
	if err != nil {
		return err
	}
	if o.State == "quoted" {
		if err := s.agree(ctx, shop, o, given.allow); err != nil {
			return err
		}
	}
	if o.State == "" {
		return nil // shown, not ordered
	}
	return s.carryOrder(ctx, shop, o)
}

// theOrder is one that was begun, by its id, or a new one.
func (s *session) theOrder(args []string, given orderArgs) (*order, error) {
	if len(args) == 1 {
		return s.loadOrder(args[0])
	}
	at := args[0]
	if !(inventory.Machine{Provider: at}).Dedicated() {
		return nil, fmt.Errorf("order at %q: only %s and %s sell dedicated servers; cloud servers are rented by `fleet up`", at, inventory.ProviderHetznerRobot, inventory.ProviderOVH)
	}
	given.Product = args[1]
	var id [4]byte
	if _, err := rand.Read(id[:]); err != nil {
		return nil, err
	}
	return &order{ID: "o-" + hex.EncodeToString(id[:]), Provider: at, Args: given, State: "quoted"}, nil
}

// agree shows what it costs and asks a person. A killed run that got no answer has ordered nothing.
func (s *session) agree(ctx context.Context, shop seller, o *order, allow bool) error {
	lines, err := shop.quote(ctx, o)
	if err != nil {
		return err
	}
	for _, l := range lines {
		s.app.out.data("  %s\n", l)
	}
	s.app.out.event("quote", "", map[string]any{"provider": o.Provider, "product": o.Args.Product, "lines": lines})
	if !allow {
		o.State = ""
		s.app.out.say("nothing was ordered; --allow-orders asks for it")
		return nil
	}
	// There is no --yes for this: it is money, and the price has to be read.
	if err := s.app.confirm(false, "This orders the server and costs what is shown.", o.Args.Product); err != nil {
		return err
	}
	o.State = "placing"
	return s.saveOrder(o)
}

func (s *session) carryOrder(ctx context.Context, shop seller, o *order) error {
	again := s.app.again("order", o.ID)
	if o.State == "placing" {
		if err := shop.place(ctx, o); err != nil {
			return fmt.Errorf("%w\n  the order is kept as %s; look at the provider, then go on with: %s", err, o.ID, again)
		}
		o.State = "placed"
		if err := s.saveOrder(o); err != nil {
			return err
		}
		s.app.out.say("ordered: %s %s", o.Provider, o.Placed)
	}
	if o.State == "placed" {
		if err := shop.deliver(ctx, o); err != nil {
			return fmt.Errorf("%w\n  go on waiting with: %s", err, again)
		}
		o.State = "delivered"
		if err := s.saveOrder(o); err != nil {
			return err
		}
	}
	s.app.out.event("delivered", "", map[string]any{"provider": o.Provider, "server": o.Server})
	s.app.out.data("%s delivered: %s server %s\n", s.app.out.paint(green, "✓"), o.Provider, o.Server)
	s.app.out.say("next: at its node in fleet.yaml say\n    machine: {provider: %s, server: %q}\n  then: %s", o.Provider, o.Server, s.app.again("up", "--adopt", "NODE"))
	return nil
}

var orderID = regexp.MustCompile(`^o-[0-9a-f]{8}$`)

func (s *session) orderPath(id string) string { return s.app.path(".fleet", "orders", id+".json") }

func (s *session) loadOrder(id string) (*order, error) {
	if !orderID.MatchString(id) {
		return nil, fmt.Errorf("order %q: expected PROVIDER PRODUCT, or the id of an order that was begun", id)
	}
	text, err := os.ReadFile(s.orderPath(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no order %s was begun here", id)
	}
	if err != nil {
		return nil, err
	}
	var o order
	if err := json.Unmarshal(text, &o); err != nil || o.ID != id || !strings.Contains(" placing placed delivered ", " "+o.State+" ") {
		return nil, fmt.Errorf("%s: not an order of ours: %v", s.orderPath(id), err)
	}
	return &o, nil
}

// saveOrder is on disk when it returns: what follows may be an order that must not be placed again.
func (s *session) saveOrder(o *order) error {
	text, err := json.MarshalIndent(o, "", "  ")
	if err != nil {
		return err
	}
	path := s.orderPath(o.ID)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".order-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, werr := f.Write(append(text, '\n'))
	if err := errors.Join(werr, f.Sync(), f.Close(), os.Rename(f.Name(), path)); err != nil {
		return fmt.Errorf("keep the order: %w", err)
	}
	return syncFolder(filepath.Dir(path))
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// seller opens a provider's shop with the credentials of its API.
func (s *session) seller(ctx context.Context, name string) (seller, error) {
	c := &clouds{byName: map[string]provider.Provider{}}
	s.clouds = c
	if err := s.openCloud(ctx, c, name, nil); err != nil {
		return nil, err
	}
	switch d := c.byName[name].(type) {
	case *hetznerrobot.Driver:
		return robotShop{d}, nil
	case *ovh.Driver:
		return ovhShop{d}, nil
	}
	return nil, fmt.Errorf("nothing can be ordered at %s", name)
}

type robotShop struct{ d *hetznerrobot.Driver }

func (r robotShop) quote(ctx context.Context, o *order) ([]string, error) {
	key, err := hetznerrobot.NewOrderKey(o.ID)
	if err != nil {
		return nil, err
	}
	o.Robot = &hetznerrobot.Order{Market: o.Args.Market, Product: o.Args.Product, Location: o.Args.Location, IPv4: true, Key: key}
	can, err := r.d.Availability(ctx, *o.Robot)
	if err != nil {
		return nil, err
	}
	if !can.Offered {
		return nil, fmt.Errorf("%s can't be had: %s (on offer at %s)", o.Args.Product, can.Why, strings.Join(can.Locations, ", "))
	}
	q, err := r.d.Preview(ctx, *o.Robot)
	if err != nil {
		return nil, err
	}
	o.RobotQ = &q
	return []string{
		fmt.Sprintf("%s (%s) at %s, with an IPv4 address", q.Name, o.Args.Product, q.Location),
		fmt.Sprintf("monthly %s, once %s, hourly %s, without VAT", q.Net.Monthly, q.Net.Setup, q.Net.Hourly),
		fmt.Sprintf("monthly %s, once %s, hourly %s, with VAT", q.Gross.Monthly, q.Gross.Setup, q.Gross.Hourly),
		"term: " + q.Term, "the same order as a test: " + q.Test,
	}, nil
}

func (r robotShop) place(ctx context.Context, o *order) error {
	t, err := r.d.Place(ctx, *o.Robot, *o.RobotQ)
	o.Placed = t.ID
	return err
}

func (r robotShop) deliver(ctx context.Context, o *order) (err error) {
	o.Server, err = r.d.Await(ctx, hetznerrobot.Transaction{Market: o.Args.Market, ID: o.Placed})
	return err
}

type ovhShop struct{ d *ovh.Driver }

func (v ovhShop) quote(ctx context.Context, o *order) ([]string, error) {
	stock, err := v.d.Availability(ctx, o.Args.Product)
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, s := range stock {
		if s.Available() && (o.Args.Location == "" || strings.HasPrefix(s.Datacenter, strings.ToLower(o.Args.Location))) {
			lines = append(lines, fmt.Sprintf("%s at %s: delivered within %s", s.Configuration, s.Datacenter, s.Within.Round(time.Hour)))
		}
	}
	if len(lines) == 0 {
		return nil, fmt.Errorf("%s can't be had at %q now", o.Args.Product, o.Args.Location)
	}
	w := ovh.Wish{PlanCode: o.Args.Product, Options: o.Args.Options}
	if o.Args.Eco {
		w.Range = ovh.RangeEco
	}
	if o.Args.Location != "" {
		w.Configuration = append(w.Configuration, ovh.Setting{Label: "dedicated_datacenter", Value: strings.ToLower(o.Args.Location)})
	}
	for k, value := range o.Args.Settings {
		w.Configuration = append(w.Configuration, ovh.Setting{Label: k, Value: value})
	}
	q, err := v.d.Quote(ctx, w)
	if err != nil {
		return nil, err
	}
	o.OVHQ = &q
	for _, l := range q.Lines {
		lines = append(lines, fmt.Sprintf("%d × %s: %s", l.Quantity, l.Description, l.Price))
	}
	lines = append(lines, fmt.Sprintf("due now %s, %s without tax; goes on month by month", q.WithTax, q.WithoutTax))
	for _, c := range q.Contracts {
		lines = append(lines, "terms: "+c)
	}
	for _, n := range q.Needs {
		lines = append(lines, "needed first: "+n)
	}
	return lines, nil
}

func (v ovhShop) place(ctx context.Context, o *order) error {
	placed, err := v.d.Place(ctx, *o.OVHQ)
	if err != nil {
		return err
	}
	o.Placed = fmt.Sprint(placed.ID)
	if err := v.d.Pay(ctx, placed, *o.OVHQ); err != nil {
		return fmt.Errorf("order %d is placed and not paid (%s): %w", placed.ID, placed.URL, err)
	}
	return nil
}

func (v ovhShop) deliver(ctx context.Context, o *order) (err error) {
	var id int64
	if _, err := fmt.Sscan(o.Placed, &id); err != nil {
		return fmt.Errorf("number of the order %q: %w", o.Placed, err)
	}
	o.Server, err = v.d.Delivered(ctx, ovh.Order{ID: id}, o.Args.Product)
	return err
}
