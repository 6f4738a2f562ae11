package dns

import (
	"net/netip"
	"strings"
	"sync/atomic"

	wire "github.com/miekg/dns"

	"popfleet/dns/place"
	"popfleet/dns/zone"
)

// maxUDPBytes is the largest answer over UDP: it passes every path unfragmented (DNS flag day 2020).
const maxUDPBytes = 1232

// maxAddresses bounds one answer; 32 IPv6 addresses still fit into maxUDPBytes.
const maxAddresses = 32

// locator says where an address is; nil stands for "nobody knows".
type locator interface {
	Locate(netip.Addr) (place.Point, netip.Prefix, bool)
}

// answerer turns a query into an answer. It is safe for concurrent use; a query sees one zone from start to end.
type answerer struct {
	zone   atomic.Pointer[zone.Zone]
	locate locator
	ttl    uint32 // seconds, of every record and, as SOA MINIMUM, of every negative answer
	pops   int
	turn   atomic.Uint32
}

// answer never returns nil and never touches req. from is where the packet came from.
func (a *answerer) answer(req *wire.Msg, from netip.Addr, udp bool) *wire.Msg {
	res := new(wire.Msg)
	res.Id, res.Response, res.Opcode, res.RecursionDesired = req.Id, true, req.Opcode, req.RecursionDesired
	res.Question = req.Question
	q := &query{from: from, udp: udp}
	res.Rcode = a.judge(req, q)
	if res.Rcode == wire.RcodeSuccess {
		a.fill(req.Question[0], q, res)
	}
	q.finish(res)
	return res
}

// judge decides what can be told without looking at the zone's content.
func (a *answerer) judge(req *wire.Msg, q *query) int {
	if req.Opcode != wire.OpcodeQuery {
		return wire.RcodeNotImplemented
	}
	if len(req.Question) != 1 || len(req.Answer) > 0 || len(req.Ns) > 1 {
		return wire.RcodeFormatError
	}
	if rcode := q.readEDNS(req); rcode != wire.RcodeSuccess {
		return rcode
	}
	question := req.Question[0]
	switch question.Qtype {
	case wire.TypeAXFR, wire.TypeIXFR:
		return wire.RcodeRefused
	case wire.TypeOPT, wire.TypeTSIG, wire.TypeTKEY, wire.TypeMAILA, wire.TypeMAILB:
		return wire.RcodeFormatError
	}
	if question.Qclass != wire.ClassINET || !a.zone.Load().Holds(strings.ToLower(question.Name)) {
		return wire.RcodeRefused
	}
	return wire.RcodeSuccess
}

func (a *answerer) fill(question wire.Question, q *query, res *wire.Msg) {
	z := a.zone.Load()
	name := strings.ToLower(question.Name)
	res.Authoritative = true
	// Owner names repeat the question's spelling, so that resolvers which mix case as a nonce are content.
	h := wire.RR_Header{Name: question.Name, Rrtype: question.Qtype, Class: wire.ClassINET, Ttl: a.ttl}
	n := z.Find(name)
	switch {
	case n == nil:
		res.Rcode = wire.RcodeNameError
	case question.Qtype == wire.TypeA:
		res.Answer = records(h, a.choose(n, n.V4(), q))
	case question.Qtype == wire.TypeAAAA:
		res.Answer = records(h, a.choose(n, n.V6(), q))
	case question.Qtype == wire.TypeANY: // RFC 8482 section 4.2
		h.Rrtype = wire.TypeHINFO
		res.Answer = []wire.RR{&wire.HINFO{Hdr: h, Cpu: "RFC8482"}}
	case name == z.Origin && question.Qtype == wire.TypeNS:
		res.Answer, res.Extra = a.nameServers(z, h)
	case name == z.Origin && question.Qtype == wire.TypeSOA:
		res.Answer = []wire.RR{a.soa(z, h)}
	}
	if len(res.Answer) == 0 {
		h.Name, h.Rrtype = z.Origin, wire.TypeSOA
		res.Ns = []wire.RR{a.soa(z, h)}
	}
}

// choose orders and bounds the addresses of a name for this client, and notes for how many clients that holds.
func (a *answerer) choose(n *zone.Name, sites []zone.Site, q *query) []netip.Addr {
	if !n.Moves() {
		return zone.Flatten(sites, 0, true, maxAddresses)
	}
	turn := int(a.turn.Add(1) >> 1 & 0xffff) // clients ask A and AAAA in pairs: both see every turn
	if a.locate == nil {
		return zone.Flatten(sites, turn, false, maxAddresses)
	}
	point, network, ok := a.locate.Locate(q.client())
	if !ok {
		return zone.Flatten(sites, turn, false, maxAddresses)
	}
	q.holdsFor(network)
	sites = zone.Nearest(sites, point)
	return zone.Flatten(sites[:min(a.pops, len(sites))], turn, true, maxAddresses)
}

func records(h wire.RR_Header, addresses []netip.Addr) []wire.RR {
	out := make([]wire.RR, len(addresses))
	for i, ip := range addresses {
		if h.Rrtype == wire.TypeA {
			out[i] = &wire.A{Hdr: h, A: ip.AsSlice()}
		} else {
			out[i] = &wire.AAAA{Hdr: h, AAAA: ip.AsSlice()}
		}
	}
	return out
}

// nameServers returns the NS records and the addresses of those inside the zone.
func (a *answerer) nameServers(z *zone.Zone, h wire.RR_Header) (answer, glue []wire.RR) {
	for _, ns := range z.NS {
		answer = append(answer, &wire.NS{Hdr: h, Ns: ns})
		n := z.Find(ns)
		if n == nil {
			continue
		}
		g := wire.RR_Header{Name: ns, Class: wire.ClassINET, Ttl: a.ttl}
		g.Rrtype = wire.TypeA
		glue = append(glue, records(g, zone.Flatten(n.V4(), 0, true, maxAddresses))...)
		g.Rrtype = wire.TypeAAAA
		glue = append(glue, records(g, zone.Flatten(n.V6(), 0, true, maxAddresses))...)
	}
	return answer, glue
}

// soa's TTL equals its MINIMUM, so a negative answer lives exactly as long as a positive one (RFC 2308 section 5).
// Refresh, retry and expire speak to secondaries, of which there are none.
func (a *answerer) soa(z *zone.Zone, h wire.RR_Header) wire.RR {
	return &wire.SOA{Hdr: h, Ns: z.NS[0], Mbox: "hostmaster." + z.Origin, Serial: z.Serial,
		Refresh: 3600, Retry: 600, Expire: 1209600, Minttl: a.ttl}
}
