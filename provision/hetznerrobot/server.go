package hetznerrobot

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"popfleet/provision/provider"
)

// listFresh is how long the account's list of servers is good for: 200 reads an hour are not enough for every node to
// look for itself.
const listFresh = 20 * time.Second

// serverList is the account's servers as last read. One caller reads, the others wait for what it brings.
type serverList struct {
	lock chan struct{} // holds a token while somebody reads

	mu      sync.Mutex
	servers map[int]server // never changed, only replaced
	read    time.Time
}

// fresh is the list when it was read at since or later.
func (l *serverList) fresh(since time.Time) (map[int]server, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.servers, l.servers != nil && !l.read.Before(since)
}

func (l *serverList) put(servers map[int]server, read time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.servers, l.read = servers, read
}

// amend replaces one server in what was read.
func (l *serverList) amend(s server) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.servers = maps.Clone(l.servers)
	l.servers[s.Server.Number] = s
}

// Servers finds the fleet's servers by node name with one call. What is not in the fleet file is not ours to know.
func (d *Driver) Servers(ctx context.Context, fleet string) (map[string]provider.Server, error) {
	list, err := d.servers(ctx, "list the servers of "+fleet, 0)
	if err != nil {
		return nil, err
	}
	out := map[string]provider.Server{}
	for node, id := range d.opts.Servers {
		n, err := parseNumber("server of "+node, id)
		if err != nil {
			return nil, err
		}
		if s, ok := list[n]; ok {
			out[node] = serverOf(node, s)
		}
	}
	return out, nil
}

// Describe finds one node's server. Whether its power is on is known where Robot can tell; what is armed for its next
// start is [Driver.Activity]'s to say.
func (d *Driver) Describe(ctx context.Context, _, node string) (provider.Server, bool, error) {
	op := "describe the server of " + node
	id, ok := d.opts.Servers[node]
	if !ok {
		return provider.Server{}, false, nil
	}
	n, err := parseNumber(op, id)
	if err != nil {
		return provider.Server{}, false, err
	}
	list, err := d.servers(ctx, op, listFresh)
	if err != nil {
		return provider.Server{}, false, err
	}
	s, ok := list[n]
	if !ok {
		return provider.Server{}, false, nil
	}
	out := serverOf(node, s)
	out.Off, err = d.stopped(ctx, op, n)
	if err != nil {
		return provider.Server{}, false, err
	}
	return out, true, nil
}

// Ensure takes over the server that w names: it has to exist, to be ready and not to be cancelled. Its name at Robot
// becomes fleet-node. Nothing is ever ordered here.
func (d *Driver) Ensure(ctx context.Context, w provider.Wanted) (provider.Server, error) {
	op := "take over the server of " + w.Node
	if w.Server == "" {
		return provider.Server{}, &provider.Error{Op: op, Kind: provider.ErrNotAdopted,
			Hint: "write the server's number beside the node, or order one with --allow-orders"}
	}
	n, err := parseNumber(op, w.Server)
	if err != nil {
		return provider.Server{}, err
	}
	list, err := d.servers(ctx, op, listFresh)
	if err != nil {
		return provider.Server{}, err
	}
	s, ok := list[n]
	if !ok {
		return provider.Server{}, &provider.Error{Op: op, Kind: provider.ErrNotFound, Err: fmt.Errorf("server %d", n),
			Hint: "check the number in the fleet file; a server that Hetzner has locked, or that belongs to another account, is invisible here"}
	}
	if err := usable(op, s); err != nil {
		return provider.Server{}, err
	}
	if s, err = d.rename(ctx, op, s, w.Fleet+"-"+w.Node); err != nil {
		return provider.Server{}, err
	}
	return serverOf(w.Node, s), nil
}

func usable(op string, s server) error {
	cause := fmt.Errorf("server %d is %s", s.Server.Number, troubleOf(s))
	switch {
	case s.Server.Cancelled:
		return &provider.Error{Op: op, Kind: provider.ErrExpired, Err: cause,
			Hint: "withdraw the cancellation in Robot, or name another server"}
	case s.Server.Status != "ready":
		return &provider.Error{Op: op, Err: cause, Hint: "run the same command again when Robot says ready"}
	}
	return nil
}

func (d *Driver) rename(ctx context.Context, op string, s server, name string) (server, error) {
	if s.Server.Name == name {
		return s, nil
	}
	var now server
	err := d.call(ctx, op+": name it", request{class: classServer, method: http.MethodPost,
		path: "/server/" + strconv.Itoa(s.Server.Number), about: strconv.Itoa(s.Server.Number),
		form: url.Values{"server_name": {name}}}, &now)
	if err != nil {
		return server{}, err
	}
	d.list.amend(now)
	return now, nil
}

// Release never cancels: it says what a person has to do. The server keeps its name.
func (d *Driver) Release(ctx context.Context, id string) ([]string, error) {
	op := "release server " + id
	n, err := parseNumber(op, id)
	if err != nil {
		return nil, err
	}
	list, err := d.servers(ctx, op, 0)
	if err != nil {
		return nil, err
	}
	s, ok := list[n]
	switch {
	case !ok:
		return []string{fmt.Sprintf("server %d is no longer in this Robot account: nothing is left to do", n)}, nil
	case s.Server.Cancelled:
		return []string{fmt.Sprintf("server %d is cancelled already; it is paid until %s", n, printable(s.Server.PaidUntil, 20))}, nil
	}
	return []string{
		fmt.Sprintf("the contract of server %d (%s, %s) goes on and goes on costing until you cancel it", n,
			printable(s.Server.Product, 60), printable(s.Server.DC, 20)),
		"log in at https://robot.hetzner.com, open Servers, and choose " + fmt.Sprintf("%q (%d)", printable(s.Server.Name, 80), n),
		"open Cancellation, choose the earliest date, and confirm",
		"remove the node's server number from the fleet file, so that no run takes the server over again",
	}, nil
}

// servers is the account's servers by number, read anew unless they were read less than fresh ago. Callers that wait for
// another's read take what it brings.
func (d *Driver) servers(ctx context.Context, op string, fresh time.Duration) (map[int]server, error) {
	asked := time.Now()
	select {
	case d.list.lock <- struct{}{}:
	case <-ctx.Done():
		return nil, explain(op, context.Cause(ctx))
	}
	defer func() { <-d.list.lock }()
	if list, ok := d.list.fresh(asked.Add(-fresh)); ok {
		return list, nil
	}
	var all servers
	began := time.Now()
	err := d.call(ctx, op, request{class: classServer, method: http.MethodGet, path: "/server"}, &all)
	if err != nil && !absent(err) && codeOf(err) != codeServerNotFound { // 404: the account has no server
		return nil, err
	}
	byNumber := make(map[int]server, len(all))
	for _, s := range all {
		byNumber[s.Server.Number] = s
	}
	d.list.put(byNumber, began)
	return byNumber, nil
}
