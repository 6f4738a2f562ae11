package seal

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"popfleet/agents/disk/disktest"
	"popfleet/playbooks/spec"
)

// mirror puts two disks under root whose third partitions are members of an array; with running, the first one's array is
// up as md2, and the second one has fallen out of it.
func mirror(t *testing.T, root, owner string, running bool) (members [2]string) {
	t.Helper()
	put := func(path string, data []byte) {
		path = filepath.Join(root, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, data, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	member := make([]byte, 20<<20)
	le := binary.LittleEndian
	le.PutUint32(member[superblockAt:], mdMagic)
	le.PutUint32(member[superblockAt+4:], 1)
	le.PutUint64(member[superblockAt+128:], 2048) // data begins at 1 MiB
	header := disktest.LUKS2("2b3c33b7-3103-4f4c-9f0b-000000000001", owner, 3)
	copy(member[1<<20:], header)
	for i, name := range []string{"sda", "sdb"} {
		put("sys/block/"+name+"/size", []byte("41943040\n"))
		put("sys/block/"+name+"/device/wwid", []byte("naa.5000c500000000"+name+"\n"))
		put("sys/block/"+name+"/device/serial", []byte("SERIAL-"+name+"\n"))
		put("sys/block/"+name+"/device/type", []byte("0\n"))
		put("sys/block/"+name+"/"+name+"3/partition", []byte("3\n"))
		put("dev/"+name, disktest.GPT("esp"))
		members[i] = filepath.Join(root, "dev", name+"3")
		put("dev/"+name+"3", member)
	}
	if running {
		put("sys/block/sda/sda3/holders/md2/x", nil)
		put("dev/md2", header)
	}
	return members
}

func wipeOf(t *testing.T, root string, d *luksDevice, serials ...string) (spec.Wiped, error) {
	t.Helper()
	req, err := json.Marshal(spec.Wipe{Version: 1, Node: "fsn-1", Serials: serials})
	if err != nil {
		t.Fatal(err)
	}
	result, err := handler(root, d).Wipe(t.Context(), req, silent{})
	done, _ := result.(spec.Wiped)
	return done, err
}

func holdsHeader(t *testing.T, path string) bool {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Contains(data, []byte("LUKS\xba\xbe")) || bytes.Contains(data, []byte("SKUL\xba\xbe"))
}

// In a rescue system that assembles nothing every member's header is overwritten, and nothing beside it.
func TestWipeReachesMembersOfArraysThatDoNotRun(t *testing.T) {
	root := node(t)
	members := mirror(t, root, "fleet/fsn-1", false)
	done, err := wipeOf(t, root, fresh())
	if err != nil || len(done.Devices) != 2 {
		t.Fatalf("%+v %v", done, err)
	}
	for _, m := range members {
		if holdsHeader(t, m) {
			t.Errorf("%s still has its header", m)
		}
		data, _ := os.ReadFile(m)
		if offset, ok := arrayData(bytes.NewReader(data)); !ok || offset != 1<<20 {
			t.Errorf("%s: the array's own superblock was touched", m)
		}
	}
	if again, err := wipeOf(t, root, fresh()); err != nil || len(again.Devices) != 2 {
		t.Errorf("a second time: %+v %v", again, err)
	}
}

// A disk that fell out of the running array and came back holds an old header: it goes too.
func TestWipeReachesTheDiskThatFellOut(t *testing.T) {
	root := node(t)
	members := mirror(t, root, "fleet/fsn-1", true)
	d := fresh()
	done, err := wipeOf(t, root, d)
	if err != nil || strings.Join(done.Devices, " ") != "/dev/md2 /dev/sdb3" && strings.Join(done.Devices, " ") != "/dev/sdb3 /dev/md2" {
		t.Fatalf("%+v %v", done, err)
	}
	if len(d.slots) != 0 || holdsHeader(t, members[1]) {
		t.Errorf("slots on the array %v, header on the other disk %t", d.slots, holdsHeader(t, members[1]))
	}
}

// Another node's member stops everything before anything is destroyed.
func TestWipeRefusesAnothersMember(t *testing.T) {
	root := node(t)
	members := mirror(t, root, "fleet/gra-7", false)
	_, err := wipeOf(t, root, fresh())
	var told *spec.Error
	if !errors.As(err, &told) || told.Code != spec.CodeWrongNode || !holdsHeader(t, members[0]) || !holdsHeader(t, members[1]) {
		t.Errorf("%v", err)
	}
}

func TestWipeMissesADisk(t *testing.T) {
	root := node(t)
	members := mirror(t, root, "fleet/fsn-1", false)
	_, err := wipeOf(t, root, fresh(), "SERIAL-sda", "SERIAL-sdc")
	if err == nil || !strings.Contains(err.Error(), "SERIAL-sdc") || !holdsHeader(t, members[0]) {
		t.Errorf("%v", err)
	}
}
