package exchange

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"popfleet/playbooks/spec"
)

// session is one request's view of the connection.
type session struct {
	id int
	r  *reader
	w  *writer
	// liars: digests that a peer answered with other content in this request; the operator sends them itself.
	liars map[string]bool
}

func (s *session) Emit(e spec.Event) {
	e.ID = s.id
	s.w.send(e)
}

// maxRounds is how often a fetch that peers fail is asked for with peers; the round after that is the operator's own.
const maxRounds = 8

func (s *session) Fetch(ctx context.Context, blobs []spec.Blob, got func(spec.Blob, io.Reader) error) error {
	for _, b := range blobs {
		if err := checkBlob(b); err != nil {
			return err
		}
	}
	for round := 1; len(blobs) > 0; round++ {
		again, err := s.round(ctx, blobs, round, got)
		if err != nil {
			return err
		}
		blobs = again
	}
	return nil
}

// round asks for blobs once, and returns those that peers failed to deliver. They are asked for again only after all of
// them: the operator's other answers are on their way already.
func (s *session) round(ctx context.Context, blobs []spec.Blob, round int, got func(spec.Blob, io.Reader) error) (again []spec.Blob, err error) {
	s.need(blobs, round)
	for i, b := range blobs {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		src := &source{s: s, ctx: ctx, blob: b, rounds: round, last: i == len(blobs)-1}
		err := s.one(src, got)
		src.close()
		if src.retry {
			s.Emit(spec.Event{Kind: spec.KindLog, Text: fmt.Sprintf("%v; asking the operator", err)})
			again = append(again, b)
			continue
		}
		if err != nil {
			return nil, err
		}
	}
	return again, nil
}

func (s *session) need(blobs []spec.Blob, round int) {
	accept := []string{spec.EncodingZstd}
	if round <= maxRounds {
		accept = append(accept, spec.EncodingPeer)
	}
	asked := make([]spec.Blob, len(blobs))
	for i, b := range blobs {
		b.Direct = b.Direct || s.liars[b.SHA256]
		asked[i] = b
	}
	s.Emit(spec.Event{Kind: spec.KindNeed, Blobs: asked, Accept: accept})
}

// one receives a blob. Whatever got does, exactly the blob's bytes are taken off the operator's stream, so that the next
// line is a line again.
func (s *session) one(src *source, got func(spec.Blob, io.Reader) error) error {
	b := src.blob
	if err := src.open(); err != nil {
		return err
	}
	sum := sha256.New()
	count := &counter{r: io.TeeReader(src, sum)}
	gotErr := got(b, count)
	if gotErr == nil || !src.peered {
		_, _ = io.Copy(io.Discard, count) // its error stays in src
	}
	if src.lost != nil {
		return src.lost
	}
	if err := src.drain(); err != nil {
		return fmt.Errorf("receive blob %.12s: %w", b.SHA256, err)
	}
	if src.retry {
		return fmt.Errorf("blob %.12s: %w", b.SHA256, src.err)
	}
	whole := count.n == b.SizeBytes-b.Offset
	have := hex.EncodeToString(sum.Sum(nil))
	switch {
	case src.peered && whole && have != b.SHA256:
		return s.lied(src, have, gotErr)
	case src.peered && gotErr != nil:
		return gotErr
	case b.Offset == 0 && (src.err != nil || have != b.SHA256):
		return wrongDigest(b, have)
	}
	return gotErr
}

// lied: a peer passed on what is not the blob. When got refused it, nothing came of it and the blob is asked for again;
// when got took it, its caller has to know.
func (s *session) lied(src *source, have string, gotErr error) error {
	if s.liars == nil {
		s.liars = map[string]bool{}
	}
	s.liars[src.blob.SHA256] = true
	src.retry = gotErr != nil
	return fmt.Errorf("passed on by %s: %w", src.from, wrongDigest(src.blob, have))
}

func wrongDigest(b spec.Blob, have string) *spec.Error {
	return &spec.Error{Code: spec.CodeDigest, Message: fmt.Sprintf("blob %.12s arrived with digest %.12s", b.SHA256, have)}
}

// counter counts what is read.
type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// maxWindow is the largest zstd window that is decoded: the operator's side encodes with 8 MiB at most.
const maxWindow = 8 << 20

func newDecoder(r io.Reader) (*zstd.Decoder, error) {
	return zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
}

// exactly reads left bytes; an earlier end of the stream is an error, never a short blob.
type exactly struct {
	r    io.Reader
	left int64
}

func (e *exactly) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > e.left {
		p = p[:e.left]
	}
	n, err := e.r.Read(p)
	e.left -= int64(n)
	if err != nil && e.left > 0 {
		return n, noEOF(err)
	}
	return n, nil
}

func checkBlob(b spec.Blob) error {
	if raw, err := hex.DecodeString(b.SHA256); err != nil || len(raw) != sha256.Size {
		return badSpec(fmt.Sprintf("blob digest %q is not a sha256", b.SHA256))
	}
	if b.SizeBytes < 0 || b.SizeBytes > maxBlobBytes || b.Offset < 0 || b.Offset > b.SizeBytes {
		return badSpec(fmt.Sprintf("blob %.12s: %d bytes from %d is out of bounds", b.SHA256, b.SizeBytes, b.Offset))
	}
	return nil
}
