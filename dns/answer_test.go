package dns

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	wire "github.com/miekg/dns"

	"popfleet/dns/feed"
	"popfleet/dns/place"
	"popfleet/dns/zone"
)

// byOctet places 10.0.0.0/8 and 203.0.113.0/24 in Falkenstein, 198.51.100.0/22 in Gravelines; it knows nobody else.
type byOctet struct{}

func (byOctet) Locate(a netip.Addr) (place.Point, netip.Prefix, bool) {
	for cidr, p := range map[string]place.Point{"203.0.113.0/24": {Lat: 50.5, Lon: 12.4}, "198.51.100.0/22": {Lat: 51, Lon: 2.1}} {
		if network := netip.MustParsePrefix(cidr); network.Contains(a) {
			return p, network, true
		}
	}
	return place.Point{}, netip.Prefix{}, false
}

func testNode(name, pop, state string, lat, lon float64, addresses ...string) feed.Node {
	n := feed.Node{Name: name, PoP: pop, State: state, Lat: lat, Lon: lon}
	for _, a := range addresses {
		n.Addresses = append(n.Addresses, netip.MustParseAddr(a))
	}
	return n
}

func testAnswerer(geo bool, nodes ...feed.Node) *answerer {
	if nodes == nil {
		nodes = []feed.Node{
			testNode("fsn-1", "fsn", feed.Serving, 50.5, 12.4, "198.18.0.10", "2001:db8:1:1::1"),
			testNode("gra-1", "gra", feed.Serving, 51, 2.1, "198.18.0.20"),
			testNode("gra-2", "gra", feed.Dead, 51, 2.1, "198.18.0.21"),
		}
	}
	names := zone.Names{Origin: "demo.test.", NS: []string{"fsn-1.demo.test.", "gra-1.demo.test."}, Live: []string{"www.demo.test.", "a.b.demo.test."}}
	a := &answerer{ttl: 30, pops: 1}
	if geo {
		a.locate = byOctet{}
	}
	a.zone.Store(zone.Build(names, nodes, feed.Map{V: 1, Nodes: nodes}, 7))
	return a
}

func ask(name string, qtype uint16, edit ...func(*wire.Msg)) *wire.Msg {
	m := new(wire.Msg).SetQuestion(name, qtype)
	for _, e := range edit {
		e(m)
	}
	return m
}

func withSubnet(cidr string, scope uint8) func(*wire.Msg) {
	return func(m *wire.Msg) {
		address, bits, _ := strings.Cut(cidr, "/")
		ip := netip.MustParseAddr(address)
		s := &wire.EDNS0_SUBNET{Code: wire.EDNS0SUBNET, Family: 1, SourceScope: scope, Address: net.IP(ip.AsSlice())}
		if ip.Is6() {
			s.Family = 2
		}
		fmt.Sscan(bits, &s.SourceNetmask)
		m.SetEdns0(4096, true)
		m.IsEdns0().Option = append(m.IsEdns0().Option, s)
	}
}

// flat writes the sections as "owner type rdata" for comparison.
func flat(rrs []wire.RR) string {
	var out []string
	for _, rr := range rrs {
		if rr.Header().Rrtype != wire.TypeOPT {
			data := strings.TrimPrefix(rr.String(), rr.Header().String())
			out = append(out, fmt.Sprintf("%s %s %s", rr.Header().Name, wire.TypeToString[rr.Header().Rrtype], data))
		}
	}
	return strings.Join(out, ", ")
}

const soaText = "demo.test. SOA fsn-1.demo.test. hostmaster.demo.test. 7 3600 600 1209600 30"

