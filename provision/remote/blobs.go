package remote

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"

	"popfleet/playbooks/spec"
)

// Blobs finds content by its digest. Open may be called from another goroutine than Do's, one call at a time.
type Blobs interface {
	Open(sha256 string) (io.ReadCloser, int64, error)
}

// feeder answers needs, one after the other, beside the reader of events.
type feeder struct {
	ctx    context.Context
	cancel context.CancelFunc
	x      *Exchange
	blobs  Blobs
	run    sync.WaitGroup

	mu  sync.Mutex
	err error
}

func newFeeder(ctx context.Context, x *Exchange, b Blobs) *feeder {
	ctx, cancel := context.WithCancel(ctx)
	return &feeder{ctx: ctx, cancel: cancel, x: x, blobs: b}
}

// start sends what is needed once the need before it is served.
func (f *feeder) start(need []spec.Blob, accept []string) error {
	if f.blobs == nil {
		return fmt.Errorf("the machine asks for %d blobs that this request has none of", len(need))
	}
	f.run.Wait()
	if err := f.failure(); err != nil {
		return err
	}
	f.run.Go(func() {
		if err := f.send(need, slices.Contains(accept, spec.EncodingZstd)); err != nil {
			f.mu.Lock()
			f.err = err
			f.mu.Unlock()
			// Half a blob may have been sent: nothing sensible can follow it on this stream.
			f.x.Close()
		}
	})
	return nil
}

func (f *feeder) send(need []spec.Blob, pack bool) error {
	for _, b := range need {
		if err := f.sendOne(b, pack); err != nil {
			return fmt.Errorf("send blob %.12s: %w", b.SHA256, err)
		}
	}
	return nil
}

func (f *feeder) sendOne(b spec.Blob, pack bool) error {
	r, size, err := f.blobs.Open(b.SHA256)
	if err != nil {
		return err
	}
	defer r.Close()
	header := spec.BlobHeader{Blob: b.SHA256, SizeBytes: size}
	var body io.Reader = r
	if pack && size <= maxPacked {
		if body, err = packed(r, &header); err != nil {
			return err
		}
	}
	line, err := json.Marshal(header)
	if err != nil {
		return err
	}
	if _, err := f.x.in.Write(append(line, '\n')); err != nil {
		return err
	}
	wire := size
	if header.Encoding != "" {
		wire = header.WireBytes
	}
	return copyExactly(f.ctx, f.x.in, body, wire, func(int64) {})
}

// maxPacked bounds what is compressed in memory. Binaries shrink to a third; what is larger is an image, which is
// compressed already.
const maxPacked = 64 << 20

// packed compresses r and notes it in the header, or leaves both as they are when that gains nothing.
func packed(r io.Reader, h *spec.BlobHeader) (io.Reader, error) {
	content, err := io.ReadAll(io.LimitReader(r, h.SizeBytes+1))
	if err != nil {
		return nil, err
	}
	z, err := zstd.NewWriter(nil, zstd.WithWindowSize(8<<20), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	if small := z.EncodeAll(content, nil); len(small) < len(content)*9/10 && int64(len(content)) == h.SizeBytes {
		h.Encoding, h.WireBytes = spec.EncodingZstd, int64(len(small))
		return bytes.NewReader(small), nil
	}
	return bytes.NewReader(content), nil
}

func (f *feeder) failure() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

func (f *feeder) stop() { f.cancel() }

// patience is how long the last write of a feeder may take to return once its request has ended.
const patience = 5 * time.Second

// wait ends the feeder. A request that ended while a blob was under way has broken the stream's framing, and the agent
// may have stopped reading: then the exchange is closed to free the write.
func (f *feeder) wait() {
	f.cancel()
	t := time.AfterFunc(patience, func() { f.x.Close() })
	defer t.Stop()
	f.run.Wait()
}

// copyExactly copies size bytes, no more and no fewer, telling how many have gone after each piece.
func copyExactly(ctx context.Context, w io.Writer, r io.Reader, size int64, tell func(done int64)) error {
	buf := make([]byte, 256<<10)
	for done := int64(0); done < size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := io.ReadFull(r, buf[:min(int64(len(buf)), size-done)])
		if err != nil {
			return fmt.Errorf("after %d of %d bytes: %w", done, size, err)
		}
		if _, err := w.Write(buf[:n]); err != nil {
			return err
		}
		done += int64(n)
		tell(done)
	}
	return nil
}
