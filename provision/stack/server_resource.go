package stack

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/pulumi/pulumi-go-provider/infer"

	"popfleet/provision/hetznercloud"
	"popfleet/provision/provider"
)

// ServerArgs are a server's inputs in Pulumi's state.
type ServerArgs struct {
	Key            string            `pulumi:"key"`
	Node           string            `pulumi:"node"`
	Name           string            `pulumi:"name"`
	ServerType     string            `pulumi:"serverType"`
	Location       string            `pulumi:"location"`
	Elsewhere      []PlaceArgs       `pulumi:"elsewhere,optional"`
	Image          string            `pulumi:"image"`
	SSHKeys        []string          `pulumi:"sshKeys"`
	Networks       []string          `pulumi:"networks"`
	Firewalls      []string          `pulumi:"firewalls"`
	PlacementGroup string            `pulumi:"placementGroup,optional"`
	Labels         map[string]string `pulumi:"labels"`
}

// PlaceArgs are a server type at a location, where the server may be when there was no room at the first.
type PlaceArgs struct {
	ServerType string `pulumi:"serverType"`
	Location   string `pulumi:"location"`
}

// ServerState is a server in Pulumi's state.
type ServerState struct {
	ServerArgs
	Addr4 string `pulumi:"addr4"`
	Addr6 string `pulumi:"addr6"`
	// What it turned out to be, where the inputs leave a choice.
	IsType     string `pulumi:"isType,optional"`
	IsLocation string `pulumi:"isLocation,optional"`
}

type serverResource struct{ *cloud }

func (r *serverResource) Annotate(a infer.Annotator) { a.SetToken("index", "Server") }

// Create finds the server by its labels or rents it.
func (r *serverResource) Create(ctx context.Context, req infer.CreateRequest[ServerArgs]) (infer.CreateResponse[ServerState], error) {
	in := req.Inputs
	r.rec.change(Change{Op: "create", Kind: "Server", Key: in.Key, Node: in.Node})
	if req.DryRun {
		return infer.CreateResponse[ServerState]{Output: ServerState{ServerArgs: in}}, nil
	}
	ctx, end := r.rec.begin(ctx, in.Key, "creating")
	var elsewhere []provider.Place
	for _, p := range in.Elsewhere {
		elsewhere = append(elsewhere, provider.Place{Type: p.ServerType, Location: p.Location})
	}
	s, err := r.driver.EnsureServer(ctx, hetznercloud.ServerSpec{Name: in.Name, ServerType: in.ServerType,
		Location: in.Location, Elsewhere: elsewhere, Image: in.Image, SSHKeys: in.SSHKeys, Networks: in.Networks, Firewalls: in.Firewalls,
		PlacementGroup: in.PlacementGroup, Labels: in.Labels})
	if end(err) != nil {
		return infer.CreateResponse[ServerState]{}, err
	}
	return infer.CreateResponse[ServerState]{ID: s.ID, Output: r.state(in, s)}, nil
}

// state is the recorded state of a server that exists.
func (r *serverResource) state(in ServerArgs, s hetznercloud.Server) ServerState {
	r.rec.server(in.Node, ServerOutput{ID: s.ID, Addr4: s.Addr4, Addr6: s.Addr6})
	return ServerState{ServerArgs: in, Addr4: text(s.Addr4), Addr6: text(s.Addr6), IsType: s.ServerType, IsLocation: s.Location}
}

