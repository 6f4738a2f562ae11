package feed

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"reflect"

	"popfleet/internal/strictjson"
)

// Bounds of one snapshot. They are far above any real fleet: what passes them is refused, not cut.
const (
	MaxLineBytes = 1 << 20
	MaxNodes     = 1024
	maxAddresses = 16
	maxLabel     = 63
)

// Encode returns the snapshot as one line, newline included.
func Encode(m Map) ([]byte, error) {
	line, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode map: %w", err)
	}
	if len(line) >= MaxLineBytes {
		return nil, fmt.Errorf("encode map: %d bytes are more than a line may have (%d)", len(line), MaxLineBytes)
	}
	return append(line, '\n'), nil
}

// Decode reads one line. A snapshot is taken whole or refused whole: unknown keys, unknown states, addresses nobody can
// be sent to and doubled nodes are errors.
func Decode(line []byte) (Map, error) {
	var m Map
	if len(line) > MaxLineBytes {
		return Map{}, fmt.Errorf("map: line longer than %d bytes", MaxLineBytes)
	}
	if err := strictjson.Decode(line, &m); err != nil {
		return Map{}, fmt.Errorf("map: %w", err)
	}
	if err := m.Check(); err != nil {
		return Map{}, fmt.Errorf("map: %w", err)
	}
	return m, nil
}

// Read hands every snapshot of the stream to accept, in order, until the stream ends (nil) or says something that is
// not a snapshot (the error). The caller sets deadlines on r and closes it.
func Read(r io.Reader, accept func(Map)) error {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 64<<10), MaxLineBytes)
	for s.Scan() {
		m, err := Decode(s.Bytes())
		if err != nil {
			return err
		}
		accept(m)
	}
	return s.Err()
}

// Check returns every problem of the snapshot.
func (m Map) Check() error {
	var errs []error
	if m.V != 1 {
		errs = append(errs, fmt.Errorf("version %d of the message is not known here; 1 is", m.V))
	}
	if m.From == "" {
		errs = append(errs, errors.New("from is empty"))
	}
	if len(m.Nodes) > MaxNodes {
		return errors.Join(append(errs, fmt.Errorf("%d nodes are more than %d", len(m.Nodes), MaxNodes))...)
	}
	seen := map[string]bool{}
	for _, n := range m.Nodes {
		if seen[n.Name] {
			errs = append(errs, fmt.Errorf("node %q is there twice", n.Name))
		}
		seen[n.Name] = true
		errs = append(errs, n.check())
	}
	return errors.Join(errs...)
}

func (n Node) check() error {
	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("node %q: "+format, append([]any{n.Name}, args...)...))
	}
	if !Label(n.Name) {
		bad("name is not a DNS label")
	}
	if !Label(n.PoP) {
		bad("pop %q is not a DNS label", n.PoP)
	}
	switch n.State {
	case Serving, Draining, Full, Failing, Dead:
	default:
		bad("state %q is not known", n.State)
	}
	if len(n.Addresses) > maxAddresses {
		bad("%d addresses are more than %d", len(n.Addresses), maxAddresses)
	}
	for _, a := range n.Addresses {
		if !Routable(a) {
			bad("address %v can't be in an answer", a)
		}
	}
	if !(n.Lat >= -90 && n.Lat <= 90 && n.Lon >= -180 && n.Lon <= 180) {
		bad("place %v, %v is not on earth", n.Lat, n.Lon)
	}
	return errors.Join(errs...)
}

// Routable says whether an answer may carry the address: a unicast address without a zone, and IPv4 as IPv4.
func Routable(a netip.Addr) bool {
	return a.IsValid() && !a.Is4In6() && a.Zone() == "" && !a.IsUnspecified() && !a.IsMulticast()
}

// Label says whether s is one lower-case DNS label of letters, digits and inner hyphens.
func Label(s string) bool {
	if s == "" || len(s) > maxLabel || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-') {
			return false
		}
	}
	return true
}

// SameNodes says whether both snapshots describe the same nodes, whoever sent them and when.
func (m Map) SameNodes(o Map) bool {
	return len(m.Nodes) == len(o.Nodes) && (len(m.Nodes) == 0 || reflect.DeepEqual(m.Nodes, o.Nodes))
}
