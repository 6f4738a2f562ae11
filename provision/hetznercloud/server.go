package hetznercloud

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/hetznercloud/hcloud-go/v2/hcloud"

	"popfleet/provision/provider"
)

// Server is a rented server as the API describes it now.
type Server struct {
	ID            string
	Name          string
	Addr4         netip.Addr   // invalid when it has no IPv4
	Addr6         netip.Addr   // the first host of Net6; invalid when it has no IPv6
	Net6          netip.Prefix // the routed /64
	Status        string       // running, off, initializing, starting, stopping, deleting, migrating, rebuilding, unknown
	RescueEnabled bool         // the next boot goes to rescue; the provider clears it with that boot or after 60 minutes
	Locked        bool         // an action runs on it
	ServerType    string
	Location      string
	Created       time.Time
	Labels        map[string]string
	Reverse4      string // reverse DNS name of Addr4
	Reverse6      string // reverse DNS name of Addr6; "" unless it was set
}

// ServerSpec is what a server is created with. Only Name and Labels can be changed later.
type ServerSpec struct {
	Name           string
	ServerType     string
	Location       string
	Elsewhere      []provider.Place // tried in order when there is no room for ServerType at Location
	Image          string
	SSHKeys        []string // ids
	Networks       []string // ids
	Firewalls      []string // ids
	PlacementGroup string   // id; may be empty
	Labels         map[string]string
}

// Describe finds the server of a node by its labels; false means that there is none.
func (d *Driver) Describe(ctx context.Context, fleet, node string) (Server, bool, error) {
	op := "find the server of " + node
	s, err := d.findServer(ctx, op, map[string]string{LabelFleet: fleet, LabelNode: node})
	if err != nil || s == nil {
		return Server{}, false, err
	}
	return serverOf(s), true, nil
}

// Servers lists every server of a fleet.
func (d *Driver) Servers(ctx context.Context, fleet string) ([]Server, error) {
	list, err := d.listServers(ctx, "list the servers of "+fleet, map[string]string{LabelFleet: fleet})
	if err != nil {
		return nil, err
	}
	out := make([]Server, 0, len(list))
	for _, s := range list {
		out = append(out, serverOf(s))
	}
	return out, nil
}

// Server reads one server by id; false means that it does not exist.
func (d *Driver) Server(ctx context.Context, id string) (Server, bool, error) {
	s, err := d.getServer(ctx, "read server "+id, id)
	if err != nil || s == nil {
		return Server{}, false, err
	}
	return serverOf(s), true, nil
}

// EnsureServer returns the server that carries spec's labels, and creates it, powered off, when there is none. It is
// safe to repeat: a server whose create was interrupted, or whose reply was lost, is found and adopted. Where there is no
// room it goes on with the next place of the spec: a lack can last for weeks.
func (d *Driver) EnsureServer(ctx context.Context, spec ServerSpec) (Server, error) {
	places := append([]provider.Place{{Type: spec.ServerType, Location: spec.Location}}, spec.Elsewhere...)
	var full []error
	for i, p := range places {
		spec.ServerType, spec.Location = p.Type, p.Location
		s, err := d.ensureHere(ctx, spec)
		if !kindIs(err, provider.ErrUnavailable) {
			return s, err
		}
		full = append(full, fmt.Errorf("%s at %s: %w", p.Type, p.Location, err))
		if i+1 < len(places) {
			say(ctx, "create server %s: no room for a %s at %s; trying a %s at %s", spec.Name, p.Type, p.Location,
				places[i+1].Type, places[i+1].Location)
		}
	}
	return Server{}, errors.Join(full...)
}

func (d *Driver) ensureHere(ctx context.Context, spec ServerSpec) (Server, error) {
	op := "create server " + spec.Name
	if err := CheckLabels(spec.Labels); err != nil {
		return Server{}, &Error{Op: op, Err: err}
	}
	opts, err := createOptions(spec)
	if err != nil {
		return Server{}, &Error{Op: op, Err: err}
	}
	const rounds = 3 // a create whose action fails is started afresh, not for ever
	for round := 1; ; round++ {
		s, err := d.createServer(ctx, op, opts)
		if err == nil {
			return s, nil
		}
		if round == rounds || !kindIs(err, provider.ErrActionFailed) || kindIs(err, provider.ErrUnavailable) {
			return Server{}, err
		}
		say(ctx, "%s: %v; starting afresh", op, err)
	}
}

