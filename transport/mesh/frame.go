package mesh

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"

	"popfleet/dns/feed"
)

// Bounds of the wire; docs/formats/mesh.md draws it.
const (
	protocol      = "popfleet-mesh/1" // ALPN
	maxFrameBytes = 64 << 10
	headerBytes   = 5
	frameBeat     = 1
)

var errFrame = errors.New("bad frame")

// Beat is a heartbeat: all a node says of itself, every second and at once when its state changes.
type Beat struct {
	Node      string       `json:"node"`
	PoP       string       `json:"pop"`
	Addresses []netip.Addr `json:"addresses"`
	Place     Place        `json:"place"`
	State     string       `json:"state"` // as in dns/feed, never dead
	AppOK     bool         `json:"app_ok"`
	Load      Load         `json:"load"`
	Version   string       `json:"version"`

	Epoch  uint64 `json:"epoch"`   // of the sender's process, unlike that of the process before
	Seq    uint64 `json:"seq"`     // grows with every beat of the process, on whichever stream
	SentUS uint64 `json:"sent_us"` // on the sender's own clock, microseconds since it began
	Echo   *Echo  `json:"echo,omitempty"`
}

// Place is where a node is, in degrees.
type Place struct {
	Lat float64 `json:"lat"`
	Lon float64 `json:"lon"`
}

// Load is how busy a node is.
type Load struct {
	Requests    int64 `json:"requests"`
	Streams     int64 `json:"streams"`
	Connections int64 `json:"connections"`
}

// Echo gives the last beat of this stream back: its SentUS, and for how long it was held here.
type Echo struct {
	SentUS uint64 `json:"sent_us"`
	HeldUS uint64 `json:"held_us"`
}

// writeFrame sends one frame in one write.
func writeFrame(w io.Writer, kind byte, payload []byte) error {
	if len(payload)+1 > maxFrameBytes {
		return fmt.Errorf("%w: %d bytes are more than %d", errFrame, len(payload)+1, maxFrameBytes)
	}
	b := make([]byte, headerBytes, headerBytes+len(payload))
	binary.BigEndian.PutUint32(b, uint32(len(payload)+1))
	b[4] = kind
	_, err := w.Write(append(b, payload...))
	return err
}

// readFrame reads one frame. buf is reused when it is large enough.
func readFrame(r io.Reader, buf []byte) (kind byte, payload []byte, err error) {
	var h [headerBytes]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(h[:4])
	if n < 1 || n > maxFrameBytes {
		return 0, nil, fmt.Errorf("%w: length %d", errFrame, n)
	}
	n--
	if uint32(cap(buf)) < n {
		buf = make([]byte, n)
	}
	payload = buf[:n]
	if _, err := io.ReadFull(r, payload); err != nil {
		return 0, nil, fmt.Errorf("%w: cut off: %w", errFrame, err)
	}
	return h[4], payload, nil
}

// decodeBeat reads a heartbeat. Unknown keys are ignored, so a newer release may say more; what is known must make
// sense, because it ends up in DNS answers.
func decodeBeat(payload []byte) (Beat, error) {
	var b Beat
	if err := json.Unmarshal(payload, &b); err != nil {
		return Beat{}, fmt.Errorf("%w: heartbeat: %w", errFrame, err)
	}
	if b.State == feed.Dead {
		return Beat{}, fmt.Errorf("%w: heartbeat of a dead node", errFrame)
	}
	m := feed.Map{V: 1, From: b.Node, Nodes: []feed.Node{b.feedNode()}}
	if err := m.Check(); err != nil {
		return Beat{}, fmt.Errorf("%w: heartbeat: %w", errFrame, err)
	}
	return b, nil
}

func (b Beat) feedNode() feed.Node {
	return feed.Node{Name: b.Node, PoP: b.PoP, State: b.State, Addresses: b.Addresses, Lat: b.Place.Lat, Lon: b.Place.Lon}
}
