package exchange

import (
	"context"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"popfleet/agents/share"
	"popfleet/playbooks/spec"
)

// source reads one blob from wherever the operator says: his own stream, or a peer. When a peer fails in the middle of
// the last blob of a need, the rest is asked for from where it stopped, and the reader never knows; in the middle of
// another one, the blob has to be asked for again as a whole.
type source struct {
	s      *session
	ctx    context.Context
	blob   spec.Blob
	rounds int
	last   bool

	content io.Reader     // what is read now
	wire    *exactly      // the operator's bytes under it; nil while a peer is read
	peer    io.ReadCloser // or the peer
	decoder *zstd.Decoder

	from   string // the peer that was read last
	pos    int64  // read so far, from the blob's offset on
	peered bool   // any byte came from a peer
	retry  bool   // a peer failed and the blob must be asked for again
	err    error  // why content ended early
	lost   error  // the operator's stream ended, or is not what it should be
}

// open reads the header that answers for the blob, and prepares for what it promises. A peer that can't be reached is
// no error of open: the first Read finds out.
func (s *source) open() error {
	want := s.blob
	want.Offset += s.pos
	h, err := s.s.r.header(want)
	if err != nil {
		return err
	}
	if h.Encoding == spec.EncodingPeer {
		s.openPeer(want, h)
		return nil
	}
	s.wire = &exactly{r: s.s.r.b, left: want.SizeBytes - want.Offset}
	s.content = s.wire
	if h.Encoding == spec.EncodingZstd {
		s.wire.left = h.WireBytes
		if s.decoder, err = newDecoder(s.wire); err != nil {
			return fmt.Errorf("receive blob %.12s: %w", want.SHA256, err)
		}
		// One byte more than there should be is read and spoils the digest; a bomb unfolds no further.
		s.content = io.LimitReader(s.decoder, want.SizeBytes+1)
	}
	return nil
}

func (s *source) openPeer(want spec.Blob, h spec.BlobHeader) {
	s.peered, s.from, s.wire = true, h.Peer.Node, nil
	peer, err := share.Fetch(s.ctx, *h.Peer, want)
	if err != nil {
		s.content = failing{err}
		return
	}
	s.s.Emit(spec.Event{Kind: spec.KindLog, Text: fmt.Sprintf("%.12s comes from %s", want.SHA256, h.Peer.Node)})
	s.peer, s.content = peer, peer
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func (s *source) Read(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	for {
		n, err := s.content.Read(p)
		s.pos += int64(n)
		if err == nil || n > 0 {
			return n, nil // an error comes again at the next read
		}
		if err == io.EOF { // itself: a peer's failure may wrap one
			return 0, io.EOF
		}
		if s.wire != nil || s.ctx.Err() != nil {
			s.err = err
			return 0, err
		}
		if err := s.goOn(err); err != nil {
			return 0, err
		}
	}
}

// goOn takes the rest from where the operator says next.
func (s *source) goOn(why error) error {
	if !s.last {
		s.err, s.retry = why, true
		return why
	}
	s.close()
	s.rounds++
	rest := s.blob
	rest.Offset += s.pos
	s.s.Emit(spec.Event{Kind: spec.KindLog, Text: fmt.Sprintf("%v; going on from byte %d", why, rest.Offset)})
	s.s.need([]spec.Blob{rest}, s.rounds)
	if err := s.open(); err != nil {
		s.err, s.lost = err, err
		return err
	}
	return nil
}

// drain takes what is left of the operator's bytes off the stream.
func (s *source) drain() error {
	if s.wire == nil {
		return nil
	}
	_, err := io.Copy(io.Discard, s.wire)
	return err
}

func (s *source) close() {
	if s.decoder != nil {
		s.decoder.Close()
		s.decoder = nil
	}
	if s.peer != nil {
		_ = s.peer.Close() // nothing is read from it any more
		s.peer = nil
	}
}