// createServer is one round: find or create, wait, and look at the result.
func (d *Driver) createServer(ctx context.Context, op string, opts hcloud.ServerCreateOpts) (Server, error) {
	var server *hcloud.Server
	var actions []*hcloud.Action
	err := d.call(ctx, op, func(ctx context.Context) error {
		found, err := d.pickServer(ctx, identity(opts.Labels))
		if err != nil || found != nil {
			server, actions = found, nil
			return err
		}
		res, _, err := d.client.Server.Create(ctx, opts)
		if codeOf(err) == hcloud.ErrorCodeUniquenessError {
			server, actions = nil, nil
			server, err = d.adoptByName(ctx, opts, err)
			return err
		}
		server, actions = res.Server, append([]*hcloud.Action{res.Action}, res.NextActions...)
		return err
	})
	if err != nil {
		return Server{}, err
	}
	if err := d.await(ctx, op, actions...); err != nil && !kindIs(err, provider.ErrActionGone) {
		return Server{}, d.clearFailedCreate(ctx, op, server, err)
	}
	settled, err := d.settle(ctx, op, strconv.FormatInt(server.ID, 10))
	if err != nil {
		return Server{}, err
	}
	return serverOf(settled), nil
}

// adoptByName looks at who holds the name: our own server, created by a request whose reply was lost, or a stranger.
func (d *Driver) adoptByName(ctx context.Context, opts hcloud.ServerCreateOpts, cause error) (*hcloud.Server, error) {
	s, _, err := d.client.Server.GetByName(ctx, opts.Name)
	if err != nil {
		return nil, err
	}
	if s == nil || !carries(s.Labels, identity(opts.Labels)) {
		return nil, &Error{Op: "create server " + opts.Name, Kind: provider.ErrNameTaken, Err: cause,
			Hint: "rename or delete the other server, or give the fleet another name"}
	}
	return s, nil
}

// clearFailedCreate removes what a failed create left, so that the next round does not adopt a wreck. A server that
// became usable all the same stays, and the next round adopts it.
func (d *Driver) clearFailedCreate(ctx context.Context, op string, s *hcloud.Server, cause error) error {
	if s == nil || ctx.Err() != nil || !kindIs(cause, provider.ErrActionFailed) && !kindIs(cause, provider.ErrUnavailable) {
		return cause
	}
	id := strconv.FormatInt(s.ID, 10)
	now, err := d.getServer(ctx, op, id)
	if err != nil || now == nil || now.Status == hcloud.ServerStatusOff || now.Status == hcloud.ServerStatusRunning {
		return cause
	}
	if err := d.Delete(ctx, id); err != nil {
		return fmt.Errorf("%w; and what it left: %w", cause, err)
	}
	return cause
}

// UpdateServer changes what can be changed in place.
func (d *Driver) UpdateServer(ctx context.Context, id, name string, labels map[string]string) (Server, error) {
	op := "update server " + id
	if err := CheckLabels(labels); err != nil {
		return Server{}, &Error{Op: op, Err: err}
	}
	ref, err := serverRef(op, id)
	if err != nil {
		return Server{}, err
	}
	var s *hcloud.Server
	err = d.call(ctx, op, func(ctx context.Context) (err error) {
		s, _, err = d.client.Server.Update(ctx, ref, hcloud.ServerUpdateOpts{Name: name, Labels: labels})
		return err
	})
	if err != nil {
		return Server{}, err
	}
	return serverOf(s), nil
}

// Delete gives a server back. One that is already gone is no error. The caller has wiped its key slots before.
func (d *Driver) Delete(ctx context.Context, id string) error {
	op := "delete server " + id
	ref, err := serverRef(op, id)
	if err != nil {
		return err
	}
	var action *hcloud.Action
	err = d.call(ctx, op, func(ctx context.Context) error {
		res, _, err := d.client.Server.DeleteWithResult(ctx, ref)
		if codeOf(err) == hcloud.ErrorCodeNotFound {
			return nil
		}
		if err == nil {
			action = res.Action
		}
		return err
	})
	if err != nil {
		return err
	}
	if err := d.await(ctx, op, action); err != nil && !kindIs(err, provider.ErrActionGone) {
		return err
	}
	return nil
}

