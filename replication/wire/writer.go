package wire

import (
	"fmt"
	"io"
)

// Writer writes messages to one connection, each by one call of Write, reusing its memory.
type Writer struct {
	out           io.Writer
	codec         *Codec
	plain, packed []byte
}

// NewWriter writes to w. codec may be nil where nothing was negotiated.
func NewWriter(w io.Writer, codec *Codec) *Writer { return &Writer{out: w, codec: codec} }

// Write sends m, compressed as m.Compressor says.
func (w *Writer) Write(m *Message) error {
	w.shrink()
	b, err := AppendMessage(w.plain[:0], m)
	w.plain = b
	if err != nil {
		return err
	}
	if m.Compressor != Uncompressed {
		if w.codec == nil {
			return fmt.Errorf("compressor %s was not negotiated", m.Compressor)
		}
		if b, err = w.codec.compress(w.packed[:0], b, m.Compressor); err != nil {
			return err
		}
		w.packed = b
	}
	_, err = w.out.Write(b)
	return err
}

func (w *Writer) shrink() {
	if cap(w.plain) > keepBytes {
		w.plain = nil
	}
	if cap(w.packed) > keepBytes {
		w.packed = nil
	}
}
