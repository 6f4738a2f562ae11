package mend

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"popfleet/agents/command"
	"popfleet/playbooks/spec"
)

// choose picks the disk and says what is done to it. It is the one place that decides which disk is written to.
//
//   - never one that a mirror has in sync or is writing, that a file system lies on, or that anything else holds open
//   - without a name: the only one that is blank, that a former attempt left unfinished, or that is this node's and fell
//     out. None or several: a person names it
//   - named: any of those; anything else only when it may be erased
func (j *job) choose(ctx context.Context) error {
	var err error
	var d spec.Disk
	if j.req.Disk != "" {
		d, err = j.named()
	} else {
		d, err = j.only(ctx)
	}
	if err != nil {
		return err
	}
	if err := j.free(d); err != nil {
		return err
	}
	do, err := j.what(ctx, d)
	if err != nil {
		return err
	}
	if do == "" && !j.req.Erase {
		return &spec.Error{Code: spec.CodeWrongDisk, Message: fmt.Sprintf("disk %s (%s) is not blank: %s", d.Serial, d.Path, d.Content),
			Hint: "if it may be erased, name it with --disk and confirm"}
	}
	if do == "" {
		do = spec.MendNew
	}
	j.plan.Disk, j.plan.Do = &d, do
	return j.fits(d)
}

func (j *job) named() (spec.Disk, error) {
	for _, d := range j.disks {
		if d.Serial == j.req.Disk || d.WWN != "" && d.WWN == j.req.Disk {
			return d, nil
		}
	}
	return spec.Disk{}, &spec.Error{Code: spec.CodeWrongDisk, Message: fmt.Sprintf("the machine has no disk with serial or WWN %q", j.req.Disk), Hint: "it has " + j.words(j.disks)}
}

// only finds the disk that needs no name.
func (j *job) only(ctx context.Context) (spec.Disk, error) {
	var fit []spec.Disk
	for _, d := range j.disks {
		if j.member(d) || d.Serial == "" {
			continue
		}
		do, err := j.what(ctx, d)
		if err != nil {
			return d, err
		}
		if do != "" {
			fit = append(fit, d)
		}
	}
	if len(fit) == 1 {
		return fit[0], nil
	}
	why := fmt.Sprintf("%d disks could be taken", len(fit))
	if len(fit) == 0 {
		why = "no blank disk is there"
	}
	return spec.Disk{}, &spec.Error{Code: spec.CodeNoSpare, Message: why + ": the machine has " + j.words(j.disks),
		Hint: "name one with --disk SERIAL; have the provider put one in when there is none"}
}

func (j *job) words(disks []spec.Disk) string {
	var out []string
	for _, d := range disks {
		content := d.Content
		if j.member(d) {
			content = "in use"
		}
		out = append(out, fmt.Sprintf("%s (%s, %.0f GB, %s)", d.Serial, d.Path, float64(d.SizeBytes)/1e9, content))
	}
	return strings.Join(out, ", ")
}

// member says whether a disk is out of the question: a mirror that lacks one counts it already, be it as failed, or it
// is not this node's and any mirror has it. One of this node's that the other mirror has is what a cut leaves.
func (j *job) member(d spec.Disk) bool {
	for _, a := range j.arrays {
		for _, m := range a.Members {
			if m.Disk == filepath.Base(d.Path) && (present(a) < a.Wanted || d.Marker != j.run) {
				return true
			}
		}
	}
	return false
}

// inMirror says whether a mirror of this node has one of the disk's partitions, and works with it.
func (j *job) inMirror(d spec.Disk) bool {
	for _, a := range j.arrays {
		for _, m := range a.Members {
			if m.Disk == filepath.Base(d.Path) && !m.Faulty() {
				return true
			}
		}
	}
	return false
}

// what is done to a disk, by what lies on it; "" is that it may be somebody's.
func (j *job) what(ctx context.Context, d spec.Disk) (string, error) {
	switch d.Marker {
	case j.run:
		return spec.MendBack, nil
	case Unfinished:
		return spec.MendFinish, nil
	}
	if d.Content != "empty" {
		return "", nil
	}
	// wipefs knows hundreds of signatures more.
	found, err := j.Run.Run(ctx, command.Cmd{Argv: []string{"wipefs", "--noheadings", "--output", "TYPE", d.Path}})
	if err != nil {
		return "", err
	}
	if len(strings.TrimSpace(string(found))) > 0 {
		return "", nil
	}
	return spec.MendNew, nil
}

// free refuses a disk that anything uses.
func (j *job) free(d spec.Disk) error {
	refuse := func(format string, args ...any) error {
		return &spec.Error{Code: spec.CodeWrongDisk, Message: fmt.Sprintf("disk %s (%s) ", d.Serial, d.Path) + fmt.Sprintf(format, args...)}
	}
	name := filepath.Base(d.Path)
	for _, a := range j.arrays {
		for _, m := range a.Members {
			if m.Disk == name && !m.Faulty() && (present(a) < a.Wanted || d.Marker != j.run) {
				return refuse("is a member of %s", a.Device)
			}
		}
	}
	used, err := j.Host.OnDisk(name)
	if err != nil {
		return err
	}
	if used && !j.inMirror(d) { // what lies on the mirror lies on its members
		return refuse("carries a mounted file system")
	}
	for _, dir := range []string{name, name + "/" + name + "*"} {
		holders, _ := filepath.Glob(j.path("/sys/block/" + dir + "/holders/*"))
		holders = slices.DeleteFunc(holders, j.ourMirror)
		if len(holders) > 0 {
			return refuse("is held by %s", filepath.Base(holders[0]))
		}
	}
	return nil
}

// ourMirror: a mirror of this node holds its members, and those that failed until they are let go, which is the first
// thing that is done. Whether it may be touched was decided by the membership.
func (j *job) ourMirror(path string) bool {
	part := filepath.Base(filepath.Dir(filepath.Dir(path)))
	for _, a := range j.arrays {
		for _, m := range a.Members {
			if a.Device == filepath.Base(path) && m.Device == part {
				return true
			}
		}
	}
	return false
}

// fits refuses a disk that the mirrors have no room on, before anything is done to it.
func (j *job) fits(d spec.Disk) error {
	if j.plan.Do == spec.MendBack {
		return nil
	}
	l, err := j.source()
	if err != nil {
		return err
	}
	if have := j.sector(filepath.Base(d.Path)); have != l.sector {
		return &spec.Error{Code: spec.CodeWrongDisk, Message: fmt.Sprintf("disk %s has sectors of %d bytes, the mirrors' disks of %d", d.Serial, have, l.sector)}
	}
	if d.SizeBytes < l.needs() {
		return &spec.Error{Code: spec.CodeDiskTooSmall, Message: fmt.Sprintf("disk %s has %d bytes, the mirrors need %d", d.Serial, d.SizeBytes, l.needs())}
	}
	// The kernel refuses this while anything else claims the disk or a partition of it, as swap does (open(2)).
	f, err := os.OpenFile(j.path(d.Path), os.O_RDWR|os.O_EXCL, 0)
	if err != nil {
		return &spec.Error{Code: spec.CodeWrongDisk, Message: fmt.Sprintf("disk %s can't be had alone: %v", d.Serial, err)}
	}
	return f.Close()
}
