package stream

import (
	"encoding/binary"
	"fmt"

	"github.com/klauspost/compress/zstd"

	"popfleet/replication/oplog"
)

const (
	flagZstd = 1
	// minPacked is what a batch must have to be worth compressing.
	minPacked = 512
	// batchCost is what a batch costs of the credit beside its bytes, so that many small ones are bounded too.
	batchCost = 256
)

// packer makes and opens batches of one connection. Its memory is bounded: a window of 256 KiB, and what is in work.
type packer struct {
	version byte
	enc     *zstd.Encoder
	dec     *zstd.Decoder
	raw     []byte // reused by pack
}

func newPacker(version byte) (*packer, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(256<<10), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, err
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxRaw), zstd.WithDecoderMaxWindow(8<<20))
	if err != nil {
		return nil, err
	}
	return &packer{version: version, enc: enc, dec: dec}, nil
}

func (p *packer) close() {
	_ = p.enc.Close() // nothing is buffered: batches are whole
	p.dec.Close()
}

// pack encodes entries, and tells what the batch costs.
func (p *packer) pack(entries []oplog.Entry) (payload []byte, cost int64, err error) {
	raw := p.raw[:0]
	var one []byte
	for i := range entries {
		if one, err = oplog.AppendEntry(one[:0], &entries[i]); err != nil {
			return nil, 0, err
		}
		raw = appendText(raw, one)
	}
	if p.raw = raw; cap(raw) > 4<<20 {
		p.raw = nil
	}
	flags := byte(0)
	if p.version >= 2 && len(raw) >= minPacked {
		flags = flagZstd
	}
	payload = binary.AppendUvarint([]byte{flags}, uint64(len(raw)))
	if flags == flagZstd {
		return p.enc.EncodeAll(raw, payload), int64(len(raw)) + batchCost, nil
	}
	return append(payload, raw...), int64(len(raw)) + batchCost, nil
}

// unpack is pack's inverse. The entries point into one buffer.
func (p *packer) unpack(payload []byte) (entries []oplog.Entry, cost int64, err error) {
	f := fields{b: payload}
	flags, size := f.byte(), f.uvarint()
	if f.err != nil || flags&^flagZstd != 0 || size > maxRaw {
		return nil, 0, fmt.Errorf("%w: batch with flags %02x of %d bytes", ErrFrame, flags, size)
	}
	raw := f.b
	if flags == flagZstd {
		if raw, err = p.dec.DecodeAll(raw, nil); err != nil {
			return nil, 0, fmt.Errorf("%w: batch: %w", ErrFrame, err)
		}
	}
	if uint64(len(raw)) != size {
		return nil, 0, fmt.Errorf("%w: batch of %d bytes, announced as %d", ErrFrame, len(raw), size)
	}
	f = fields{b: raw}
	for len(f.b) > 0 {
		e, err := oplog.ParseEntry(f.bytes(oplog.MaxEntry))
		if f.err != nil || err != nil {
			return nil, 0, fmt.Errorf("%w: batch: %w", ErrFrame, orElse(f.err, err))
		}
		entries = append(entries, e)
	}
	return entries, int64(len(raw)) + batchCost, nil
}

func orElse(a, b error) error {
	if a != nil {
		return a
	}
	return b
}
