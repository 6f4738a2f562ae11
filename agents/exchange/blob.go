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
}

func (s *session) Emit(e spec.Event) {
	e.ID = s.id
	s.w.send(e)
}

func (s *session) Fetch(ctx context.Context, blobs []spec.Blob, got func(spec.Blob, io.Reader) error) error {
	for _, b := range blobs {
		if err := checkBlob(b); err != nil {
			return err
		}
	}
	s.Emit(spec.Event{Kind: spec.KindNeed, Blobs: blobs, Accept: []string{spec.EncodingZstd}})
	for _, b := range blobs {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.one(b, got); err != nil {
			return err
		}
	}
	return nil
}

// one receives a blob. Whatever got does, exactly the blob's bytes are taken off the stream, so that the next line is
// a line again.
func (s *session) one(b spec.Blob, got func(spec.Blob, io.Reader) error) error {
	h, err := s.r.header(b)
	if err != nil {
		return err
	}
	sum := sha256.New()
	wire := &exactly{r: s.r.b, left: b.SizeBytes}
	var content io.Reader = wire
	if h.Encoding == spec.EncodingZstd {
		wire.left = h.WireBytes
		z, err := zstd.NewReader(wire, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return fmt.Errorf("receive blob %.12s: %w", b.SHA256, err)
		}
		defer z.Close()
		// One byte more than there should be is read and spoils the digest; a bomb unfolds no further.
		content = io.LimitReader(z, b.SizeBytes+1)
	}
	gotErr := got(b, io.TeeReader(content, sum))
	_, contentErr := io.Copy(sum, content)
	if _, err := io.Copy(io.Discard, wire); err != nil {
		return fmt.Errorf("receive blob %.12s: %w", b.SHA256, err)
	}
	if have := hex.EncodeToString(sum.Sum(nil)); contentErr != nil || have != b.SHA256 {
		return &spec.Error{Code: spec.CodeDigest, Message: fmt.Sprintf("blob %.12s arrived with digest %.12s", b.SHA256, have)}
	}
	return gotErr
}

// maxWindow is the largest zstd window that is decoded: the operator's side encodes with 8 MiB at most.
const maxWindow = 8 << 20

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
	if b.SizeBytes < 0 || b.SizeBytes > maxBlobBytes {
		return badSpec(fmt.Sprintf("blob %.12s: %d bytes is out of bounds", b.SHA256, b.SizeBytes))
	}
	return nil
}
