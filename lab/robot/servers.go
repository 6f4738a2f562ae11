package robot

import (
	"net/netip"
	"strconv"
	"time"

	"popfleet/lab/faults"
)

// onServer finds the server that the call names and holds r.mu while f works on it.
func onServer(f func(r *Robot, q *request, s *server) (any, error)) func(*Robot, *request) (any, error) {
	return func(r *Robot, q *request) (any, error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		s, err := r.find(q)
		if err != nil {
			return nil, err
		}
		return f(r, q, s)
	}
}

// find is the server with the number of the call; r.mu is held.
func (r *Robot) find(q *request) (*server, error) {
	s := r.state.Servers[q.number()]
	if s == nil || r.hidden(s) {
		return nil, noServer(q.PathValue("number"))
	}
	return s, nil
}

// hidden says whether the web service does not know a server, as it does not when one is locked; r.mu is held.
func (r *Robot) hidden(s *server) bool {
	return r.machineFault(s, faults.Invisible)
}

func (r *Robot) machineFault(s *server, k faults.Kind) bool {
	_, ok := r.opt.Faults.Take(faults.Occasion{Layer: faults.Machine, Machine: s.names()}, k)
	return ok
}

// visible are the servers that lists show; r.mu is held.
func (r *Robot) visible() []*server {
	var out []*server
	for _, s := range r.state.servers() {
		if !r.hidden(s) {
			out = append(out, s)
		}
	}
	return out
}

// head are the fields by which nearly every answer names its server.
func (s *server) head() object {
	return object{"server_ip": s.ip(), "server_ipv6_net": s.hw.Config.Prefix6.Masked().Addr().String(), "server_number": s.Number}
}

// ip is the main address, null for a server that was ordered without.
func (s *server) ip() any {
	if s.NoIPv4 {
		return nil
	}
	return s.hw.Config.Address.String()
}

func (s *server) basic() object {
	o := s.head()
	ips := []any{}
	if !s.NoIPv4 {
		ips = append(ips, s.ip())
	}
	p := s.hw.Config.Prefix6
	o["server_name"], o["product"], o["dc"], o["traffic"] = s.Name, s.hw.Product, s.hw.DC, "unlimited"
	o["status"], o["cancelled"], o["paid_until"] = s.Status, false, paidUntil(s.Rented, time.Now())
	o["ip"], o["subnet"] = ips, []object{{"ip": p.Masked().Addr().String(), "mask": strconv.Itoa(p.Bits())}}
	return o
}

// paidUntil is the end of the month of rent that runs.
func paidUntil(rented, now time.Time) string {
	for m := 1; ; m++ {
		if t := rented.AddDate(0, m, 0); t.After(now) {
			return t.Format(time.DateOnly)
		}
	}
}

func (s *server) detailed() object {
	o := s.basic()
	for _, no := range []string{"vnc", "windows", "plesk", "cpanel", "hot_swap"} {
		o[no] = false
	}
	o["reset"], o["rescue"], o["wol"], o["linked_storagebox"] = len(s.hw.Resets) > 0, true, s.hw.WOL, nil
	return o
}

func (r *Robot) listServers(*request) (any, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := []object{}
	for _, s := range r.visible() {
		out = append(out, object{"server": s.basic()})
	}
	return out, nil
}

func (r *Robot) getServer(_ *request, s *server) (any, error) {
	return object{"server": s.detailed()}, nil
}

func (r *Robot) renameServer(q *request, s *server) (any, error) {
	name := q.form.Get("server_name")
	if len(name) > 255 {
		return nil, invalid("server_name")
	}
	s.Name = name
	r.save()
	return object{"server": s.detailed()}, nil
}

// byAddress finds whose an address is; r.mu is held.
func (r *Robot) byAddress(text string) (*server, netip.Addr, bool) {
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" {
		return nil, a, false
	}
	for _, s := range r.state.servers() {
		if s.owns(a) {
			return s, a, true
		}
	}
	return nil, a, false
}
