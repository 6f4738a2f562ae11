package robot

import (
	"maps"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
)

// ofServer says whether a list limited by server_ip shows this server.
func ofServer(q *request, s *server) bool {
	want := q.query.Get("server_ip")
	return want == "" || s.ip() == want
}

func traffic(o object) object {
	o["locked"], o["traffic_warnings"] = false, false
	o["traffic_hourly"], o["traffic_daily"], o["traffic_monthly"] = 200, 2000, 20
	return o
}

func wireIP(s *server) object {
	return traffic(object{"ip": s.ip(), "server_ip": s.ip(), "server_number": s.Number, "separate_mac": nil})
}

func (r *Robot) listIPs(q *request) (any, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []object
	for _, s := range r.visible() {
		if !s.NoIPv4 && ofServer(q, s) {
			out = append(out, object{"ip": wireIP(s)})
		}
	}
	if out == nil {
		return nil, notFound("NOT_FOUND", "No IP addresses found")
	}
	return out, nil
}

func (r *Robot) getIP(q *request) (any, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, a, ok := r.byAddress(q.PathValue("ip"))
	if !ok || !a.Is4() || r.hidden(s) {
		return nil, notFound("IP_NOT_FOUND", "The IP address %s was not found", q.PathValue("ip"))
	}
	c, o := s.hw.Config, wireIP(s)
	net4 := c.Net4
	if !net4.IsValid() {
		net4 = netip.PrefixFrom(a, 32)
	}
	o["gateway"], o["mask"], o["broadcast"] = c.Gateway4.String(), net4.Bits(), broadcast(net4).String()
	return object{"ip": o}, nil
}

// broadcast is the last address of an IPv4 network.
func broadcast(p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	for bit := p.Bits(); bit < 32; bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	return netip.AddrFrom4(b)
}

func wireSubnet(s *server) object {
	p := s.hw.Config.Prefix6
	return object{"subnet": traffic(object{
		"ip": p.Masked().Addr().String(), "mask": p.Bits(), "gateway": "fe80::1", "server_ip": s.ip(), "server_number": s.Number, "failover": false,
	})}
}

func (r *Robot) listSubnets(q *request) (any, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []object
	for _, s := range r.visible() {
		if ofServer(q, s) {
			out = append(out, wireSubnet(s))
		}
	}
	if out == nil {
		return nil, notFound("NOT_FOUND", "No subnets found")
	}
	return out, nil
}

func (r *Robot) getSubnet(q *request) (any, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.visible() {
		if s.hw.Config.Prefix6.Masked().Addr().String() == q.PathValue("net") {
			return wireSubnet(s), nil
		}
	}
	return nil, notFound("SUBNET_NOT_FOUND", "The subnet %s was not found", q.PathValue("net"))
}

func wireReverse(ip, name string) object { return object{"rdns": object{"ip": ip, "ptr": name}} }

// listReverse is an empty list where there is none, as measured; the documentation says 404.
func (r *Robot) listReverse(q *request) (any, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := []object{}
	for _, ip := range slices.Sorted(maps.Keys(r.state.Reverse)) {
		s, _, ok := r.byAddress(ip)
		if ok && ofServer(q, s) && !r.hidden(s) {
			out = append(out, wireReverse(ip, r.state.Reverse[ip]))
		}
	}
	return out, nil
}

// reversible is the address of the call in its one form; r.mu is held.
func (r *Robot) reversible(q *request) (string, error) {
	s, a, ok := r.byAddress(q.PathValue("ip"))
	if !ok || r.hidden(s) {
		return "", notFound("IP_NOT_FOUND", "The IP address %s was not found", q.PathValue("ip"))
	}
	return a.String(), nil
}

func noReverse(ip string) *apiError {
	return notFound("RDNS_NOT_FOUND", "The IP address %s has no reverse DNS entry yet", ip)
}

func (r *Robot) getReverse(q *request) (any, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ip, err := r.reversible(q)
	if err != nil {
		return nil, err
	}
	name, ok := r.state.Reverse[ip]
	if !ok {
		return nil, noReverse(ip)
	}
	return wireReverse(ip, name), nil
}

var hostName = regexp.MustCompile(`^([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)+[A-Za-z]([A-Za-z0-9-]{0,61}[A-Za-z0-9])$`)

// setReverse writes the name and answers 201 for a new one; r.mu is held.
func (r *Robot) setReverse(q *request, ip string) (any, error) {
	name := q.form.Get("ptr")
	if len(name) > 253 || !hostName.MatchString(name) {
		return nil, invalid("ptr")
	}
	status := http.StatusCreated
	if _, ok := r.state.Reverse[ip]; ok {
		status = http.StatusOK
	}
	r.state.Reverse[ip] = name
	r.save()
	return reply{status, wireReverse(ip, name)}, nil
}

func (r *Robot) createReverse(q *request) (any, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ip, err := r.reversible(q)
	if err != nil {
		return nil, err
	}
	if _, ok := r.state.Reverse[ip]; ok {
		return nil, fail(http.StatusConflict, "RDNS_ALREADY_EXISTS", "There is already an existing reverse DNS entry")
	}
	return r.setReverse(q, ip)
}

func (r *Robot) updateReverse(q *request) (any, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ip, err := r.reversible(q)
	if err != nil {
		return nil, err
	}
	return r.setReverse(q, ip)
}

func (r *Robot) deleteReverse(q *request) (any, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ip, err := r.reversible(q)
	if err != nil {
		return nil, err
	}
	if _, ok := r.state.Reverse[ip]; !ok {
		return nil, noReverse(ip)
	}
	delete(r.state.Reverse, ip)
	r.save()
	return reply{http.StatusOK, nil}, nil
}