// SetReverse sets the reverse DNS name of one of the server's addresses; an empty name gives the default back.
func (d *Driver) SetReverse(ctx context.Context, id, ip, name string) error {
	op := fmt.Sprintf("set reverse dns of %s", ip)
	ref, err := serverRef(op, id)
	if err != nil {
		return err
	}
	if net.ParseIP(ip) == nil {
		return &Error{Op: op, Err: fmt.Errorf("not an address")}
	}
	var ptr *string
	if name != "" {
		ptr = &name
	}
	return d.act(ctx, op, func(ctx context.Context) (*hcloud.Action, error) {
		a, _, err := d.client.Server.ChangeDNSPtr(ctx, ref, ip, ptr)
		return a, err
	})
}

// act starts one action that may be repeated, and waits for it.
func (d *Driver) act(ctx context.Context, op string, start func(context.Context) (*hcloud.Action, error)) error {
	var action *hcloud.Action
	err := d.call(ctx, op, func(ctx context.Context) (err error) {
		action, err = start(ctx)
		return err
	})
	if err != nil {
		return err
	}
	return d.await(ctx, op, action)
}

func (d *Driver) getServer(ctx context.Context, op, id string) (*hcloud.Server, error) {
	ref, err := serverRef(op, id)
	if err != nil {
		return nil, err
	}
	var s *hcloud.Server
	err = d.call(ctx, op, func(ctx context.Context) (err error) {
		s, _, err = d.client.Server.GetByID(ctx, ref.ID)
		return err
	})
	return s, err
}

func (d *Driver) findServer(ctx context.Context, op string, labels map[string]string) (s *hcloud.Server, err error) {
	err = d.call(ctx, op, func(ctx context.Context) (err error) {
		s, err = d.pickServer(ctx, labels)
		return err
	})
	return s, err
}

// pickServer returns the one server with labels, or nil. Two are never guessed between.
func (d *Driver) pickServer(ctx context.Context, labels map[string]string) (*hcloud.Server, error) {
	list, err := d.client.Server.AllWithOpts(ctx, hcloud.ServerListOpts{
		ListOpts: hcloud.ListOpts{LabelSelector: selector(labels), PerPage: 50}})
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(s *hcloud.Server) bool { return s.Status == hcloud.ServerStatusDeleting })
	switch len(list) {
	case 0:
		return nil, nil
	case 1:
		return list[0], nil
	}
	return nil, &Error{Op: "find server by " + selector(labels), Kind: provider.ErrAmbiguous,
		Err:  fmt.Errorf("servers %d and %d", list[0].ID, list[1].ID),
		Hint: "look at both in the provider's console and remove the labels from the one that is not wanted"}
}

func (d *Driver) listServers(ctx context.Context, op string, labels map[string]string) (list []*hcloud.Server, err error) {
	err = d.call(ctx, op, func(ctx context.Context) (err error) {
		list, err = d.client.Server.AllWithOpts(ctx, hcloud.ServerListOpts{
			ListOpts: hcloud.ListOpts{LabelSelector: selector(labels), PerPage: 50}})
		return err
	})
	return list, err
}

// settle waits until no action holds the server: neither locked nor in a passing status.
func (d *Driver) settle(ctx context.Context, op, id string) (*hcloud.Server, error) {
	limit := d.opts.Pace.Of(actionDeadline)
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not settled after %s", limit))
	defer cancel()
	for {
		s, err := d.getServer(ctx, op, id)
		if err != nil {
			return nil, err
		}
		if s == nil {
			return nil, &Error{Op: op, Kind: provider.ErrNotFound, Err: fmt.Errorf("server %s is gone", id)}
		}
		if !s.Locked && (s.Status == hcloud.ServerStatusOff || s.Status == hcloud.ServerStatusRunning) {
			return s, nil
		}
		say(ctx, "%s: the server is %s, locked %t", op, s.Status, s.Locked)
		if err := sleep(ctx, d.opts.Backoff); err != nil {
			return nil, &Error{Op: op, Kind: provider.ErrTimeout, Err: fmt.Errorf("server is %s, locked %t: %w", s.Status, s.Locked, err),
				Hint: "run the same command again to go on"}
		}
	}
}
