package disk

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// LUKS2 is a header with both its copies looked at. Layout: "LUKS2 On-Disk Format Specification" §2.1.
type LUKS2 struct {
	LUKS
	Seq uint64
	// Sum is the checksum of the newest whole copy: two devices with one header have one sum.
	Sum [sha256.Size]byte
	// Damaged says what is wrong with a copy; cryptsetup would repair it from the other. Empty: both are whole and alike.
	Damaged string
}

const (
	luksBinary  = 4096
	maxLUKSArea = 4 << 20 // of one copy: the largest size the specification knows
	luksSumAt   = 448
)

// ReadLUKS2 reads and verifies the header at the beginning of r. It fails when neither copy is whole.
func ReadLUKS2(r io.ReaderAt) (LUKS2, error) {
	first, size, err1 := luksCopy(r, 0, "LUKS\xba\xbe")
	if err1 != nil {
		return secondCopy(r, err1)
	}
	second, _, err2 := luksCopy(r, size, "SKUL\xba\xbe")
	switch {
	case err2 != nil:
		first.Damaged = "second copy: " + err2.Error()
	case second.Seq != first.Seq || second.UUID != first.UUID:
		first.Damaged = fmt.Sprintf("the copies differ: %s with sequence %d, %s with sequence %d", first.UUID, first.Seq, second.UUID, second.Seq)
	}
	return first, nil
}

// secondCopy looks where a second copy can lie, as cryptsetup does when the first is lost.
func secondCopy(r io.ReaderAt, first error) (LUKS2, error) {
	for at := int64(0x4000); at <= maxLUKSArea; at *= 2 {
		if h, _, err := luksCopy(r, at, "SKUL\xba\xbe"); err == nil {
			h.Damaged = "first copy: " + first.Error()
			return h, nil
		}
	}
	return LUKS2{}, first
}

func luksCopy(r io.ReaderAt, at int64, magic string) (h LUKS2, size int64, err error) {
	head := make([]byte, luksBinary)
	if _, err := r.ReadAt(head, at); err != nil {
		return h, 0, fmt.Errorf("read LUKS2 header: %w", err)
	}
	if !bytes.HasPrefix(head, []byte(magic+"\x00\x02")) {
		return h, 0, errors.New("no LUKS2 header")
	}
	area := binary.BigEndian.Uint64(head[8:])
	if area < 2*luksBinary || area > maxLUKSArea || area%luksBinary != 0 || binary.BigEndian.Uint64(head[256:]) != uint64(at) {
		return h, 0, errors.New("a LUKS2 header of impossible size or place")
	}
	all := make([]byte, area)
	if _, err := r.ReadAt(all, at); err != nil {
		return h, 0, fmt.Errorf("read LUKS2 header: %w", err)
	}
	if cstring(head[72:104]) != "sha256" {
		return h, 0, fmt.Errorf("checksum %q is not known", cstring(head[72:104]))
	}
	clear(all[luksSumAt : luksSumAt+64])
	h.Sum = sha256.Sum256(all)
	if !bytes.Equal(h.Sum[:], head[luksSumAt:luksSumAt+sha256.Size]) {
		return h, 0, errors.New("its checksum is wrong")
	}
	h.LUKS = LUKS{Label: cstring(head[24:72]), UUID: cstring(head[168:208]), Subsystem: cstring(head[208:256])}
	h.Seq = binary.BigEndian.Uint64(head[16:])
	return h, int64(area), nil
}
