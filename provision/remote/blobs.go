package remote

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"popfleet/playbooks/spec"
)

// Blobs finds content by its digest. Open may be called from another goroutine than Do's, one call at a time.
type Blobs interface {
	Open(sha256 string) (io.ReadCloser, int64, error)
}

// Peers knows who is nearer to the machine than we are. Its methods are called from the goroutine that feeds the
// machine, one at a time.
type Peers interface {
	// Peer names a machine that passes b on, and may wait for one, within bounds of its own and ctx. Nil: b begins to go
	// over this link now. A blob that was answered with a peer and is asked for again was not delivered; with b.Direct
	// the peer sent something else.
	Peer(ctx context.Context, b spec.Blob) *spec.Peer
	// Sending tells that b begins to go over this link to a machine that takes nothing from peers.
	Sending(b spec.Blob)
}

// feeder answers needs, one after the other, beside the reader of events.
type feeder struct {
	ctx    context.Context
	cancel context.CancelFunc
	x      *Exchange
	blobs  Blobs
	peers  Peers  // may be nil
	packs  *Packs // may be nil
	run    sync.WaitGroup

	mu  sync.Mutex
	err error
}

func newFeeder(ctx context.Context, x *Exchange, c Call) *feeder {
	ctx, cancel := context.WithCancel(ctx)
	return &feeder{ctx: ctx, cancel: cancel, x: x, blobs: c.Blobs, peers: c.Peers, packs: c.Packs}
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
		if err := f.send(need, accept); err != nil {
			f.mu.Lock()
			f.err = err
			f.mu.Unlock()
			// Half a blob may have been sent: nothing sensible can follow it on this stream.
			f.x.Close()
		}
	})
	return nil
}

func (f *feeder) send(need []spec.Blob, accept []string) error {
	for _, b := range need {
		if err := f.sendOne(b, accept); err != nil {
			return fmt.Errorf("send blob %.12s: %w", b.SHA256, err)
		}
	}
	return nil
}

func (f *feeder) sendOne(b spec.Blob, accept []string) error {
	switch {
	case f.peers == nil:
	case !slices.Contains(accept, spec.EncodingPeer):
		f.peers.Sending(b)
	default:
		if p := f.peers.Peer(f.ctx, b); p != nil {
			return f.header(spec.BlobHeader{Blob: b.SHA256, SizeBytes: b.SizeBytes, Encoding: spec.EncodingPeer, Peer: p})
		}
	}
	return f.sendSelf(b, slices.Contains(accept, spec.EncodingZstd))
}

// sendSelf streams the blob over this link, packed where that is smaller.
func (f *feeder) sendSelf(b spec.Blob, pack bool) error {
	size, err := f.sizeOf(b)
	if err != nil {
		return err
	}
	if b.Offset > size {
		return fmt.Errorf("it was asked for from byte %d of %d", b.Offset, size)
	}
	if pack && b.Offset == 0 && size <= maxPacked {
		small, err := f.packs.packed(b.SHA256, f.blobs)
		if err != nil {
			return err
		}
		if small != nil {
			h := spec.BlobHeader{Blob: b.SHA256, SizeBytes: size, Encoding: spec.EncodingZstd, WireBytes: small.Size()}
			return f.stream(h, small, small.Size())
		}
	}
	r, _, err := f.blobs.Open(b.SHA256)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := skip(r, b.Offset); err != nil {
		return err
	}
	return f.stream(spec.BlobHeader{Blob: b.SHA256, SizeBytes: size}, r, size-b.Offset)
}

func (f *feeder) sizeOf(b spec.Blob) (int64, error) {
	r, size, err := f.blobs.Open(b.SHA256)
	if err != nil {
		return 0, err
	}
	return size, r.Close()
}

func (f *feeder) stream(h spec.BlobHeader, r io.Reader, wire int64) error {
	if err := f.header(h); err != nil {
		return err
	}
	return copyExactly(f.ctx, f.x.in, r, wire, func(int64) {})
}

func (f *feeder) header(h spec.BlobHeader) error {
	line, err := json.Marshal(h)
	if err != nil {
		return err
	}
	_, err = f.x.in.Write(append(line, '\n'))
	return err
}

// skip leaves out what the machine has.
func skip(r io.Reader, n int64) error {
	if n == 0 {
		return nil
	}
	if s, ok := r.(io.Seeker); ok {
		_, err := s.Seek(n, io.SeekStart)
		return err
	}
	_, err := io.CopyN(io.Discard, r, n)
	return err
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
	buf := make([]byte, 32<<10) // an SSH packet carries no more
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
