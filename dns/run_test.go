package dns

import (
	"context"
	"encoding/binary"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	wire "github.com/miekg/dns"
	"go.uber.org/goleak"

	"popfleet/dns/feed"
	"popfleet/internal/control"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait on a busy machine; a test that passes never waits for it.
const patience = 20 * time.Second

func testConfig(t *testing.T) Config {
	dir := t.TempDir()
	c := Default()
	c.Node, c.Zone, c.Listen = "fsn-1", "demo.test", []string{"127.0.0.1:0", "[::1]:0"}
	c.NS = []string{"fsn-1.demo.test", "fsn-2.demo.test"}
	for _, n := range []struct{ name, address string }{{"fsn-1", "198.18.0.10"}, {"fsn-2", "198.18.0.11"}} {
		c.Nodes = append(c.Nodes, Node{Name: n.name, PoP: "fsn", Addresses: []netip.Addr{netip.MustParseAddr(n.address)}})
	}
	c.Feed, c.Control, c.State = filepath.Join(dir, "feed.sock"), filepath.Join(dir, "control.sock"), filepath.Join(dir, "state")
	if err := os.MkdirAll(c.State, 0o700); err != nil {
		t.Fatal(err)
	}
	return c
}

// start runs the server; stop ends it and is safe to call twice.
func start(t *testing.T, c Config) (addresses []netip.AddrPort, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ready, done := make(chan []netip.AddrPort, 1), make(chan error, 1)
	go func() {
		done <- Run(ctx, c, Deps{Log: slog.New(slog.DiscardHandler), Version: "test", Ready: func(a []netip.AddrPort) { ready <- a }})
	}()
	stopped := false
	stop = func() {
		cancel()
		if !stopped {
			stopped = true
			if err := <-done; err != nil {
				t.Errorf("run: %v", err)
			}
		}
	}
	t.Cleanup(stop)
	select {
	case addresses = <-ready:
	case err := <-done:
		stopped = true
		t.Fatalf("run: %v", err)
	case <-time.After(patience):
		t.Fatal("not ready")
	}
	return addresses, stop
}

func exchange(t *testing.T, network string, to netip.AddrPort, m *wire.Msg) *wire.Msg {
	t.Helper()
	c := &wire.Client{Net: network, Timeout: patience}
	res, _, err := c.Exchange(m, to.String())
	if err != nil {
		t.Fatalf("%s %s: %v", network, to, err)
	}
	return res
}

// until repeats the question until the addresses are those wanted.
func until(t *testing.T, to netip.AddrPort, name, want string) {
	t.Helper()
	got := ""
	for end := time.Now().Add(patience); time.Now().Before(end); <-time.After(5 * time.Millisecond) {
		got = ""
		for _, rr := range exchange(t, "udp", to, ask(name, wire.TypeA)).Answer {
			got += rr.(*wire.A).A.String() + " "
		}
		if got = strings.TrimSpace(got); got == want {
			return
		}
	}
	t.Fatalf("%s: %q, want %q", name, got, want)
}

func snapshot(states map[string]string) feed.Map {
	m := feed.Map{V: 1, From: "fsn-1", Version: 1, Time: time.Now()}
	for name, address := range map[string]string{"fsn-1": "198.18.0.10", "fsn-2": "198.18.0.11"} {
		m.Nodes = append(m.Nodes, feed.Node{Name: name, PoP: "fsn", State: states[name], Addresses: []netip.Addr{netip.MustParseAddr(address)}})
	}
	return m
}

func send(t *testing.T, path string, m feed.Map) net.Conn {
	t.Helper()
	c, err := net.DialTimeout("unix", path, patience)
	if err != nil {
		t.Fatal(err)
	}
	line, err := feed.Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(line); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestServesOverBothFamiliesAndProtocols(t *testing.T) {
	addresses, _ := start(t, testConfig(t))
	for _, to := range addresses {
		for _, network := range []string{"udp", "tcp"} {
			res := exchange(t, network, to, ask("demo.test.", wire.TypeA))
			if len(res.Answer) != 2 || !res.Authoritative || res.RecursionAvailable {
				t.Errorf("%s %s: %v", network, to, res)
			}
		}
	}
}

func TestFollowsTheFeedAndKeepsTheMap(t *testing.T) {
	cfg := testConfig(t)
	addresses, stop := start(t, cfg)
	c := send(t, cfg.Feed, snapshot(map[string]string{"fsn-1": feed.Serving, "fsn-2": feed.Dead}))
	until(t, addresses[0], "demo.test.", "198.18.0.10")
	before := exchange(t, "udp", addresses[0], ask("demo.test.", wire.TypeSOA)).Answer[0].(*wire.SOA).Serial
	c.Close()
	c = send(t, cfg.Feed, snapshot(map[string]string{"fsn-1": feed.Draining, "fsn-2": feed.Serving}))
	until(t, addresses[0], "demo.test.", "198.18.0.11")
	until(t, addresses[0], "fsn-1.demo.test.", "198.18.0.10")
	after := exchange(t, "udp", addresses[0], ask("demo.test.", wire.TypeSOA)).Answer[0].(*wire.SOA).Serial
	if int32(after-before) <= 0 {
		t.Errorf("serial went from %d to %d", before, after)
	}
	if _, err := c.Write([]byte("not a map\n")); err != nil {
		t.Fatal(err)
	}
	c.Close()
	until(t, addresses[0], "demo.test.", "198.18.0.11")
	stop()

	addresses, _ = start(t, cfg)
	until(t, addresses[0], "demo.test.", "198.18.0.11")
	st, err := status(t, cfg)
	if err != nil || st.State != control.Serving || st.Detail.(map[string]any)["map"].(map[string]any)["source"] != "state" {
		t.Errorf("status %v %v", st, err)
	}
}

// status asks until the control socket answers: it opens beside the others.
func status(t *testing.T, cfg Config) (st control.Status, err error) {
	for end := time.Now().Add(patience); time.Now().Before(end); <-time.After(5 * time.Millisecond) {
		if st, err = control.Dial(cfg.Control).Status(t.Context()); err == nil {
			break
		}
	}
	return st, err
}

// TestOlderConnectionIsNotBelieved has the feed of a transport that was restarted: what the first connection still had
// in its buffer arrives after what the second one said.
func TestOlderConnectionIsNotBelieved(t *testing.T) {
	cfg := testConfig(t)
	s := &service{cfg: cfg, log: slog.New(slog.DiscardHandler), answers: &answerer{ttl: 30, pops: 1}, changed: make(chan struct{}, 1)}
	s.restore()
	s.accept(snapshot(map[string]string{"fsn-1": feed.Serving, "fsn-2": feed.Full}), 2)
	s.accept(snapshot(map[string]string{"fsn-1": feed.Dead, "fsn-2": feed.Dead}), 1)
	s.accept(feed.Map{V: 1, From: "fsn-1"}, 3)
	if st := s.Status().Detail.(Detail); st.Map.Serving != 1 || st.Map.Source != "feed" {
		t.Errorf("%+v", st.Map)
	}
	gone := make(chan struct{})
	close(gone)
	if err := s.keeper(gone); err != nil {
		t.Fatal(err)
	}
	if kept, err := s.load(); err != nil || !kept.SameNodes(s.answers.zone.Load().Map) {
		t.Errorf("kept %+v %v", kept, err)
	}
}

func TestBrokenKeptMapIsNotFatal(t *testing.T) {
	cfg := testConfig(t)
	if err := os.WriteFile(filepath.Join(cfg.State, stateFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	addresses, _ := start(t, cfg)
	if res := exchange(t, "udp", addresses[0], ask("demo.test.", wire.TypeA)); len(res.Answer) != 2 {
		t.Errorf("%v", res)
	}
}

// TestRawPackets sends what a client library would not.
func TestRawPackets(t *testing.T) {
	addresses, _ := start(t, testConfig(t))
	good, _ := ask("demo.test.", wire.TypeA).Pack()
	header := func(bits, questions uint16) []byte {
		p := append([]byte(nil), good...)
		binary.BigEndian.PutUint16(p[2:], bits)
		binary.BigEndian.PutUint16(p[4:], questions)
		return p
	}
	tests := []struct {
		name   string
		packet []byte
		rcode  int
	}{
		{"update", header(5<<11, 1), wire.RcodeNotImplemented},
		{"status", header(2<<11, 1), wire.RcodeNotImplemented},
		{"no question", header(0, 0), wire.RcodeFormatError},
		{"cut off", good[:len(good)-3], wire.RcodeFormatError},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := net.Dial("udp", addresses[0].String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(patience))
			if _, err := c.Write(tt.packet); err != nil {
				t.Fatal(err)
			}
			reply := make([]byte, 4096)
			n, err := c.Read(reply)
			if err != nil || n < 12 || int(reply[3]&15) != tt.rcode {
				t.Errorf("% x %v, want rcode %d", reply[:n], err, tt.rcode)
			}
		})
	}
}

func TestPortTakenIsSaid(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cfg := testConfig(t)
	cfg.Listen = []string{l.Addr().String()}
	err = Run(t.Context(), cfg, Deps{Log: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), "listen "+l.Addr().String()) {
		t.Errorf("error %v", err)
	}
}

func TestConfigSaysAllProblems(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dns.json")
	text := `{"node":"FSN","zone":"demo.test.","listen":["53"],"ns":["ns.demo.test."],"ttl":"0s","nodes":[{"name":"fsn-1","pop":"fsn","addresses":[],"place":{"lat":99,"lon":0}}],"mmdb":"","feed":"","state":"","control":""}`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Load(path)
	for _, want := range []string{"dns.json", `node "FSN"`, `zone "demo.test."`, `listen "53"`, "ttl 0s", "not on earth", "no address", "feed is empty", "state is empty", "control is empty", `ns "ns.demo.test."`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in: %v", want, err)
		}
	}
	if err := os.WriteFile(path, []byte(`{"node":"fsn-1","tll":"30s"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "tll") {
		t.Errorf("unknown key: %v", err)
	}
}
