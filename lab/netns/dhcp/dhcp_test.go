package dhcp

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"
)

var (
	mac   = net.HardwareAddr{0x96, 0, 0, 0, 0, 9}
	lease = Lease{Address: netip.MustParseAddr("198.18.0.9"), Bits: 32, Gateway: netip.MustParseAddr("172.31.1.1")}
)

func lookup(m net.HardwareAddr) (Lease, bool) { return lease, bytes.Equal(m, mac) }

// packet is a client's message; ciaddr may be invalid.
func packet(kind byte, from net.HardwareAddr, ciaddr netip.Addr, options ...byte) []byte {
	p := make([]byte, headerBytes)
	p[0], p[1], p[2] = 1, 1, 6
	copy(p[4:8], []byte{1, 2, 3, 4})
	if ciaddr.IsValid() {
		a := ciaddr.As4()
		copy(p[12:16], a[:])
	}
	copy(p[28:34], from)
	p = append(p, magic...)
	p = append(p, optType, 1, kind)
	return append(append(p, options...), optEnd)
}

func option(t *testing.T, p []byte, want byte) []byte {
	t.Helper()
	for o := p[headerBytes+4:]; len(o) > 1 && o[0] != optEnd; o = o[2+int(o[1]):] {
		if o[0] == want {
			return o[2 : 2+int(o[1])]
		}
	}
	return nil
}

func TestAnswer(t *testing.T) {
	other := netip.MustParseAddr("198.18.0.77")
	tests := map[string]struct {
		packet []byte
		kind   byte // 0: no answer
		to     string
	}{
		"discover is offered":             {packet(discover, mac, netip.Addr{}), offer, "255.255.255.255:68"},
		"request is acknowledged":         {packet(request, mac, netip.Addr{}, optRequested, 4, 198, 18, 0, 9), ack, "255.255.255.255:68"},
		"renewal is answered where it is": {packet(request, mac, lease.Address), ack, "198.18.0.9:68"},
		"another address is refused":      {packet(request, mac, netip.Addr{}, optRequested, 4, 198, 18, 0, 77), nak, "255.255.255.255:68"},
		"renewal of another is refused":   {packet(request, mac, other), nak, "255.255.255.255:68"},
		"another server was chosen":       {packet(request, mac, netip.Addr{}, optServer, 4, 10, 0, 0, 1), 0, ""},
		"stranger":                        {packet(discover, net.HardwareAddr{2, 0, 0, 0, 0, 1}, netip.Addr{}), 0, ""},
		"release":                         {packet(7, mac, lease.Address), 0, ""},
		"cut option":                      {append(packet(discover, mac, netip.Addr{})[:headerBytes+4], optType, 9, 1), 0, ""},
		"short":                           {make([]byte, 100), 0, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			out, to, ok := Answer(tt.packet, lookup)
			if ok != (tt.kind != 0) {
				t.Fatalf("answered %v", ok)
			}
			if !ok {
				return
			}
			if got := option(t, out, optType); len(got) != 1 || got[0] != tt.kind || to.String() != tt.to {
				t.Errorf("type %v to %s, expected %d to %s", got, to, tt.kind, tt.to)
			}
		})
	}
}

// TestOfferIsAProviders holds the bytes that clients route by: the one address, and a gateway that is on no subnet.
func TestOfferIsAProviders(t *testing.T) {
	out, _, ok := Answer(packet(discover, mac, netip.Addr{}), lookup)
	if !ok {
		t.Fatal("no offer")
	}
	for name, tt := range map[string]struct{ got, want []byte }{
		"transaction": {out[4:8], []byte{1, 2, 3, 4}},
		"address":     {out[16:20], []byte{198, 18, 0, 9}},
		"mask":        {option(t, out, optMask), []byte{255, 255, 255, 255}},
		"server":      {option(t, out, optServer), []byte{172, 31, 1, 1}},
		"routes":      {option(t, out, optRoutes), []byte{32, 172, 31, 1, 1, 0, 0, 0, 0, 0, 172, 31, 1, 1}},
	} {
		if !bytes.Equal(tt.got, tt.want) {
			t.Errorf("%s: %v, expected %v", name, tt.got, tt.want)
		}
	}
	if len(out) < 300 {
		t.Errorf("%d bytes: old clients want 300", len(out))
	}
}

// TestServe goes over a real socket, as far as a loopback does: a renewal is answered to the client's own address.
func TestServe(t *testing.T) {
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	asked := make(chan struct{}, 1)
	done := make(chan error, 1)
	go func() {
		done <- Serve(ctx, conn, func(net.HardwareAddr) (Lease, bool) { asked <- struct{}{}; return Lease{}, false }, slog.New(slog.DiscardHandler))
	}()
	client, err := net.Dial("udp4", conn.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	client.Write([]byte("rubbish"))
	client.Write(packet(discover, mac, netip.Addr{}))
	select {
	case <-asked:
	case <-time.After(30 * time.Second):
		t.Fatal("the question was not read")
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add(packet(discover, mac, netip.Addr{}))
	f.Add(packet(request, mac, lease.Address, optRequested, 4, 1, 2, 3, 4, optServer, 4, 172, 31, 1, 1))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, p []byte) {
		out, to, ok := Answer(p, lookup)
		if ok && (len(out) < 300 || to.Port() != clientPort) {
			t.Fatalf("%d bytes to %s", len(out), to)
		}
	})
}

// TestGatewayOnTheLink: a network with its gateway inside needs no route told, and option 121 would win over the mask.
func TestGatewayOnTheLink(t *testing.T) {
	inside := Lease{Address: netip.MustParseAddr("198.19.0.2"), Bits: 26, Gateway: netip.MustParseAddr("198.19.0.1")}
	out, _, ok := Answer(packet(discover, mac, netip.Addr{}), func(net.HardwareAddr) (Lease, bool) { return inside, true })
	if !ok || !bytes.Equal(option(t, out, optMask), []byte{255, 255, 255, 192}) || !bytes.Equal(option(t, out, optRouter), []byte{198, 19, 0, 1}) {
		t.Errorf("%v: %v", ok, out)
	}
	if routes := option(t, out, optRoutes); routes != nil {
		t.Errorf("routes %v", routes)
	}
}