func TestAnswers(t *testing.T) {
	class := func(c uint16) func(*wire.Msg) { return func(m *wire.Msg) { m.Question[0].Qclass = c } }
	tests := []struct {
		name          string
		req           *wire.Msg
		rcode         int
		answer, ns    string
		extra         string
		authoritative bool
	}{
		{"apex soa", ask("demo.test.", wire.TypeSOA), 0, soaText, "", "", true},
		{"apex ns", ask("demo.test.", wire.TypeNS), 0, "demo.test. NS fsn-1.demo.test., demo.test. NS gra-1.demo.test.", "",
			"fsn-1.demo.test. A 198.18.0.10, fsn-1.demo.test. AAAA 2001:db8:1:1::1, gra-1.demo.test. A 198.18.0.20", true},
		{"apex aaaa", ask("demo.test.", wire.TypeAAAA), 0, "demo.test. AAAA 2001:db8:1:1::1", "", "", true},
		{"spelling kept", ask("FsN.DeMo.TeSt.", wire.TypeA), 0, "FsN.DeMo.TeSt. A 198.18.0.10", "", "", true},
		{"pop", ask("gra.demo.test.", wire.TypeA), 0, "gra.demo.test. A 198.18.0.20", "", "", true},
		{"dead node keeps its name", ask("gra-2.demo.test.", wire.TypeA), 0, "gra-2.demo.test. A 198.18.0.21", "", "", true},
		{"nodata", ask("gra-1.demo.test.", wire.TypeAAAA), 0, "", soaText, "", true},
		{"nodata of another type", ask("demo.test.", wire.TypeMX), 0, "", soaText, "", true},
		{"ns only at the apex", ask("www.demo.test.", wire.TypeNS), 0, "", soaText, "", true},
		{"nxdomain", ask("nope.demo.test.", wire.TypeA), wire.RcodeNameError, "", soaText, "", true},
		{"below a leaf", ask("x.www.demo.test.", wire.TypeA), wire.RcodeNameError, "", soaText, "", true},
		{"empty non-terminal", ask("b.demo.test.", wire.TypeA), 0, "", soaText, "", true},
		{"any is minimal", ask("demo.test.", wire.TypeANY), 0, `demo.test. HINFO "RFC8482" ""`, "", "", true},
		{"outside", ask("example.org.", wire.TypeA), wire.RcodeRefused, "", "", "", false},
		{"parent", ask("test.", wire.TypeNS), wire.RcodeRefused, "", "", "", false},
		{"root", ask(".", wire.TypeNS), wire.RcodeRefused, "", "", "", false},
		{"chaos", ask("version.bind.", wire.TypeTXT, class(wire.ClassCHAOS)), wire.RcodeRefused, "", "", "", false},
		{"chaos inside", ask("demo.test.", wire.TypeTXT, class(wire.ClassCHAOS)), wire.RcodeRefused, "", "", "", false},
		{"transfer", ask("demo.test.", wire.TypeAXFR), wire.RcodeRefused, "", "", "", false},
		{"opt as a question", ask("demo.test.", wire.TypeOPT), wire.RcodeFormatError, "", "", "", false},
		{"notify", ask("demo.test.", wire.TypeSOA, func(m *wire.Msg) { m.Opcode = wire.OpcodeNotify }), wire.RcodeNotImplemented, "", "", "", false},
		{"two questions", ask("demo.test.", wire.TypeA, func(m *wire.Msg) { m.Question = append(m.Question, m.Question[0]) }), wire.RcodeFormatError, "", "", "", false},
	}
	a := testAnswerer(false)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			res := a.answer(tt.req, netip.MustParseAddr("192.0.2.1"), true)
			if res.Rcode != tt.rcode || res.Authoritative != tt.authoritative || res.RecursionAvailable || !res.Response || !res.RecursionDesired || res.Id != tt.req.Id {
				t.Errorf("header %v", res.MsgHdr)
			}
			for _, c := range []struct{ section, got, want string }{
				{"answer", flat(res.Answer), tt.answer}, {"authority", flat(res.Ns), tt.ns}, {"additional", flat(res.Extra), tt.extra}} {
				if c.got != c.want {
					t.Errorf("%s %q, want %q", c.section, c.got, c.want)
				}
			}
			for _, rr := range append(res.Answer, res.Ns...) {
				if rr.Header().Ttl != 30 {
					t.Errorf("ttl %d of %v", rr.Header().Ttl, rr)
				}
			}
		})
	}
}

