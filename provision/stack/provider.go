package stack

import (
	"context"
	"fmt"
	"net"
	"sync"

	p "github.com/pulumi/pulumi-go-provider"
	"github.com/pulumi/pulumi-go-provider/infer"
	rpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
	"google.golang.org/grpc"

	"popfleet/provision/hetznercloud"
	"popfleet/provision/provider"
)

const providerVersion = "1.0.0"

// cloud is what every resource of our provider works with in one run.
type cloud struct {
	driver    *hetznercloud.Driver         // nil in a fleet without cloud servers
	dedicated map[string]provider.Provider // by provider
	rec       *recorder
	held      *held
	allowed   map[string]bool // nodes whose servers may be deleted
	listing   func() (map[string]hetznercloud.Server, error)
	machines  map[string]func() (map[string]provider.Server, error) // by provider, by node
}

func newCloud(ctx context.Context, o Options, rec *recorder, h *held) *cloud {
	c := &cloud{driver: o.Driver, dedicated: o.Dedicated, rec: rec, held: h, allowed: map[string]bool{},
		machines: map[string]func() (map[string]provider.Server, error){}}
	for name, p := range o.Dedicated {
		c.machines[name] = sync.OnceValues(func() (map[string]provider.Server, error) { return p.Servers(ctx, o.Fleet) })
	}
	for _, node := range o.AllowDelete {
		c.allowed[node] = true
	}
	// One listing answers the whole refresh: a hundred nodes would otherwise cost three hundred calls per run.
	c.listing = sync.OnceValues(func() (map[string]hetznercloud.Server, error) {
		list, err := o.Driver.Servers(ctx, o.Fleet)
		if err != nil {
			return nil, err
		}
		byID := make(map[string]hetznercloud.Server, len(list))
		for _, s := range list {
			byID[s.ID] = s
		}
		return byID, nil
	})
	return c
}

// server reads one server as it was when the run began. One that lost our labels is still found by its id.
func (c *cloud) server(ctx context.Context, id string) (hetznercloud.Server, bool, error) {
	known, err := c.listing()
	if err != nil {
		c.held.provider(ProviderName, err)
		return hetznercloud.Server{}, false, err
	}
	if s, ok := known[id]; ok {
		return s, true, nil
	}
	return c.driver.Server(ctx, id)
}

// machine reads one dedicated server as it was when the run began.
func (c *cloud) machine(ctx context.Context, at, node string) (provider.Server, bool, error) {
	list := c.machines[at]
	if list == nil {
		_, err := c.at(at)
		return provider.Server{}, false, err
	}
	all, err := list()
	if err != nil {
		c.held.provider(at, err)
	}
	s, found := all[node]
	return s, found, err
}

func (c *cloud) provider() p.Provider {
	return infer.Provider(infer.Options{Resources: []infer.InferredResource{
		infer.Resource(&serverResource{c}),
		infer.Resource(&dedicatedResource{c}),
		infer.Resource(&sshKeyResource{c}),
		infer.Resource(&firewallResource{c}),
		infer.Resource(&networkResource{c}),
		infer.Resource(&placementResource{c}),
		infer.Resource(&reverseResource{c}),
	}})
}

// serve offers the provider to the CLI on a loopback port until close is called. Whoever reaches that port could act
// with our token, so only processes of our own user are let in.
//
// Calls end with ctx, and not only when the CLI passes an interrupt on: it may take its time over that.
func (c *cloud) serve(ctx context.Context) (port int, stop func(), err error) {
	srv, err := p.RawServer(ProviderName, providerVersion, c.provider())(nil)
	if err != nil {
		return 0, nil, fmt.Errorf("pulumi provider: %w", err)
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, nil, fmt.Errorf("pulumi provider: %w", err)
	}
	const maxMessage = 64 << 20
	g := grpc.NewServer(grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage),
		grpc.UnaryInterceptor(func(call context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			call, cancel := context.WithCancelCause(call)
			defer cancel(nil)
			defer context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })()
			return h(call, req)
		}))
	rpc.RegisterResourceProviderServer(g, srv)
	var wg sync.WaitGroup
	wg.Go(func() { _ = g.Serve(ownUserOnly{l}) }) // ends with Stop, and only then
	return l.Addr().(*net.TCPAddr).Port, func() { g.Stop(); wg.Wait() }, nil
}

// token is a resource's type in Pulumi's words.
func token(kind string) string { return ProviderName + ":index:" + kind }

// field is one property to compare.
type field struct {
	name     string
	old, new string
}

// diffOf tells Pulumi what has to be updated in place. Nothing of ours is ever replaced.
func diffOf(fields ...field) infer.DiffResponse {
	d := infer.DiffResponse{DetailedDiff: map[string]p.PropertyDiff{}}
	for _, f := range fields {
		if f.old != f.new {
			d.HasChanges = true
			d.DetailedDiff[f.name] = p.PropertyDiff{Kind: p.Update}
		}
	}
	return d
}
