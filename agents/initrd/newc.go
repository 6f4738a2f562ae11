package initrd

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"

	"github.com/klauspost/compress/zstd"
)

const (
	headerBytes = 110
	maxName     = 4096 // PATH_MAX
	trailer     = "TRAILER!!!"
)

// source counts what was read, since entries are padded by their place in the stream.
type source struct {
	r *bufio.Reader
	n int64
}

func newSource(r io.Reader) *source { return &source{r: bufio.NewReaderSize(r, 64<<10)} }

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.n += int64(n)
	return n, err
}

// segments reads archives until the end. A compressed one may hold several in turn, but not a compressed one again.
func (t *Tree) segments(s *source, depth int) error {
	for {
		if err := s.skipZeros(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		head, err := s.r.Peek(4)
		if err != nil {
			return fmt.Errorf("%d stray bytes at its end", len(head))
		}
		switch {
		case bytes.Equal(head, []byte("0707")):
			err = t.archive(s)
		case depth > 0:
			err = errors.New("compressed within a compressed archive")
		case bytes.Equal(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
			err = t.zstd(s)
		case head[0] == 0x1f && head[1] == 0x8b:
			err = t.gzip(s)
		default:
			err = fmt.Errorf("begins with % x, which is neither an archive nor zstd nor gzip", head)
		}
		if err != nil {
			return err
		}
	}
}

func (s *source) skipZeros() error {
	for {
		b, err := s.r.ReadByte()
		if err != nil {
			return err
		}
		if b != 0 {
			return s.r.UnreadByte()
		}
		s.n++
	}
}

// zstd takes everything to the end of the file: the format has no way to tell a further frame from what follows.
func (t *Tree) zstd(s *source) error {
	z, err := zstd.NewReader(s, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(128<<20))
	if err != nil {
		return err
	}
	defer z.Close()
	return unpackError("zstd", t.segments(newSource(z), 1))
}

func (t *Tree) gzip(s *source) error {
	z, err := gzip.NewReader(s)
	if err != nil {
		return unpackError("gzip", err)
	}
	return unpackError("gzip", t.segments(newSource(z), 1))
}

func unpackError(what string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// header is the part of an entry's 13 hexadecimal fields that matters here.
type header struct {
	ino, mode, nlink, size, major, minor, namesize uint64
}

// archive reads entries up to and with the trailer.
func (t *Tree) archive(s *source) error {
	// Of files with several names only the last carries the content.
	links := map[[3]uint64][]string{}
	for {
		h, err := s.header()
		if err != nil {
			return err
		}
		name, err := s.name(h)
		if err != nil {
			return err
		}
		if name == trailer {
			return nil
		}
		id := [3]uint64{h.ino, h.major, h.minor}
		e, err := t.entry(s, h, append(links[id], name))
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if e.Mode.IsRegular() && h.nlink > 1 {
			links[id] = append(links[id], name)
			if e.Size == 0 {
				continue
			}
			for _, n := range links[id] {
				if err := t.put(n, e); err != nil {
					return err
				}
			}
			continue
		}
		if err := t.put(name, e); err != nil {
			return err
		}
	}
}

func (s *source) header() (h header, err error) {
	var raw [headerBytes]byte
	if _, err := io.ReadFull(s, raw[:]); err != nil {
		return h, cut(err)
	}
	if m := string(raw[:6]); m != "070701" && m != "070702" {
		return h, fmt.Errorf("entry with magic %q", m)
	}
	for at, into := range map[int]*uint64{0: &h.ino, 1: &h.mode, 4: &h.nlink, 6: &h.size, 7: &h.major, 8: &h.minor, 11: &h.namesize} {
		*into, err = strconv.ParseUint(string(raw[6+8*at:14+8*at]), 16, 32)
		if err != nil {
			return h, fmt.Errorf("entry with a broken header: %w", err)
		}
	}
	if h.namesize < 1 || h.namesize > maxName {
		return h, fmt.Errorf("entry with a name of %d bytes", h.namesize)
	}
	return h, nil
}

func (s *source) name(h header) (string, error) {
	b := make([]byte, h.namesize)
	if _, err := io.ReadFull(s, b); err != nil {
		return "", cut(err)
	}
	if err := s.pad(); err != nil {
		return "", err
	}
	if b = bytes.TrimRight(b, "\x00"); bytes.IndexByte(b, 0) >= 0 {
		return "", fmt.Errorf("entry with a broken name %q", b)
	}
	return string(b), nil
}

// entry reads what follows a header; its content is kept when any of its names is wanted.
func (t *Tree) entry(s *source, h header, names []string) (Entry, error) {
	e := Entry{Mode: fileMode(h.mode), Size: int64(h.size)}
	link := e.Mode&fs.ModeSymlink != 0
	if link && e.Size > maxName {
		return e, fmt.Errorf("link target of %d bytes", e.Size)
	}
	keep := link || (e.Mode.IsRegular() && slices.ContainsFunc(names, t.wants))
	if err := t.charge(e.Size, keep); err != nil {
		return e, err
	}
	if !keep {
		if _, err := io.CopyN(io.Discard, s, e.Size); err != nil {
			return e, cut(err)
		}
		return e, s.pad()
	}
	var content bytes.Buffer // grows with what is really there, not with what the header says
	if _, err := io.CopyN(&content, s, e.Size); err != nil {
		return e, cut(err)
	}
	if link {
		e.Link = content.String()
	} else {
		e.Data = content.Bytes()
	}
	return e, s.pad()
}

func (s *source) pad() error {
	var b [3]byte
	_, err := io.ReadFull(s, b[:-s.n&3])
	return cut(err)
}

func cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("cut off: %w", io.ErrUnexpectedEOF)
	}
	return err
}

// fileMode translates the mode of inode(7).
func fileMode(mode uint64) fs.FileMode {
	m := fs.FileMode(mode & 0o777)
	switch mode & 0o170000 {
	case 0o100000:
		return m
	case 0o040000:
		return m | fs.ModeDir
	case 0o120000:
		return m | fs.ModeSymlink
	}
	return m | fs.ModeIrregular
}