func TestEDNS(t *testing.T) {
	a := testAnswerer(false)
	from := netip.MustParseAddr("192.0.2.1")
	edns := func(edit func(*wire.OPT)) *wire.Msg {
		return ask("demo.test.", wire.TypeSOA, func(m *wire.Msg) { m.SetEdns0(4096, true); edit(m.IsEdns0()) })
	}
	if opt := a.answer(ask("demo.test.", wire.TypeSOA), from, true).IsEdns0(); opt != nil {
		t.Errorf("OPT for one who did not send any: %v", opt)
	}
	res := a.answer(edns(func(o *wire.OPT) {
		o.Option = append(o.Option, &wire.EDNS0_LOCAL{Code: 65001, Data: []byte("?")}, &wire.EDNS0_NSID{})
	}), from, true)
	opt := res.IsEdns0()
	if res.Rcode != 0 || opt == nil || opt.UDPSize() != 1232 || opt.Version() != 0 || !opt.Do() || len(opt.Option) != 0 {
		t.Errorf("unknown options: %v", res)
	}
	res = a.answer(edns(func(o *wire.OPT) { o.SetVersion(1) }), from, true)
	packed, err := res.Pack()
	back := new(wire.Msg)
	if err != nil || back.Unpack(packed) != nil || back.Rcode != wire.RcodeBadVers || back.IsEdns0().Version() != 0 || len(back.Answer) != 0 {
		t.Errorf("version 1: %v %v", back, err)
	}
	two := edns(func(*wire.OPT) {})
	two.Extra = append(two.Extra, two.Extra[0])
	if res := a.answer(two, from, true); res.Rcode != wire.RcodeFormatError {
		t.Errorf("two OPT: %v", res)
	}
}

func TestNearest(t *testing.T) {
	a := testAnswerer(true)
	tests := []struct {
		name, from, subnet string
		want               string
		scope              int // -1: no option in the answer
	}{
		{"source address", "203.0.113.9", "", "198.18.0.10", -1},
		{"source elsewhere", "198.51.100.1", "", "198.18.0.20", -1},
		{"subnet beats source", "203.0.113.9", "198.51.100.0/24", "198.18.0.20", 22},
		{"subnet withheld", "203.0.113.9", "0.0.0.0/0", "198.18.0.10", 0},
		{"private subnet", "203.0.113.9", "10.1.2.0/24", "198.18.0.10", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			req := ask("demo.test.", wire.TypeA)
			if tt.subnet != "" {
				withSubnet(tt.subnet, 0)(req)
			}
			res := a.answer(req, netip.MustParseAddr(tt.from), true)
			if got := flat(res.Answer); got != "demo.test. A "+tt.want {
				t.Errorf("answer %q, want %s", got, tt.want)
			}
			scope := -1
			if opt := res.IsEdns0(); opt != nil {
				scope = int(opt.Option[0].(*wire.EDNS0_SUBNET).SourceScope)
			}
			if scope != tt.scope {
				t.Errorf("scope %d, want %d", scope, tt.scope)
			}
		})
	}
	unknown := a.answer(ask("demo.test.", wire.TypeA), netip.MustParseAddr("192.0.2.1"), true)
	if len(unknown.Answer) != 2 {
		t.Errorf("client of unknown place: %v, want both nodes", unknown.Answer)
	}
	static := a.answer(ask("gra-1.demo.test.", wire.TypeA, withSubnet("203.0.113.0/24", 0)), netip.MustParseAddr("192.0.2.1"), true)
	if s := static.IsEdns0().Option[0].(*wire.EDNS0_SUBNET); s.SourceScope != 0 {
		t.Errorf("scope %d for a name that is the same everywhere", s.SourceScope)
	}
	for _, bad := range []func(*wire.Msg){withSubnet("203.0.113.0/24", 24), withSubnet("203.0.113.9/24", 0)} {
		if res := a.answer(ask("demo.test.", wire.TypeA, bad), netip.MustParseAddr("192.0.2.1"), true); res.Rcode != wire.RcodeFormatError {
			t.Errorf("bad option: %v", res)
		}
	}
}

