package place

import (
	"math"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
)

func writeDB(t testing.TB, entries map[string]mmdbtype.Map) string {
	t.Helper()
	tree, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: "Test-City", RecordSize: 24, IncludeReservedNetworks: true})
	if err != nil {
		t.Fatal(err)
	}
	for cidr, value := range entries {
		_, network, err := net.ParseCIDR(cidr)
		if err != nil {
			t.Fatal(err)
		}
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

func TestLocate(t *testing.T) {
	db, err := Open(writeDB(t, map[string]mmdbtype.Map{
		"127.1.0.0/16":    {"location": mmdbtype.Map{"latitude": mmdbtype.Float64(50.5), "longitude": mmdbtype.Float64(12.25)}},
		"127.2.0.0/16":    {"latitude": mmdbtype.Float32(51), "longitude": mmdbtype.Float32(2.5)},
		"127.3.0.0/16":    {"lat": mmdbtype.String("-33.5"), "lng": mmdbtype.String("151.25")},
		"127.4.0.0/16":    {"country": mmdbtype.String("DE")},
		"127.5.0.0/16":    {"latitude": mmdbtype.Float64(510), "longitude": mmdbtype.Float64(2)},
		"2001:db8:7::/48": {"latitude": mmdbtype.Float64(1), "longitude": mmdbtype.Float64(2)},
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	tests := []struct {
		address string
		want    Point
		network string
		ok      bool
	}{
		{"127.1.2.3", Point{50.5, 12.25}, "127.1.0.0/16", true},
		{"::ffff:127.1.2.3", Point{50.5, 12.25}, "127.1.0.0/16", true},
		{"127.2.2.3", Point{51, 2.5}, "127.2.0.0/16", true},
		{"127.3.2.3", Point{-33.5, 151.25}, "127.3.0.0/16", true},
		{"127.4.2.3", Point{}, "invalid Prefix", false},
		{"127.5.2.3", Point{}, "invalid Prefix", false},
		{"127.6.2.3", Point{}, "invalid Prefix", false},
		{"2001:db8:7::1", Point{1, 2}, "2001:db8:7::/48", true},
	}
	for _, tt := range tests {
		got, network, ok := db.Locate(netip.MustParseAddr(tt.address))
		if got != tt.want || ok != tt.ok || network.String() != tt.network {
			t.Errorf("%s: %v %v %v, want %v %v %v", tt.address, got, network, ok, tt.want, tt.network, tt.ok)
		}
	}
}

func TestOpenNamesTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "not.mmdb")
	if err := os.WriteFile(path, []byte("not a database"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); err == nil {
		t.Error("opened")
	}
}

func TestDistance(t *testing.T) {
	falkenstein, gravelines := Point{50.48, 12.37}, Point{50.99, 2.13}
	if d := Distance(falkenstein, gravelines); math.Abs(d-722) > 5 {
		t.Errorf("falkenstein to gravelines: %.0f km, want about 722", d)
	}
	if d := Distance(Point{0, 179.5}, Point{0, -179.5}); math.Abs(d-111) > 1 {
		t.Errorf("over the date line: %.0f km, want about 111", d)
	}
	if d := Distance(falkenstein, falkenstein); d != 0 {
		t.Errorf("to itself: %v", d)
	}
}
