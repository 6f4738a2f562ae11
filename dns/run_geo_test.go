package dns

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
	wire "github.com/miekg/dns"

	"popfleet/dns/feed"
)

// TestNearestOverSockets asks from loopback addresses that a database places in Falkenstein and in Gravelines.
func TestNearestOverSockets(t *testing.T) {
	cfg := testConfig(t)
	cfg.Listen = []string{"127.0.0.1:0"}
	cfg.Nodes = append(cfg.Nodes, Node{Name: "gra-1", PoP: "gra", Addresses: []netip.Addr{netip.MustParseAddr("198.18.0.20")}})
	for i := range cfg.Nodes {
		cfg.Nodes[i].Place.Lat, cfg.Nodes[i].Place.Lon = 50.5, 12.4
		if cfg.Nodes[i].PoP == "gra" {
			cfg.Nodes[i].Place.Lat, cfg.Nodes[i].Place.Lon = 51, 2.1
		}
	}
	cfg.MMDB = writeMMDB(t, map[string][2]float64{"127.1.0.0/16": {50.5, 12.3}, "127.2.0.0/16": {48.9, 2.4}})
	addresses, _ := start(t, cfg)
	from := func(source string) (out []string) {
		c := &wire.Client{Net: "udp", Timeout: patience, Dialer: &net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(source)}}}
		res, _, err := c.Exchange(ask("demo.test.", wire.TypeA), addresses[0].String())
		if err != nil {
			t.Fatal(err)
		}
		for _, rr := range res.Answer {
			out = append(out, rr.(*wire.A).A.String())
		}
		return out
	}
	if got := from("127.2.0.1"); len(got) != 1 || got[0] != "198.18.0.20" {
		t.Errorf("from Paris: %v", got)
	}
	if got := from("127.1.0.1"); len(got) != 2 || got[0] == "198.18.0.20" || got[1] == "198.18.0.20" {
		t.Errorf("from Saxony: %v", got)
	}
	if got := from("127.3.0.1"); len(got) != 3 {
		t.Errorf("from nowhere: %v", got)
	}

	// The nearest PoP dies: the next one takes over.
	m := cfg.startMap()
	for i := range m.Nodes {
		if m.Nodes[i].PoP == "gra" {
			m.Nodes[i].State = feed.Dead
		}
	}
	m.From, m.Version = "fsn-1", 1
	c := send(t, cfg.Feed, m)
	defer c.Close()
	waitGone(t, from, "198.18.0.20")
}

func waitGone(t *testing.T, from func(string) []string, address string) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); <-time.After(5 * time.Millisecond) {
		got := from("127.2.0.1")
		if len(got) == 2 && got[0] != address && got[1] != address {
			return
		}
	}
	t.Errorf("%s is still answered", address)
}

func writeMMDB(t *testing.T, places map[string][2]float64) string {
	t.Helper()
	tree, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: "Test-City", RecordSize: 24, IncludeReservedNetworks: true})
	if err != nil {
		t.Fatal(err)
	}
	for cidr, p := range places {
		_, network, err := net.ParseCIDR(cidr)
		if err != nil {
			t.Fatal(err)
		}
		value := mmdbtype.Map{"location": mmdbtype.Map{"latitude": mmdbtype.Float64(p[0]), "longitude": mmdbtype.Float64(p[1])}}
		if err := tree.Insert(network, value); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), "city.mmdb")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := tree.WriteTo(f); err != nil {
		t.Fatal(err)
	}
	return path
}
