// Package place says roughly where a client is and how far that is from a PoP. It reads a MaxMind database (.mmdb) and
// nothing else; an address the database does not know, or knows without a position, has no place, which is never an
// error for the one who asks.
package place

import (
	"fmt"
	"math"
	"net/netip"
	"strconv"

	"github.com/oschwald/maxminddb-golang/v2"
)

// Point is a position on earth in degrees.
type Point struct{ Lat, Lon float64 }

const earthRadiusKm = 6371.0088

// Distance is the great-circle distance in kilometres (haversine: good for near points too).
func Distance(a, b Point) float64 {
	const radian = math.Pi / 180
	lat1, lat2 := a.Lat*radian, b.Lat*radian
	dLat, dLon := lat2-lat1, (b.Lon-a.Lon)*radian
	h := math.Pow(math.Sin(dLat/2), 2) + math.Cos(lat1)*math.Cos(lat2)*math.Pow(math.Sin(dLon/2), 2)
	return 2 * earthRadiusKm * math.Asin(math.Sqrt(min(1, h)))
}

// DB is an open database. It is safe for concurrent use.
type DB struct{ reader *maxminddb.Reader }

// Open maps the database at path into memory. The file must be replaced by rename, never rewritten in place.
func Open(path string) (*DB, error) {
	r, err := maxminddb.Open(path)
	if err != nil {
		return nil, fmt.Errorf("mmdb %s: %w", path, err)
	}
	return &DB{r}, nil
}

// Close unmaps the database; no Locate may run then or later.
func (d *DB) Close() error { return d.reader.Close() }

// Describe is the database's type and build time, for a status line.
func (d *DB) Describe() string {
	m := d.reader.Metadata
	return fmt.Sprintf("%s, built %s", m.DatabaseType, m.BuildTime().UTC().Format("2006-01-02"))
}

// Where the known databases keep a position: MaxMind nests it, the flat ones do not, some write it as text.
var layouts = [][2][]any{
	{{"location", "latitude"}, {"location", "longitude"}},
	{{"latitude"}, {"longitude"}},
	{{"lat"}, {"lng"}},
}

// Locate returns where the address is and the network for which that holds. A database with IPv4 inside IPv6 is asked
// with the plain IPv4 address.
func (d *DB) Locate(a netip.Addr) (Point, netip.Prefix, bool) {
	found := d.reader.Lookup(a.Unmap())
	if !found.Found() {
		return Point{}, netip.Prefix{}, false
	}
	for _, l := range layouts {
		lat, ok1 := number(found, l[0])
		lon, ok2 := number(found, l[1])
		if ok1 && ok2 && math.Abs(lat) <= 90 && math.Abs(lon) <= 180 {
			return Point{lat, lon}, found.Prefix(), true
		}
	}
	return Point{}, netip.Prefix{}, false
}

func number(r maxminddb.Result, path []any) (float64, bool) {
	var v any
	if err := r.DecodePath(&v, path...); err != nil {
		return 0, false
	}
	switch n := v.(type) {
	case float64:
		return n, true
	case float32:
		return float64(n), true
	case string:
		f, err := strconv.ParseFloat(n, 64)
		return f, err == nil
	default:
		return 0, false
	}
}
