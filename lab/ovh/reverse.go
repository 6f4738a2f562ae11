package ovh

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"popfleet/lab/ovh/api"
)

// reverseOf is the reverse name of an address, the provider's own where none was set.
func (o *OVH) reverseOf(a netip.Addr) string {
	if name, ok := o.state.Reverses[a.String()]; ok {
		return name
	}
	return "ns" + strings.ReplaceAll(a.String(), ".", "-") + ".ip.example.net."
}

func (o *OVH) listIPs(r *request) (any, error) {
	of := r.Query.Get("routedTo.serviceName")
	out := []string{}
	for _, s := range o.state.servers() {
		if of != "" && of != s.Service {
			continue
		}
		for _, b := range s.blocks() {
			out = append(out, b.String())
		}
	}
	return out, nil
}

func (o *OVH) getIP(r *request) (any, error) {
	s, block := o.state.owning(r.Args["ip"])
	if s == nil {
		return nil, api.NoService()
	}
	version := 4
	if block.Addr().Is6() {
		version = 6
	}
	return map[string]any{
		"bringYourOwnIp": false, "campus": nil, "canBeTerminated": false, "country": nil, "description": nil, "ip": block.String(),
		"isAdditionalIp": false, "organisationId": nil, "regions": []string{o.regionOf(s)}, "rir": nil,
		"routedTo": map[string]any{"serviceName": s.Service}, "type": "dedicated", "version": version,
	}, nil
}

// block finds the addresses that a reverse call is about.
func (o *OVH) block(r *request) (netip.Prefix, error) {
	s, block := o.state.owning(r.Args["ip"])
	if s == nil {
		return block, api.NoService()
	}
	_, err := o.lookup(s.Service)
	return block, err
}

func (o *OVH) listReverses(r *request) (any, error) {
	block, err := o.block(r)
	if err != nil {
		return nil, err
	}
	out := []string{}
	for _, text := range sorted(o.state.Reverses) {
		if a, err := netip.ParseAddr(text); err == nil && block.Contains(a) {
			out = append(out, text)
		}
	}
	return out, nil
}

type wireReverse struct {
	IP   string `json:"ipReverse"`
	Name string `json:"reverse"`
}

// setReverse sets or replaces a name. The forward name has to lead to the address already.
func (o *OVH) setReverse(r *request) (any, error) {
	var in wireReverse
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	a, err := netip.ParseAddr(in.IP)
	if err != nil {
		return nil, api.Bad("[body.ipReverse] %v", err)
	}
	name := strings.TrimSuffix(in.Name, ".")
	if !strings.Contains(name, ".") || strings.ContainsAny(name, " /:@") {
		return nil, api.Bad("[body.reverse] %q is not a host name", in.Name)
	}
	if err := o.within(r, a); err != nil {
		return nil, err
	}
	if err := o.resolves(r.Context(), name, a); err != nil {
		return nil, api.Bad("Cannot check if %s. is resolved to %s", name, a)
	}
	o.change(func() { o.state.Reverses[a.String()] = name + "." })
	return wireReverse{a.String(), name + "."}, nil
}

func (o *OVH) within(r *request, a netip.Addr) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	block, err := o.block(r)
	if err != nil {
		return err
	}
	if !block.Contains(a) {
		return api.Bad("%s is not in %s", a, block)
	}
	return nil
}

func (o *OVH) resolves(ctx context.Context, name string, a netip.Addr) error {
	if o.opt.Resolve == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	found, err := o.opt.Resolve(ctx, name)
	if err == nil && !slices.Contains(found, a) {
		err = errors.New("it leads elsewhere")
	}
	return err
}

// oneReverse finds the name a path is about.
func (o *OVH) oneReverse(r *request) (wireReverse, error) {
	block, err := o.block(r)
	if err != nil {
		return wireReverse{}, err
	}
	a, err := netip.ParseAddr(r.Args["ipReverse"])
	name, ok := o.state.Reverses[a.String()]
	if err != nil || !ok || !block.Contains(a) {
		return wireReverse{}, api.NoObject("ipReverse", r.Args["ipReverse"])
	}
	return wireReverse{a.String(), name}, nil
}

func (o *OVH) getReverse(r *request) (any, error) { return o.oneReverse(r) }

func (o *OVH) deleteReverse(r *request) (any, error) {
	w, err := o.oneReverse(r)
	if err != nil {
		return nil, err
	}
	delete(o.state.Reverses, w.IP)
	return nil, nil
}
