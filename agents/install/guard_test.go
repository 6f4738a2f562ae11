package install

import (
	"errors"
	"strings"
	"testing"

	"popfleet/playbooks/spec"
)

func disks(changes ...func([]spec.Disk)) []spec.Disk {
	d := []spec.Disk{
		{Serial: "A", WWN: "wwn-a", Path: "/dev/nvme0n1", SizeBytes: 20e9, Content: "empty"},
		{Serial: "B", WWN: "wwn-b", Path: "/dev/nvme1n1", SizeBytes: 20e9, Content: "linux: ext4"},
	}
	for _, c := range changes {
		c(d)
	}
	return d
}

// TestChoose is the table of what is wiped and what never is.
func TestChoose(t *testing.T) {
	mark := func(i int, run string) func([]spec.Disk) {
		return func(d []spec.Disk) { d[i].Marker, d[i].Content = run, "fleet node x" }
	}
	for name, c := range map[string]struct {
		serials []string
		prev    string
		disks   []spec.Disk
		wipe    string // serials to wipe, in order; lower case: used, not wiped
		err     string
	}{
		"all of two":                  {disks: disks(), wipe: "A B"},
		"by serial, order kept":       {serials: []string{"B", "A"}, disks: disks(), wipe: "B A"},
		"by wwn":                      {serials: []string{"wwn-b"}, disks: disks(), wipe: "B"},
		"other disk has a Linux":      {serials: []string{"A"}, disks: disks(), err: "carries linux: ext4"},
		"other disk is a fleet disk":  {serials: []string{"B"}, disks: disks(mark(0, "r9")), err: "carries fleet node"},
		"this run's disk":             {disks: disks(mark(0, "r1"), mark(1, "r1")), wipe: "a b"},
		"half of this run":            {disks: disks(mark(0, "r1")), wipe: "a B"},
		"another run":                 {disks: disks(mark(0, "r0")), err: `carries installation "r0"`},
		"another run, expected":       {prev: "r0", disks: disks(mark(0, "r0")), wipe: "A B"},
		"another run, other expected": {prev: "r9", disks: disks(mark(0, "r0")), err: `carries installation "r0"`},
		"serial absent":               {serials: []string{"Z"}, disks: disks(), err: "no disk with serial"},
		"serial twice":                {serials: []string{"A", "wwn-a"}, disks: disks(), err: "named before"},
		"no disk":                     {err: "0 fixed disks"},
		"three disks":                 {disks: append(disks(), spec.Disk{Serial: "C"}), err: "3 fixed disks"},
		"too small":                   {disks: disks(func(d []spec.Disk) { d[1].SizeBytes = 4e9 }), err: "at least 8 GB"},
		"unreadable":                  {disks: disks(func(d []spec.Disk) { d[0].Content = "unreadable: EIO" }), err: "unreadable"},
	} {
		t.Run(name, func(t *testing.T) {
			targets, err := choose(spec.Install{Run: "r1", Serials: c.serials, PrevMarker: c.prev}, c.disks)
			if c.err != "" {
				var typed *spec.Error
				if !errors.As(err, &typed) || !strings.Contains(err.Error(), c.err) || typed.Hint == "" {
					t.Fatalf("%v, want %q with a code and a hint", err, c.err)
				}
				return
			}
			var got []string
			for _, x := range targets {
				s := x.Serial
				if !x.wipe {
					s = strings.ToLower(s)
				}
				got = append(got, s)
			}
			if err != nil || strings.Join(got, " ") != c.wipe {
				t.Errorf("%v, %v; want %q", got, err, c.wipe)
			}
		})
	}
}

func TestValidateTellsAllAtOnce(t *testing.T) {
	err := validate(spec.Install{Run: "a b", Node: "Ä", InstallKey: []byte("short")})
	for _, want := range []string{"version", "run", "node", "fleet", "image", "install_key", "authorized_keys", "user_ca"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not speak of %s", err, want)
		}
	}
}
