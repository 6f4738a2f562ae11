package disk

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"testing"
	"unicode/utf16"
)

// image is a disk of 128 MiB that is zero where nothing was written.
type image map[int64][]byte

const imageBytes = 128 << 20

func (m image) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	if off >= imageBytes {
		return 0, io.EOF
	}
	for at, data := range m {
		for i, b := range data {
			if k := at + int64(i) - off; k >= 0 && k < int64(len(p)) {
				p[k] = b
			}
		}
	}
	return len(p), nil
}

func (m image) partition(number int, startMB int64, name string) {
	m[512] = append([]byte("EFI PART"), make([]byte, 84)...)
	binary.LittleEndian.PutUint64(m[512][72:], 2)
	binary.LittleEndian.PutUint32(m[512][80:], 128)
	binary.LittleEndian.PutUint32(m[512][84:], 128)
	e := make([]byte, 128)
	e[0] = 1
	binary.LittleEndian.PutUint64(e[32:], uint64(startMB<<20/512))
	for i, u := range utf16.Encode([]rune(name)) {
		binary.LittleEndian.PutUint16(e[56+2*i:], u)
	}
	m[1024+int64(number-1)*128] = e
}

func luksHead(subsystem string) []byte {
	h := make([]byte, 256)
	copy(h, "LUKS\xba\xbe\x00\x02")
	copy(h[24:], "fleet-luks")
	copy(h[168:], "2b3c33b7-3103-4e7c-957b-85c1c3f7dcf4")
	copy(h[208:], subsystem)
	return h
}

// TestBootable: what firmware could start from, whatever is said of it.
func TestBootable(t *testing.T) {
	esp := "\x28\x73\x2a\xc1\x1f\xf8\xd2\x11\xba\x4b\x00\xa0\xc9\x3e\xc9\x3b"
	typed := func(kind string) func(image) {
		return func(m image) { m.partition(1, 1, "x"); copy(m[1024], kind) }
	}
	for name, c := range map[string]struct {
		build func(image)
		want  bool
	}{
		"empty":          {func(image) {}, false},
		"data, gpt":      {typed("\xaf\x3d\xc6\x0f\x83\x84\x72\x47"), false},
		"data, whole":    {func(m image) { m[1080] = []byte{0x53, 0xef} }, false},
		"data, mbr":      {func(m image) { m[446] = []byte{0, 0, 0, 0, 0x83}; m[510] = []byte{0x55, 0xaa} }, false},
		"esp":            {typed(esp), true},
		"bios boot":      {typed("Hah!IdontNeedEFI"), true},
		"boot code, mbr": {func(m image) { m[0] = []byte{0xeb, 0x63}; m[510] = []byte{0x55, 0xaa} }, true},
		"boot code, gpt": {func(m image) { m.partition(1, 1, "x"); m[0] = []byte{0xeb, 0x63} }, true},
	} {
		m := image{}
		c.build(m)
		if got, err := Identify(m); err != nil || got.Bootable != c.want {
			t.Errorf("%s: %v, %v", name, got.Bootable, err)
		}
	}
}

func TestIdentify(t *testing.T) {
	for name, c := range map[string]struct {
		build  func(image)
		want   string
		marker string
		linux  bool
	}{
		"empty": {func(image) {}, "empty", "", false},
		"ext4":  {func(m image) { m[1080] = []byte{0x53, 0xef} }, "linux: ext4", "", true},
		"mbr linux": {func(m image) {
			m[446] = []byte{0, 0, 0, 0, 0x83, 0, 0, 0, 0, 8, 0, 0}
			m[510] = []byte{0x55, 0xaa}
			m[2048*512] = []byte("XFSB")
		}, "linux: xfs", "", true},
		"gpt empty": {func(m image) { m.partition(1, 1, "x") }, "empty gpt table", "", false},
		"windows":   {func(m image) { m.partition(1, 1, "x"); m[1<<20+3] = []byte("NTFS    ") }, "linux: ntfs", "", true},
		"esp only":  {func(m image) { m.partition(1, 1, "x"); m[1<<20+82] = []byte("FAT32   ") }, "vfat", "", false},
		"ours": {func(m image) {
			m.partition(1, 1, "run-1")
			m.partition(4, 8, NameRoot)
			m[8<<20] = luksHead("fleet/fsn-1")
		}, "fleet node fsn-1", "run-1", true},
		"ours, before encryption": {func(m image) { m.partition(1, 1, "run-1"); m.partition(4, 8, NameRoot) }, "fleet node (installation run-1)", "run-1", false},
		"ours, on an array": {func(m image) {
			m.partition(1, 1, "run-1")
			m.partition(4, 8, NameRoot)
			m[8<<20+4096] = []byte("\xfc\x4e\x2b\xa9")
		}, "fleet node (installation run-1)", "run-1", true},
	} {
		t.Run(name, func(t *testing.T) {
			m := image{}
			c.build(m)
			got, err := Identify(m)
			if err != nil || got.String() != c.want || got.Marker != c.marker || got.Linux() != c.linux {
				t.Errorf("%q marker %q linux %v, %v; want %q %q %v", got, got.Marker, got.Linux(), err, c.want, c.marker, c.linux)
			}
		})
	}
}

func FuzzIdentify(f *testing.F) {
	m := image{}
	m.partition(1, 1, "run-1")
	m.partition(4, 2, NameRoot)
	head := make([]byte, 4096)
	m.ReadAt(head, 0)
	f.Add(head)
	f.Fuzz(func(t *testing.T, b []byte) {
		c, _ := Identify(bytes.NewReader(b))
		_ = c.String()
	})
}

// TestList reads a /sys made by hand: NVMe and SCSI serials, and all that is no disk of ours.
func TestList(t *testing.T) {
	root := t.TempDir()
	put := func(path, data string) {
		path = filepath.Join(root, path)
		os.MkdirAll(filepath.Dir(path), 0o755)
		if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	disk := func(name, size string, attrs ...string) {
		put("sys/block/"+name+"/size", size+"\n")
		for i := 0; i < len(attrs); i += 2 {
			put("sys/block/"+name+"/"+attrs[i], attrs[i+1])
		}
		put("dev/"+name, string(make([]byte, 8192)))
	}
	disk("nvme0n1", "2000", "device/serial", "SER0  \n", "wwid", "nvme.1\n", "ro", "0\n")
	disk("sda", "4000", "device/vpd_pg80", "\x00\x80\x00\x04WD12", "device/model", "WD\n")
	disk("vda", "4000", "serial", "rescue\n", "ro", "1\n")
	disk("sdb", "4000", "serial", "stick", "removable", "1\n")
	disk("sr0", "4000")
	disk("loop0", "4000")
	disk("md127", "4000")
	disk("dm-0", "4000")
	disk("sdc", "0", "serial", "empty slot")
	got, err := Host{Root: root}.List()
	if err != nil || len(got) != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	if got[0].Serial != "SER0" || got[0].SizeBytes != 2000*512 || got[0].WWN != "nvme.1" || got[1].Serial != "WD12" || got[1].Content != "empty" {
		t.Errorf("%+v", got)
	}
	disk("sdd", "4000", "serial", "SER0")
	if _, err := (Host{Root: root}).List(); err == nil {
		t.Error("two disks with one serial were accepted")
	}
}
