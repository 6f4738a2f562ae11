package remote

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// maxPacked bounds what is worth compressing. Binaries shrink to a third; what is larger is an image, which is
// compressed already.
const maxPacked = 64 << 20

// Packs compresses content once for all machines it is sent to, one blob at a time, into files that have no name: two
// hundred machines that are sent the same release cost the memory of one encoder. The zero value is ready; Close gives
// the disk space back.
type Packs struct {
	mu   sync.Mutex
	done map[string]*os.File // nil file: not worth it
	size map[string]int64
}

// packed is the content with this digest, compressed; nil when that gains less than a tenth. Each call returns a reader
// of its own.
func (p *Packs) packed(digest string, blobs Blobs) (*io.SectionReader, error) {
	if p == nil {
		return nil, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	f, ok := p.done[digest]
	if !ok {
		var size int64
		var err error
		if f, size, err = pack(digest, blobs); err != nil {
			return nil, err
		}
		if p.done == nil {
			p.done, p.size = map[string]*os.File{}, map[string]int64{}
		}
		p.done[digest], p.size[digest] = f, size
	}
	if f == nil {
		return nil, nil
	}
	return io.NewSectionReader(f, 0, p.size[digest]), nil
}

func pack(digest string, blobs Blobs) (*os.File, int64, error) {
	r, size, err := blobs.Open(digest)
	if err != nil {
		return nil, 0, err
	}
	defer r.Close()
	f, err := os.CreateTemp("", "fleet-pack-*")
	if err != nil {
		return nil, 0, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	n, err := encode(f, r)
	if err == nil && n != size {
		err = fmt.Errorf("it has %d bytes, %d were announced", n, size)
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	small, err := f.Seek(0, io.SeekCurrent)
	if err != nil || small >= size*9/10 {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, small, nil
}

func encode(w io.Writer, r io.Reader) (int64, error) {
	z, err := zstd.NewWriter(w, zstd.WithWindowSize(4<<20), zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(z, r)
	return n, errors.Join(err, z.Close())
}

// Close gives up what was compressed. Readers given out before must not be read after.
func (p *Packs) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.done {
		if f != nil {
			_ = f.Close() // it has no name: nothing is left of it
		}
	}
	p.done, p.size = nil, nil
}