// Read looks at the server; an empty id tells Pulumi that it is gone.
func (r *serverResource) Read(ctx context.Context, req infer.ReadRequest[ServerArgs, ServerState]) (infer.ReadResponse[ServerArgs, ServerState], error) {
	asItWas := infer.ReadResponse[ServerArgs, ServerState](req)
	if r.held.why(ProviderName, "") != nil {
		return asItWas, nil
	}
	s, ok, err := r.server(ctx, req.ID)
	if err != nil {
		return asItWas, r.unread(ctx, ProviderName, req.Inputs.Key, err)
	}
	if !ok {
		r.rec.change(Change{Op: "vanished", Kind: "Server", Key: req.Inputs.Key, Node: req.Inputs.Node})
		r.rec.gone(req.Inputs.Node)
		return infer.ReadResponse[ServerArgs, ServerState]{}, nil
	}
	in := req.Inputs
	in.Name, in.Labels = s.Name, s.Labels
	if !in.fits(s.ServerType, s.Location) {
		in.ServerType, in.Location = s.ServerType, s.Location
	}
	return infer.ReadResponse[ServerArgs, ServerState]{ID: req.ID, Inputs: in, State: r.state(in, s)}, nil
}

// fits: a server that had to be rented elsewhere is where it may be.
func (a ServerArgs) fits(serverType, location string) bool {
	return a.ServerType == serverType && a.Location == location ||
		slices.Contains(a.Elsewhere, PlaceArgs{serverType, location})
}

// Diff compares what can be compared. Keys, networks, firewalls and placement only matter for the create.
func (r *serverResource) Diff(_ context.Context, req infer.DiffRequest[ServerArgs, ServerState]) (infer.DiffResponse, error) {
	old, in := req.State, req.Inputs
	return diffOf(
		field{"name", old.Name, in.Name},
		field{"serverType", old.ServerType, in.ServerType},
		field{"location", old.Location, in.Location},
		field{"elsewhere", fmt.Sprint(old.Elsewhere), fmt.Sprint(in.Elsewhere)},
		field{"labels", fmt.Sprint(old.Labels), fmt.Sprint(in.Labels)},
	), nil
}

// Update changes name and labels, and refuses what would need another machine.
func (r *serverResource) Update(ctx context.Context, req infer.UpdateRequest[ServerArgs, ServerState]) (infer.UpdateResponse[ServerState], error) {
	old, in := req.State, req.Inputs
	d, _ := r.Diff(ctx, infer.DiffRequest[ServerArgs, ServerState]{State: old, Inputs: in})
	r.rec.change(Change{Op: "update", Kind: "Server", Key: in.Key, Node: in.Node, Fields: sortedKeys(d.DetailedDiff)})
	ctx, end := r.rec.begin(ctx, in.Key, "updating")
	if !in.fits(cmp.Or(old.IsType, old.ServerType), cmp.Or(old.IsLocation, old.Location)) {
		err := fmt.Errorf("%w: %s is %s at %s and the fleet file wants %s at %s (take it down with `fleet down %s`, then run `fleet up`)",
			ErrImmutable, in.Node, old.ServerType, old.Location, in.ServerType, in.Location, in.Node)
		return infer.UpdateResponse[ServerState]{}, end(err)
	}
	out := old
	out.ServerArgs = in
	if req.DryRun {
		return infer.UpdateResponse[ServerState]{Output: out}, nil
	}
	s, err := r.driver.UpdateServer(ctx, req.ID, in.Name, in.Labels)
	if end(err) != nil {
		return infer.UpdateResponse[ServerState]{}, err
	}
	return infer.UpdateResponse[ServerState]{Output: r.state(in, s)}, nil
}

// Delete gives the server back, if that was allowed by name.
func (r *serverResource) Delete(ctx context.Context, req infer.DeleteRequest[ServerState]) (infer.DeleteResponse, error) {
	key, node := req.State.Key, req.State.Node
	if !r.allowed[node] {
		err := refusal([]string{node})
		r.rec.fail(key, err)
		return infer.DeleteResponse{}, err
	}
	if err := r.held.why(ProviderName, ""); err != nil {
		r.rec.fail(key, err)
		return infer.DeleteResponse{}, err
	}
	r.rec.change(Change{Op: "delete", Kind: "Server", Key: key, Node: node})
	ctx, end := r.rec.begin(ctx, key, "deleting")
	err := end(r.driver.Delete(ctx, req.ID))
	if err == nil {
		r.rec.gone(node)
	}
	return infer.DeleteResponse{}, err
}
