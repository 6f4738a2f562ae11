package dns

import (
	"net/netip"

	wire "github.com/miekg/dns"
)

// query is what one query says about its sender, and what the answer has to say back.
type query struct {
	from   netip.Addr
	udp    bool
	opt    *wire.OPT
	subnet *wire.EDNS0_SUBNET // what the resolver says of its client, RFC 7871
	scope  uint8              // prefix length for which the answer holds; 0: for everybody
}

// readEDNS takes the OPT record apart. Unknown options are ignored (RFC 6891 section 6.1.2).
func (q *query) readEDNS(req *wire.Msg) int {
	for _, rr := range req.Extra {
		opt, ok := rr.(*wire.OPT)
		if !ok {
			continue
		}
		if q.opt != nil || opt.Hdr.Name != "." {
			return wire.RcodeFormatError
		}
		q.opt = opt
	}
	if q.opt == nil {
		return wire.RcodeSuccess
	}
	if q.opt.Version() != 0 {
		return wire.RcodeBadVers
	}
	for _, o := range q.opt.Option {
		if s, ok := o.(*wire.EDNS0_SUBNET); ok {
			if q.subnet != nil || !goodSubnet(s) {
				return wire.RcodeFormatError
			}
			q.subnet = s
		}
	}
	return wire.RcodeSuccess
}

// goodSubnet holds a query's option to RFC 7871 section 6: scope 0, and no bits set beyond the prefix.
func goodSubnet(s *wire.EDNS0_SUBNET) bool {
	if s.SourceScope != 0 {
		return false
	}
	if s.Family == 0 {
		return s.SourceNetmask == 0
	}
	p, ok := prefix(s)
	return ok && p == p.Masked()
}

func prefix(s *wire.EDNS0_SUBNET) (netip.Prefix, bool) {
	addr, ok := netip.AddrFromSlice(s.Address)
	if !ok {
		return netip.Prefix{}, false
	}
	if s.Family == 1 {
		addr = addr.Unmap()
	}
	p := netip.PrefixFrom(addr, int(s.SourceNetmask))
	return p, p.IsValid()
}

// client is the address whose place counts: the subnet's, unless the resolver kept it to itself or it is one that
// exists everywhere; then the resolver's own.
func (q *query) client() netip.Addr {
	if q.subnet == nil || q.subnet.SourceNetmask == 0 {
		return q.from
	}
	p, ok := prefix(q.subnet)
	if !ok || p.Addr().IsPrivate() || p.Addr().IsLoopback() || p.Addr().IsLinkLocalUnicast() {
		return q.from
	}
	return p.Addr()
}

// holdsFor notes the network for which the place was the same. When the resolver's own address decided, the answer
// says nothing about the client's subnet: scope 0.
func (q *query) holdsFor(network netip.Prefix) {
	if q.subnet != nil && q.client() != q.from {
		q.scope = uint8(network.Bits())
	}
}

// finish adds the OPT record and cuts the answer to what the client can take.
func (q *query) finish(res *wire.Msg) {
	limit := wire.MaxMsgSize
	if q.udp {
		limit = wire.MinMsgSize
	}
	if q.opt != nil {
		res.Extra = append(res.Extra, q.reply(res.Rcode))
		if q.udp {
			limit = min(max(int(q.opt.UDPSize()), wire.MinMsgSize), maxUDPBytes)
		}
	}
	// Glue is a courtesy: left out, it does not make an answer incomplete (RFC 2181 section 9).
	if res.Len() > limit && len(res.Answer) > 0 {
		res.Compress = true
		if res.Len() > limit {
			res.Extra = q.onlyOPT(res.Extra)
		}
	}
	res.Truncate(limit)
}

func (q *query) onlyOPT(extra []wire.RR) []wire.RR {
	if q.opt == nil {
		return nil
	}
	return extra[len(extra)-1:]
}

func (q *query) reply(rcode int) *wire.OPT {
	opt := &wire.OPT{Hdr: wire.RR_Header{Name: ".", Rrtype: wire.TypeOPT}}
	opt.SetUDPSize(maxUDPBytes)
	if rcode == wire.RcodeBadVers {
		opt.SetExtendedRcode(wire.RcodeBadVers)
	}
	if q.opt.Do() {
		opt.SetDo()
	}
	if q.subnet != nil && rcode != wire.RcodeFormatError {
		s := *q.subnet
		s.SourceScope = q.scope
		opt.Option = []wire.EDNS0{&s}
	}
	return opt
}