func TestTruncation(t *testing.T) {
	var nodes []feed.Node
	for i := range 60 {
		nodes = append(nodes, testNode(fmt.Sprintf("fsn-%d", i+1), "fsn", feed.Serving, 50, 12, fmt.Sprintf("198.18.1.%d", i+1), fmt.Sprintf("2001:db8::%d", i+1)))
	}
	nodes = append(nodes, testNode("gra-1", "gra", feed.Serving, 51, 2, "198.18.2.1"))
	a := testAnswerer(false, nodes...)
	from := netip.MustParseAddr("192.0.2.1")
	tests := []struct {
		name      string
		req       *wire.Msg
		udp       bool
		limit     int
		truncated bool
	}{
		{"plain udp", ask("demo.test.", wire.TypeAAAA), true, 512, true},
		{"edns", ask("demo.test.", wire.TypeAAAA, func(m *wire.Msg) { m.SetEdns0(4096, false) }), true, 1232, false},
		{"edns says less than allowed", ask("demo.test.", wire.TypeAAAA, func(m *wire.Msg) { m.SetEdns0(100, false) }), true, 512, true},
		{"tcp", ask("demo.test.", wire.TypeAAAA), false, 65535, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			res := a.answer(tt.req, from, tt.udp)
			packed, err := res.Pack()
			if err != nil || len(packed) > tt.limit || res.Truncated != tt.truncated {
				t.Errorf("%d bytes, truncated %v, %v; want at most %d, %v", len(packed), res.Truncated, err, tt.limit, tt.truncated)
			}
			if len(res.Answer) == 0 {
				t.Error("nothing left in the answer")
			}
		})
	}
}

func FuzzAnswer(f *testing.F) {
	for _, m := range []*wire.Msg{
		ask("demo.test.", wire.TypeA), ask("www.demo.test.", wire.TypeAAAA, withSubnet("203.0.113.0/24", 0)),
		ask("demo.test.", wire.TypeNS, func(m *wire.Msg) { m.SetEdns0(512, true) }), ask("x.demo.test.", wire.TypeANY),
	} {
		packed, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(packed, true)
	}
	a := testAnswerer(true)
	f.Fuzz(func(t *testing.T, packet []byte, udp bool) {
		req := new(wire.Msg)
		if req.Unpack(packet) != nil {
			return
		}
		res := a.answer(req, netip.MustParseAddr("203.0.113.9"), udp)
		packed, err := res.Pack()
		if err != nil {
			t.Fatalf("%v\nto %v: %v", res, req, err)
		}
		if udp && len(packed) > maxUDPBytes {
			t.Fatalf("%d bytes over UDP", len(packed))
		}
		if err := new(wire.Msg).Unpack(packed); err != nil {
			t.Fatalf("own answer does not unpack: %v", err)
		}
		if res.Id != req.Id || !res.Response || res.RecursionAvailable {
			t.Fatalf("header %v", res.MsgHdr)
		}
	})
}

func BenchmarkAnswer(b *testing.B) {
	for _, geo := range []bool{false, true} {
		b.Run(fmt.Sprintf("geo=%v", geo), func(b *testing.B) {
			a := testAnswerer(geo)
			packet, _ := ask("demo.test.", wire.TypeA, withSubnet("203.0.113.0/24", 0)).Pack()
			from := netip.MustParseAddr("198.51.100.1")
			b.ReportAllocs()
			for b.Loop() {
				req := new(wire.Msg)
				if err := req.Unpack(packet); err != nil {
					b.Fatal(err)
				}
				if _, err := a.answer(req, from, true).Pack(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
