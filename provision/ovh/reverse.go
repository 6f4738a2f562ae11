package ovh

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"popfleet/provision/provider"
)

// reverse is ip.ReverseIp.
type reverse struct {
	IP   string `json:"ipReverse"`
	Name string `json:"reverse"`
}

// SetReverse sets the reverse name of an address; "" gives OVH's own name back. OVH takes a name only once it resolves to
// the address.
func (d *Driver) SetReverse(ctx context.Context, id string, addr netip.Addr, name string) error {
	addr = addr.Unmap()
	op := fmt.Sprintf("set the reverse name of %s to %q", addr, name)
	block, err := d.blockOf(ctx, op, id, addr)
	if err != nil {
		return err
	}
	if name == "" {
		return d.clearReverse(ctx, op, reversePath(block, addr))
	}
	now, err := d.readReverse(ctx, op, block, addr)
	if err != nil || sameName(now, name) {
		return err
	}
	err = d.call(ctx, op, request{method: http.MethodPost, path: reversesPath(block), repeat: true,
		body: reverse{IP: addr.String(), Name: name}})
	if statusOf(err) == http.StatusBadRequest && !errors.Is(err, provider.ErrUnauthorized) {
		return &Error{Op: op, Err: bare(err), Hint: fmt.Sprintf("%s has to resolve to %s first: publish that record, give it a minute, and run the same command again", name, addr)}
	}
	return err
}

// Reverse reads the reverse name of an address; "" while it is OVH's own, which is the service name.
func (d *Driver) Reverse(ctx context.Context, id string, addr netip.Addr) (string, error) {
	addr = addr.Unmap()
	op := fmt.Sprintf("read the reverse name of %s", addr)
	block, err := d.blockOf(ctx, op, id, addr)
	if err != nil {
		return "", err
	}
	name, err := d.readReverse(ctx, op, block, addr)
	if err != nil || sameName(name, id) {
		return "", err
	}
	return strings.TrimSuffix(name, "."), nil
}

// readReverse is "" when OVH knows of none.
func (d *Driver) readReverse(ctx context.Context, op string, block netip.Prefix, addr netip.Addr) (string, error) {
	var now reverse
	err := d.get(ctx, op, reversePath(block, addr), &now)
	if absent(err) {
		return "", nil
	}
	return now.Name, err
}

// reversesPath escapes the slash of the block: it is one segment.
func reversesPath(block netip.Prefix) string {
	return "/ip/" + url.PathEscape(block.String()) + "/reverse"
}

func reversePath(block netip.Prefix, addr netip.Addr) string {
	return reversesPath(block) + "/" + url.PathEscape(addr.String())
}

func (d *Driver) clearReverse(ctx context.Context, op, path string) error {
	err := d.call(ctx, op, request{method: http.MethodDelete, path: path})
	if absent(err) {
		return nil
	}
	return err
}

// blockOf is the block that an address is known under: an IPv4 address is a block of its own, an IPv6 address lies in
// the server's.
func (d *Driver) blockOf(ctx context.Context, op, id string, addr netip.Addr) (netip.Prefix, error) {
	if addr.Is4() {
		return netip.PrefixFrom(addr, 32), nil
	}
	nets, err := d.addresses(ctx, op, id)
	if err != nil {
		return netip.Prefix{}, err
	}
	if !addr.IsValid() || !nets.block6.Contains(addr) {
		return netip.Prefix{}, &Error{Op: op, Kind: provider.ErrNotFound,
			Err: fmt.Errorf("the address is in no block of server %s", id)}
	}
	return nets.block6.Masked(), nil
}

// sameName compares names as the DNS does; OVH shows them with the final dot.
func sameName(a, b string) bool {
	return strings.EqualFold(strings.TrimSuffix(a, "."), strings.TrimSuffix(b, "."))
}
