package hetznerrobot

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"popfleet/provision/provider"
)

// Reverse reads the reverse DNS name of addr; "" while it is Hetzner's own.
func (d *Driver) Reverse(ctx context.Context, id string, addr netip.Addr) (string, error) {
	op := fmt.Sprintf("read reverse dns of %s", addr)
	path, err := reversePath(op, id, addr)
	if err != nil {
		return "", err
	}
	name, _, err := d.readReverse(ctx, op, path, addr)
	return name, err
}

// SetReverse sets the reverse DNS name of addr; "" gives Hetzner's own name back. It may be repeated.
func (d *Driver) SetReverse(ctx context.Context, id string, addr netip.Addr, name string) error {
	op := fmt.Sprintf("set reverse dns of %s", addr)
	path, err := reversePath(op, id, addr)
	if err != nil {
		return err
	}
	write := func(method string) error {
		var now reverse
		err := d.call(ctx, op, request{class: classRDNS, method: method, path: path, about: addr.Unmap().String(),
			form: url.Values{"ptr": {name}}}, &now)
		if err == nil && !strings.EqualFold(strings.TrimSuffix(now.RDNS.PTR, "."), name) {
			return &provider.Error{Op: op, Err: fmt.Errorf("it is %q still", printable(now.RDNS.PTR, 100))}
		}
		return err
	}
	name = strings.TrimSuffix(name, ".")
	now, exists, err := d.readReverse(ctx, op, path, addr)
	switch {
	case err != nil:
		return err
	case strings.EqualFold(now, name):
		return nil
	case name == "":
		err := d.call(ctx, op, request{class: classRDNS, method: http.MethodDelete, path: path}, nil)
		if absent(err) && codeOf(err) != codeNoAddress {
			return nil // an earlier try did it
		}
		return err
	case exists:
		return write(http.MethodPost)
	}
	err = write(http.MethodPut)
	if codeOf(err) == "RDNS_ALREADY_EXISTS" { // an earlier try did it, or somebody else did
		return write(http.MethodPost)
	}
	return err
}

func reversePath(op, id string, addr netip.Addr) (string, error) {
	if _, err := parseNumber(op, id); err != nil {
		return "", err
	}
	if !addr.IsValid() || addr.Zone() != "" {
		return "", &provider.Error{Op: op, Err: fmt.Errorf("not an address")}
	}
	return "/rdns/" + url.PathEscape(addr.Unmap().String()), nil
}

// readReverse reads the name, "" for Hetzner's own, and whether there is an entry, be it Hetzner's.
func (d *Driver) readReverse(ctx context.Context, op, path string, addr netip.Addr) (name string, exists bool, err error) {
	var now reverse
	err = d.call(ctx, op, request{class: classRDNS, method: http.MethodGet, path: path, about: addr.Unmap().String()}, &now)
	if absent(err) && codeOf(err) != codeNoAddress {
		return "", false, nil
	}
	name = strings.TrimSuffix(now.RDNS.PTR, ".")
	if strings.HasPrefix(name, "static.") && strings.HasSuffix(name, ".clients.your-server.de") {
		name = ""
	}
	return name, err == nil, err
}
