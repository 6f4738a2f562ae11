package scripted

import (
	"fmt"
	"slices"
)

type mendSpec struct {
	Version int    `json:"version"`
	Node    string `json:"node"`
	Disk    string `json:"disk"`
	Erase   bool   `json:"erase"`
}

type mendPlan struct {
	Mirrors []mirrorState `json:"mirrors"`
	Disk    *wireDisk     `json:"disk,omitempty"`
	Do      string        `json:"do,omitempty"`
	Serials []string      `json:"serials"`
}

type mirrorState struct {
	Name     string   `json:"name"`
	Device   string   `json:"device"`
	Wanted   int      `json:"wanted"`
	InSync   int      `json:"in_sync"`
	Percent  *float64 `json:"percent,omitempty"`
	Rebuilds bool     `json:"rebuilds"`
}

// ReplaceDisk puts a blank disk into a slot, in the place of the one that is there, whether the machine runs or not.
func (m *Machine) ReplaceDisk(index int, serial string, sizeBytes int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if index < 0 || index >= len(m.disks) {
		return fmt.Errorf("disk %d: the machine has %d", index, len(m.disks))
	}
	if slices.ContainsFunc(m.disks, func(d *disk) bool { return d.Serial == serial }) {
		return fmt.Errorf("a disk %s is there already", serial)
	}
	m.disks[index] = &disk{Serial: serial, SizeBytes: sizeBytes, Touched: true, holds: &content{}}
	return nil
}

// mirror is what the disks found come to: those that have everything, those that are being written, and the rest.
func (m *Machine) mirror() (on *content, whole, written, others []*disk) {
	on = m.installed()
	for _, d := range m.found() {
		switch {
		case d.holds == on && d.Written == 0:
			whole = append(whole, d)
		case d.holds == on:
			written = append(written, d)
		default:
			others = append(others, d)
		}
	}
	return on, whole, written, others
}

// mend plays both requests. A disk is written by a half at every look.
func (x *exchange) mend(spec mendSpec, act bool) (any, error) {
	if x.s.link != "system" {
		return nil, &remoteError{"failed", "mend: this machine is no installed node", ""}
	}
	x.m.mu.Lock()
	defer x.m.mu.Unlock()
	on, whole, written, others := x.m.mirror()
	switch {
	case spec.Version != 1 || spec.Erase && spec.Disk == "":
		return nil, &remoteError{"bad_spec", "mend", ""}
	case spec.Node != on.Node:
		return nil, &remoteError{"wrong_node", fmt.Sprintf("this machine is node %q, not %q", on.Node, spec.Node), ""}
	case on.Halves < 2:
		return nil, &remoteError{"no_mirror", "the node has 0 of the mirrors", ""}
	}
	for _, d := range written {
		d.Written += 50
		if d.Written >= 100 {
			d.Written = 0
		}
	}
	if len(whole)+len(written) < on.Halves {
		d, do, err := x.m.spare(others, spec)
		if err != nil {
			return nil, err
		}
		if !act {
			w := x.m.wireDisk(slices.Index(x.m.found(), d), d)
			return x.m.mendPlan(&w, do), nil
		}
		if do == "new" {
			x.m.ledger.wiped(d.Serial)
		}
		*d = disk{Serial: d.Serial, SizeBytes: d.SizeBytes, Touched: true, Marker: whole[0].Marker, holds: on, Written: 1}
	}
	return x.m.mendPlan(nil, ""), nil
}

func (m *Machine) spare(others []*disk, spec mendSpec) (*disk, string, error) {
	var fit []*disk
	for _, d := range others {
		blank := d.Foreign == "" && d.Marker == "" && d.Touched
		if spec.Disk == d.Serial && (blank || spec.Erase) || spec.Disk == "" && blank {
			fit = append(fit, d)
		}
	}
	if len(fit) != 1 && spec.Disk != "" {
		return nil, "", &remoteError{"wrong_disk", "disk " + spec.Disk + " is not there, or not blank", ""}
	}
	if len(fit) != 1 {
		return nil, "", &remoteError{"no_spare_disk", fmt.Sprintf("%d blank disks", len(fit)), "name one with --disk SERIAL"}
	}
	for _, d := range m.disks {
		if d.holds == m.installed() && d.SizeBytes > fit[0].SizeBytes {
			return nil, "", &remoteError{"disk_too_small", "disk " + fit[0].Serial + " is too small", ""}
		}
	}
	return fit[0], "new", nil
}

func (m *Machine) mendPlan(d *wireDisk, do string) mendPlan {
	on, whole, written, _ := m.mirror()
	p := mendPlan{Disk: d, Do: do, Serials: []string{}}
	for _, x := range append(whole, written...) {
		p.Serials = append(p.Serials, x.Serial)
	}
	slices.Sort(p.Serials)
	for name, device := range map[string]string{"fleet-boot": "md126", "fleet-root": "md127"} {
		s := mirrorState{Name: name, Device: device, Wanted: on.Halves, InSync: len(whole), Rebuilds: len(written) > 0}
		if len(written) > 0 {
			percent := float64(written[0].Written)
			s.Percent = &percent
		}
		p.Mirrors = append(p.Mirrors, s)
	}
	slices.SortFunc(p.Mirrors, func(a, b mirrorState) int { return len(a.Device+a.Name) - len(b.Device+b.Name) })
	return p
}
