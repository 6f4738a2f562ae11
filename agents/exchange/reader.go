package exchange

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"popfleet/internal/strictjson"
	"popfleet/playbooks/spec"
)

const (
	maxLineBytes   = 24 << 20 // a node spec holds at most 16 MiB of files, in base64
	maxHeaderBytes = 4 << 10
	maxBlobBytes   = 8 << 30
)

// reader takes the operator → agent stream apart: lines of JSON, and blobs between them. The bytes come from outside.
type reader struct{ b *bufio.Reader }

func newReader(in io.Reader) *reader { return &reader{bufio.NewReaderSize(in, 256<<10)} }

// request reads the next request; io.EOF when the stream ended between requests.
func (r *reader) request() (spec.Request, error) {
	var req spec.Request
	line, err := r.line(maxLineBytes)
	if err != nil {
		return req, err
	}
	if err := json.Unmarshal(line, &req); err != nil {
		return req, badSpec(fmt.Sprintf("request line: %v", err))
	}
	if err := strictjson.Decode(line, &spec.Request{}); err != nil {
		return req, badSpec(fmt.Sprintf("request line %v", err))
	}
	if req.V != Version {
		return req, badSpec(fmt.Sprintf("request version %d: this agent speaks %d", req.V, Version))
	}
	return req, nil
}

// header reads the line that precedes a blob's bytes and holds it against what was asked for.
func (r *reader) header(want spec.Blob) (spec.BlobHeader, error) {
	line, err := r.line(maxHeaderBytes)
	if err != nil {
		return spec.BlobHeader{}, fmt.Errorf("wait for blob %.12s: %w", want.SHA256, noEOF(err))
	}
	var h spec.BlobHeader
	if err := strictjson.Decode(line, &h); err != nil {
		return h, badSpec(fmt.Sprintf("blob header %v", err))
	}
	if h.Blob != want.SHA256 || h.SizeBytes != want.SizeBytes {
		return h, badSpec(fmt.Sprintf("blob %.12s of %d bytes was sent, %.12s of %d was asked for", h.Blob, h.SizeBytes, want.SHA256, want.SizeBytes))
	}
	switch h.Encoding {
	case "":
	case spec.EncodingZstd:
		if h.WireBytes < 1 || h.WireBytes > h.SizeBytes || want.Offset > 0 {
			return h, badSpec(fmt.Sprintf("blob %.12s takes %d bytes for %d; expected fewer than it has, and the whole of it", h.Blob, h.WireBytes, h.SizeBytes))
		}
	case spec.EncodingPeer:
		if h.Peer == nil {
			return h, badSpec(fmt.Sprintf("blob %.12s comes from a peer that is not named", h.Blob))
		}
	default:
		return h, badSpec(fmt.Sprintf("blob %.12s comes as %q; expected as it is, %q or %q", h.Blob, h.Encoding, spec.EncodingZstd, spec.EncodingPeer))
	}
	return h, nil
}

// line reads up to limit bytes and a newline, which it drops. Blank lines are skipped.
func (r *reader) line(limit int) ([]byte, error) {
	var line []byte
	for {
		part, err := r.b.ReadSlice('\n')
		if len(line)+len(part) > limit {
			return nil, badSpec(fmt.Sprintf("line longer than %d bytes", limit))
		}
		line = append(line, part...)
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err != nil && (len(line) == 0 || !errors.Is(err, io.EOF)):
			return nil, err
		case err != nil:
			return nil, io.ErrUnexpectedEOF // a line cut in the middle is never acted on
		}
		if line = bytes.TrimSpace(line); len(line) > 0 {
			return line, nil
		}
	}
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
