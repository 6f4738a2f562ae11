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
		{Serial: "B", WWN: "wwn-b", Path: "/dev/nvme1n1", SizeBytes: 20e9, Content: "linux: ext4", Bootable: true},
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
	data := func(i int) func([]spec.Disk) {
		return func(d []spec.Disk) { d[i].Content, d[i].Bootable = "linux: md member", false }
	}
	for name, c := range map[string]struct {
		serials []string
		known   []string
		prev    string
		disks   []spec.Disk
		wipe    string // serials to wipe, in order; lower case: used, not wiped
		err     string
	}{
		"all of two":                  {disks: disks(), wipe: "A B"},
		"by serial, order kept":       {serials: []string{"B", "A"}, disks: disks(), wipe: "B A"},
		"by wwn":                      {serials: []string{"wwn-b"}, disks: disks(), wipe: "B"},
		"other disk has a Linux":      {serials: []string{"A"}, disks: disks(), err: "can be booted from and carries linux: ext4"},
		"other disk has an ESP":       {serials: []string{"B"}, disks: disks(func(d []spec.Disk) { d[0].Bootable = true }), err: "can be booted from"},
		"other disk is data":          {serials: []string{"A"}, disks: disks(data(1)), wipe: "A"},
		"two of four, data on others": {serials: []string{"B", "A"}, disks: append(disks(), spec.Disk{Serial: "C", Content: "linux: xfs"}, spec.Disk{Serial: "D", Content: "unreadable: EIO"}), wipe: "B A"},
		"data beside a system":        {disks: disks(data(0)), err: "may be somebody's data"},
		"data alone, unnamed":         {disks: disks(data(0))[:1], wipe: "A"},
		"data, named":                 {serials: []string{"A", "B"}, disks: disks(data(0)), wipe: "A B"},
		"as the journal knows":        {known: []string{"B", "wwn-a"}, disks: disks(), wipe: "A B"},
		"not as the journal knows":    {known: []string{"A", "Z"}, disks: disks(), err: "disk Z, which the journal knows"},
		"exchanged, but named":        {known: []string{"Z"}, serials: []string{"A", "B"}, disks: disks(), wipe: "A B"},
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
			targets, err := choose(spec.Install{Run: "r1", Serials: c.serials, KnownSerials: c.known, PrevMarker: c.prev}, c.disks)
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
