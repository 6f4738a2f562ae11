package disk

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
)

// magics are the signatures that say "somebody's data", with their offset from the start of a partition.
var magics = []struct {
	offset int64
	magic  string
	kind   string
}{
	{0, "LUKS\xba\xbe", "luks"},
	{4096, "\xfc\x4e\x2b\xa9", "md member"},
	{0, "\xfc\x4e\x2b\xa9", "md member"},
	{512, "LABELONE", "lvm"},
	{1080, "\x53\xef", "ext4"},
	{0, "XFSB", "xfs"},
	{65600, "_BHRfS_M", "btrfs"},
	{4120, "\xc6\x85\x73\xf6\x4e\x1a\x45\xca", "bcache"},
	{0, "bluestore block device", "ceph"},
	{1024, "\x10\x20\xf5\xf2", "f2fs"},
	{3, "EXFAT   ", "exfat"},
	{3, "NTFS    ", "ntfs"},
	{4086, "SWAPSPACE2", "swap"},
	{54, "FAT16   ", "vfat"},
	{82, "FAT32   ", "vfat"},
}

// signature is the kind of what begins at offset, and a LUKS2 header's subsystem.
func signature(r io.ReaderAt, offset int64) (kind, subsystem string) {
	for _, m := range magics {
		have := make([]byte, len(m.magic))
		if _, err := r.ReadAt(have, offset+m.offset); err != nil || string(have) != m.magic {
			continue
		}
		if m.kind == "luks" {
			return luksHeader(r, offset)
		}
		return m.kind, ""
	}
	return "", ""
}

// LUKS2 binary header: version at 6, label at 24 (48 bytes), uuid at 168 (40), subsystem at 208 (48).
func luksHeader(r io.ReaderAt, offset int64) (kind, subsystem string) {
	h := make([]byte, 256)
	if _, err := r.ReadAt(h, offset); err != nil {
		return "luks", ""
	}
	version := binary.BigEndian.Uint16(h[6:])
	if version != 2 {
		return fmt.Sprintf("luks%d", version), ""
	}
	return "luks2", cstring(h[208:256])
}

func cstring(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	for _, c := range b {
		if c < 0x20 || c > 0x7e {
			return ""
		}
	}
	return string(b)
}

// LUKS is what a LUKS2 header says without any key.
type LUKS struct{ Label, UUID, Subsystem string }

// ReadLUKS reads the header of an opened device; false when there is none of version 2.
func ReadLUKS(r io.ReaderAt) (LUKS, bool) {
	h := make([]byte, 256)
	if _, err := r.ReadAt(h, 0); err != nil || !bytes.HasPrefix(h, []byte("LUKS\xba\xbe\x00\x02")) {
		return LUKS{}, false
	}
	return LUKS{Label: cstring(h[24:72]), UUID: cstring(h[168:208]), Subsystem: cstring(h[208:256])}, true
}
