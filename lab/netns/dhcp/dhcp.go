// Package dhcp answers the lab's machines as a cloud provider's DHCP does: each MAC gets its one address, and where its
// gateway is off-link, as with a /32, the way there in option 121 (RFC 3442). A machine whose own network settings fail, or an initramfs that knows
// none, finds its way by it.
//
// It hands out nothing of its own: leases are looked up, never chosen. What it can't read or doesn't know it ignores in
// silence, as a server on a shared wire must. It has no state and answers a repeated question the same way.
package dhcp

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"
)

// Lease is what a machine is told.
type Lease struct {
	Address netip.Addr
	Bits    int        // of the prefix that is on the link; 32 is nothing
	Gateway netip.Addr // off-link unless the prefix has it
}

// offLink says whether the way to the gateway has to be told.
func (l Lease) offLink() bool { return !netip.PrefixFrom(l.Address, l.Bits).Contains(l.Gateway) }

// Lookup finds a machine by its MAC address. It is called from the serving goroutine.
type Lookup func(mac net.HardwareAddr) (Lease, bool)

// Ports of RFC 2131.
const (
	ServerPort = 67
	clientPort = 68
)

const leaseTime = 24 * time.Hour

// Message types of option 53.
const (
	discover = 1
	offer    = 2
	request  = 3
	ack      = 5
	nak      = 6
	inform   = 8
)

const (
	optMask       = 1
	optRouter     = 3
	optRequested  = 50
	optLeaseTime  = 51
	optType       = 53
	optServer     = 54
	optRoutes     = 121
	optEnd        = 255
	optPad        = 0
	headerBytes   = 236
	ethernetBytes = 6
)

var magic = []byte{99, 130, 83, 99}

// Serve answers on conn until ctx ends; it closes conn. Conn must be bound to the machines' interface and may broadcast.
func Serve(ctx context.Context, conn net.PacketConn, lookup Lookup, log *slog.Logger) error {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	defer conn.Close()
	buf := make([]byte, 1500)
	for {
		n, _, err := conn.ReadFrom(buf)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("dhcp: %w", err)
		}
		if err != nil {
			log.Warn("dhcp read", "error", err)
			continue
		}
		out, to, ok := Answer(buf[:n], lookup)
		if !ok {
			continue
		}
		if _, err := conn.WriteTo(out, net.UDPAddrFromAddrPort(to)); err != nil {
			log.Warn("dhcp answer", "to", to, "error", err)
		}
	}
}

// Answer is the reply to a packet and where it goes; ok is false for what deserves none.
func Answer(packet []byte, lookup Lookup) (out []byte, to netip.AddrPort, ok bool) {
	q, err := parse(packet)
	if err != nil {
		return nil, to, false
	}
	lease, ok := lookup(q.mac)
	if !ok {
		return nil, to, false
	}
	kind, ok := answerType(q, lease)
	if !ok {
		return nil, to, false
	}
	to = netip.AddrPortFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), clientPort)
	if q.client.IsValid() && !q.client.IsUnspecified() && kind == ack {
		to = netip.AddrPortFrom(q.client, clientPort)
	}
	return reply(packet, q, lease, kind), to, true
}

func answerType(q question, lease Lease) (kind byte, ok bool) {
	switch q.kind {
	case discover:
		return offer, true
	case inform:
		return ack, true
	case request:
		if q.server.IsValid() && q.server != lease.Gateway {
			return 0, false // it chose another server
		}
		if wanted := q.wanted(); wanted.IsValid() && wanted != lease.Address {
			return nak, true
		}
		return ack, true
	}
	return 0, false
}

// reply fills a BOOTP header after the question's and adds the options.
func reply(packet []byte, q question, lease Lease, kind byte) []byte {
	out := make([]byte, headerBytes, 320)
	out[0] = 2 // BOOTREPLY
	copy(out[1:3], packet[1:3])
	copy(out[4:8], packet[4:8])     // transaction
	copy(out[10:12], packet[10:12]) // flags
	copy(out[24:28], packet[24:28]) // relay
	copy(out[28:44], packet[28:44]) // hardware address
	gw, addr := lease.Gateway.As4(), lease.Address.As4()
	if kind != nak {
		copy(out[12:16], packet[12:16])
		if q.kind != inform {
			copy(out[16:20], addr[:])
		}
	}
	copy(out[20:24], gw[:])
	out = append(out, magic...)
	out = append(out, optType, 1, kind)
	out = append(append(out, optServer, 4), gw[:]...)
	if kind != nak {
		out = binary.BigEndian.AppendUint32(append(out, optLeaseTime, 4), uint32(leaseTime.Seconds()))
		out = append(append(out, optMask, 4), net.CIDRMask(lease.Bits, 32)...)
		out = append(append(out, optRouter, 4), gw[:]...)
	}
	if kind != nak && lease.offLink() {
		out = append(out, optRoutes, 14, 32)            // gateway/32
		out = append(append(out, gw[:]...), 0, 0, 0, 0) // is on the link
		out = append(append(out, 0), gw[:]...)          // 0.0.0.0/0 goes there
	}
	out = append(out, optEnd)
	return append(out, make([]byte, max(0, 300-len(out)))...) // old clients drop shorter ones
}

type question struct {
	kind      byte
	mac       net.HardwareAddr
	client    netip.Addr // ciaddr: the address it has already
	requested netip.Addr
	server    netip.Addr
}

func (q question) wanted() netip.Addr {
	if q.requested.IsValid() {
		return q.requested
	}
	if q.client.IsUnspecified() {
		return netip.Addr{}
	}
	return q.client
}

func parse(p []byte) (question, error) {
	if len(p) < headerBytes+len(magic) || p[0] != 1 || p[1] != 1 || p[2] != ethernetBytes || !bytes.Equal(p[headerBytes:headerBytes+4], magic) {
		return question{}, errors.New("no DHCP question over Ethernet")
	}
	q := question{mac: bytes.Clone(p[28 : 28+ethernetBytes]), client: netip.AddrFrom4([4]byte(p[12:16]))}
	for o := p[headerBytes+4:]; len(o) > 0 && o[0] != optEnd; {
		if o[0] == optPad {
			o = o[1:]
			continue
		}
		if len(o) < 2 || len(o) < 2+int(o[1]) {
			return question{}, errors.New("option is cut short")
		}
		v := o[2 : 2+int(o[1])]
		switch {
		case o[0] == optType && len(v) == 1:
			q.kind = v[0]
		case o[0] == optRequested && len(v) == 4:
			q.requested = netip.AddrFrom4([4]byte(v))
		case o[0] == optServer && len(v) == 4:
			q.server = netip.AddrFrom4([4]byte(v))
		}
		o = o[2+len(v):]
	}
	if q.kind == 0 {
		return question{}, errors.New("no message type")
	}
	return q, nil
}
