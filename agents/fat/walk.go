package fat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

const (
	attrVolume = 0x08
	attrDir    = 0x10
	attrLong   = 0x0f
	deleted    = 0xe5
)

type walk struct {
	fs    *FS
	files []File
	dirs  int
}

// dir reads one directory: entries of 32 bytes; a long name comes in pieces, last piece first, before its entry.
func (w *walk) dir(path string, r io.Reader, depth int) error {
	if w.dirs++; depth > maxDepth || w.dirs > maxFiles {
		return errors.New("more directories than an EFI system partition has")
	}
	raw, err := io.ReadAll(io.LimitReader(r, maxDirBytes))
	if err != nil {
		return fmt.Errorf("directory /%s: %w", path, err)
	}
	var long []uint16
	for ; len(raw) >= 32 && raw[0] != 0; raw = raw[32:] {
		e := raw[:32]
		switch {
		case e[0] == deleted:
			long = nil
			continue
		case e[11]&0x3f == attrLong:
			long = append(piece(e), long...)
			if len(long) > 260 {
				return fmt.Errorf("directory /%s: a name that is too long", path)
			}
			continue
		}
		name := shortName(e)
		if len(long) > 0 {
			name = utf16String(long)
		}
		long = nil
		if e[11]&attrVolume != 0 || name == "." || name == ".." {
			continue
		}
		if err := w.entry(join(path, name), e, depth); err != nil {
			return err
		}
	}
	return nil
}

func (w *walk) entry(path string, e []byte, depth int) error {
	first := uint32(binary.LittleEndian.Uint16(e[26:]))
	if w.fs.wide {
		first |= uint32(binary.LittleEndian.Uint16(e[20:])) << 16
	}
	if e[11]&attrDir != 0 {
		return w.dir(path, w.fs.chain(first), depth+1)
	}
	size := int64(binary.LittleEndian.Uint32(e[28:]))
	if size > maxFile || len(w.files) >= maxFiles {
		return fmt.Errorf("/%s: more than an EFI system partition holds", path)
	}
	w.files = append(w.files, File{Path: path, Size: size, fs: w.fs, first: first})
	return nil
}

func piece(e []byte) []uint16 {
	var units []uint16
	for _, part := range [][]byte{e[1:11], e[14:26], e[28:32]} {
		for i := 0; i < len(part); i += 2 {
			units = append(units, binary.LittleEndian.Uint16(part[i:]))
		}
	}
	return units
}

// shortName is the 8.3 name; two bits say that a part of it is meant in lower case (kernel: fs/fat/dir.c).
func shortName(e []byte) string {
	base, ext := strings.TrimRight(string(e[:8]), " "), strings.TrimRight(string(e[8:11]), " ")
	if e[12]&0x08 != 0 {
		base = strings.ToLower(base)
	}
	if e[12]&0x10 != 0 {
		ext = strings.ToLower(ext)
	}
	if ext == "" {
		return base
	}
	return base + "." + ext
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}
