// Package shop is where servers are ordered at the simulated OVH: catalog, availability, shopping carts, orders and their
// payment. It buys what a cart says, once, and hands each paid server over to the account; it knows nothing of machines.
// It keeps no lock of its own: handlers are called with the account's books open.
package shop

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"slices"
	"time"

	"popfleet/lab/ovh/api"
)

// Shop is the account's carts and orders, as they are kept in the lab's state file.
type Shop struct {
	Carts  map[string]*cart `json:"carts"`
	Orders map[int64]*order `json:"orders"`

	deps Deps
}

// Deps is what the shop needs of the account. Now, NextID and Spawn are called with the books open; Change opens them
// and saves what was changed; HandOver is called with them closed, and again after a restart in between.
type Deps struct {
	Now                  func() time.Time
	NextID               func() int64
	Change               func(func())
	Spawn                func(func(ctx context.Context))
	PayTime, DeliverTime func() time.Duration
	HandOver             func(ctx context.Context, s Sold) (service string, err error)
	Log                  *slog.Logger
}

// Sold is one server that was bought and paid for.
type Sold struct {
	Line       int64  `json:"line"` // of the order's details: the same sale keeps it
	Plan       string `json:"plan"`
	Datacenter string `json:"datacenter"`
}

// New is a shop nobody has bought in.
func New() *Shop { return &Shop{Carts: map[string]*cart{}, Orders: map[int64]*order{}} }

// Bind gives the shop its account, before any call.
func (s *Shop) Bind(d Deps) { s.deps = d }

// Handler answers a call; the books are open.
type Handler func(s *Shop, r *api.Request) (any, error)

// Call is one route of the API.
type Call struct {
	Name, Method, Path string
	Query              []string // parameters it knows
	Open               bool     // answers without credentials too
	Handler            Handler
}

const (
	onCartPath   = "/order/cart/{cartId}"
	onItemPath   = onCartPath + "/item/{itemId}"
	onOrderPath  = "/me/order/{orderId}"
	onDetailPath = onOrderPath + "/details/{orderDetailId}"
)

// Calls are all that the shop answers. Literal segments come before parameters.
func Calls() []Call {
	return slices.Concat([]Call{
		{Name: "availabilities", Method: "GET", Path: "/dedicated/server/datacenter/availabilities", Open: true, Handler: (*Shop).availabilities,
			Query: []string{"datacenters", "excludeDatacenters", "gpu", "memory", "planCode", "server", "storage", "systemStorage"}},
		{Name: "list_payment_methods", Method: "GET", Path: "/me/payment/method", Query: []string{"default", "paymentType", "status"}, Handler: (*Shop).paymentMethods},
		{Name: "get_payment_method", Method: "GET", Path: "/me/payment/method/{paymentMethodId}", Handler: (*Shop).paymentMethod},
	}, orderCalls(), cartCalls(), itemCalls(bareMetal), itemCalls(eco))
}

func orderCalls() []Call {
	one := func(name, method, path string, do func(*Shop, *api.Request, *order) (any, error)) Call {
		return Call{Name: name, Method: method, Path: path, Handler: onOrder(do)}
	}
	return []Call{
		{Name: "list_orders", Method: "GET", Path: "/me/order", Query: []string{"date.from", "date.to"}, Handler: (*Shop).listOrders},
		one("get_order", "GET", onOrderPath, (*Shop).getOrder),
		one("order_status", "GET", onOrderPath+"/status", (*Shop).orderStatus),
		one("list_order_details", "GET", onOrderPath+"/details", (*Shop).listDetails),
		one("get_order_detail", "GET", onDetailPath, (*Shop).getDetail),
		one("order_detail_extension", "GET", onDetailPath+"/extension", (*Shop).detailExtension),
		one("order_payment_methods", "GET", onOrderPath+"/paymentMethods", (*Shop).orderPaymentMethods),
		one("order_payment_means", "GET", onOrderPath+"/availableRegisteredPaymentMean", (*Shop).orderPaymentMeans),
		one("pay_order", "POST", onOrderPath+"/pay", (*Shop).payOrder),
		one("pay_order_with_mean", "POST", onOrderPath+"/payWithRegisteredPaymentMean", (*Shop).payWithMean),
	}
}

func cartCalls() []Call {
	return []Call{
		{Name: "create_cart", Method: "POST", Path: "/order/cart", Open: true, Handler: (*Shop).createCart},
		{Name: "get_cart", Method: "GET", Path: onCartPath, Handler: (*Shop).getCart},
		{Name: "delete_cart", Method: "DELETE", Path: onCartPath, Handler: (*Shop).deleteCart},
		{Name: "assign_cart", Method: "POST", Path: onCartPath + "/assign", Handler: (*Shop).assignCart},
		{Name: "preview", Method: "GET", Path: onCartPath + "/checkout", Handler: (*Shop).preview},
		{Name: "checkout", Method: "POST", Path: onCartPath + "/checkout", Handler: (*Shop).checkout},
		{Name: "get_item", Method: "GET", Path: onItemPath, Handler: (*Shop).getItem},
		{Name: "required_configuration", Method: "GET", Path: onItemPath + "/requiredConfiguration", Handler: (*Shop).requiredConfiguration},
		{Name: "list_configurations", Method: "GET", Path: onItemPath + "/configuration", Query: []string{"label"}, Handler: (*Shop).listConfigurations},
		{Name: "configure", Method: "POST", Path: onItemPath + "/configuration", Handler: (*Shop).configure},
	}
}

// itemCalls are those of one part of the catalog.
func itemCalls(product string) []Call {
	at := onCartPath + "/" + product
	return []Call{
		{Name: "list_offers", Method: "GET", Path: at, Query: []string{"planCode"}, Handler: offers(product)},
		{Name: "add_server", Method: "POST", Path: at, Handler: addServer(product)},
		{Name: "list_options", Method: "GET", Path: at + "/options", Query: []string{"planCode"}, Handler: options(product)},
		{Name: "add_option", Method: "POST", Path: at + "/options", Handler: addOption(product)},
	}
}

// seconds is how precise the provider's dates are.
func seconds(t time.Time) time.Time { return t.Truncate(time.Second) }

func sorted[K cmp.Ordered, V any](m map[K]V) []K {
	return slices.SortedFunc(maps.Keys(m), cmp.Compare[K])
}

// pause waits, and says false when the context ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return ctx.Err() == nil
	}
}
