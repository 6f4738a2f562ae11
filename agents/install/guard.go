package install

import (
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"popfleet/playbooks/spec"
)

var (
	runName  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,35}$`) // fits a GPT partition name of 36 characters
	nodeName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)
)

const (
	defaultMinGB = 8
	minKeyBytes  = 16
	maxKeyBytes  = 512
)

// validate checks what a request must hold whatever the machine is.
func validate(s spec.Install) error {
	var bad []string
	check := func(ok bool, format string, args ...any) {
		if !ok {
			bad = append(bad, fmt.Sprintf(format, args...))
		}
	}
	check(s.Version == 1, "version %d is not 1", s.Version)
	check(runName.MatchString(s.Run), "run %q must be 1 to 36 letters, digits, dots, dashes", s.Run)
	check(nodeName.MatchString(s.Node), "node %q is no DNS label of at most 32 characters", s.Node)
	check(nodeName.MatchString(s.Fleet), "fleet %q is no DNS label", s.Fleet)
	check(len(s.KnownSerials) <= 16, "%d disks are known, at most 16 make sense", len(s.KnownSerials))
	check(len(s.Serials) <= 2, "%d disks are named, at most 2 can be used", len(s.Serials))
	sum, err := hex.DecodeString(s.Image.SHA256)
	check(err == nil && len(sum) == 32 && s.Image.SizeBytes > 0, "image %q of %d bytes", s.Image.SHA256, s.Image.SizeBytes)
	check(len(s.InstallKey) >= minKeyBytes && len(s.InstallKey) <= maxKeyBytes, "install_key has %d bytes", len(s.InstallKey))
	check(len(s.AuthorizedKeys) > 0, "authorized_keys is empty: nobody could unlock the machine")
	check(strings.TrimSpace(s.UserCA) != "", "user_ca is empty: nobody could log in")
	if len(bad) > 0 {
		return &spec.Error{Code: spec.CodeBadSpec, Message: "install: " + strings.Join(bad, "; ")}
	}
	return nil
}

// target is a disk to install on.
type target struct {
	spec.Disk
	wipe bool // false: it carries this run's marker already
}

// choose picks the disks to install on and decides which of them is wiped. It is the one place that decides it.
//
//   - a disk is named by serial or WWN; without names every fixed disk is meant, and there must be one or two
//   - without names, the machine must have the disks that the journal knows it to have, and a disk that looks like
//     somebody's data beside a system is not taken for a part of it
//   - a disk with this run's marker is ours and half or wholly done: never wiped again
//   - a disk with another installation's marker is wiped only when the journal expected exactly that one
//   - a disk that is not named is left alone, whatever its data; but when firmware could start a system from it, the
//     installation stops: the machine might come up with that one instead of ours
func choose(s spec.Install, disks []spec.Disk) ([]target, error) {
	chosen, others, err := pick(s.Serials, disks)
	if err != nil {
		return nil, err
	}
	if len(s.Serials) == 0 {
		if err := unnamed(s, chosen); err != nil {
			return nil, err
		}
	}
	for _, d := range others {
		if d.Bootable || d.Marker != "" {
			return nil, wrongDisk("name it in disks.serials if it is to be used, or take its boot loader away",
				"disk %s (%s), which is not to be installed on, can be booted from and carries %s", d.Serial, d.Path, d.Content)
		}
	}
	minGB := s.MinGB
	if minGB == 0 {
		minGB = defaultMinGB
	}
	var targets []target
	for _, d := range chosen {
		if d.SizeBytes < int64(minGB)*1000*1000*1000 {
			return nil, &spec.Error{Code: spec.CodeDiskTooSmall,
				Message: fmt.Sprintf("disk %s (%s) has %.1f GB, at least %d GB are wanted", d.Serial, d.Path, float64(d.SizeBytes)/1e9, minGB),
				Hint:    "set disks.min_gb or name another disk"}
		}
		t, err := decide(s, d)
		if err != nil {
			return nil, err
		}
		targets = append(targets, t)
	}
	return targets, nil
}

// unnamed looks at disks that nobody named.
func unnamed(s spec.Install, disks []spec.Disk) error {
	for _, known := range s.KnownSerials {
		if !slices.ContainsFunc(disks, func(d spec.Disk) bool { return d.Serial == known || d.WWN == known }) {
			return wrongDisk("if a disk was exchanged, name the disks of this machine in disks.serials: "+list(disks),
				"disk %s, which the journal knows this machine to have, is not there: another disk, or another machine", known)
		}
	}
	if len(disks) < 2 {
		return nil
	}
	for _, d := range disks {
		if strings.HasPrefix(d.Content, "linux:") && !d.Bootable && d.Marker == "" {
			return wrongDisk("name the disks to be wiped in disks.serials: "+list(disks),
				"disk %s (%s) carries %s and no boot loader: it may be somebody's data", d.Serial, d.Path, d.Content)
		}
	}
	return nil
}

func decide(s spec.Install, d spec.Disk) (target, error) {
	switch {
	case strings.HasPrefix(d.Content, "unreadable"):
		return target{}, wrongDisk("look at the machine's hardware", "disk %s (%s) is %s", d.Serial, d.Path, d.Content)
	case d.Marker == s.Run:
		return target{Disk: d}, nil
	case d.Marker != "" && d.Marker != s.PrevMarker:
		return target{}, wrongDisk("if this machine may be wiped, run `fleet down` for its node first",
			"disk %s (%s) carries installation %q (%s), which is not the one expected here (%q)", d.Serial, d.Path, d.Marker, d.Content, s.PrevMarker)
	}
	return target{Disk: d, wipe: true}, nil
}

// pick splits the machine's disks into those asked for, in the order asked, and the others.
func pick(names []string, disks []spec.Disk) (chosen, others []spec.Disk, err error) {
	if len(names) == 0 {
		switch len(disks) {
		case 1, 2:
			return disks, nil, nil
		}
		return nil, nil, wrongDisk("name one or two of them in disks.serials: "+list(disks), "the machine has %d fixed disks", len(disks))
	}
	used := map[string]bool{}
	for _, n := range names {
		i := slices.IndexFunc(disks, func(d spec.Disk) bool { return n != "" && (d.Serial == n || d.WWN == n) })
		if i < 0 {
			return nil, nil, wrongDisk("its disks are: "+list(disks), "the machine has no disk with serial or WWN %q", n)
		}
		if used[disks[i].Path] {
			return nil, nil, wrongDisk("name two different disks", "%q names a disk that was named before", n)
		}
		used[disks[i].Path] = true
		chosen = append(chosen, disks[i])
	}
	for _, d := range disks {
		if !used[d.Path] {
			others = append(others, d)
		}
	}
	return chosen, others, nil
}

func list(disks []spec.Disk) string {
	if len(disks) == 0 {
		return "none"
	}
	var names []string
	for _, d := range disks {
		names = append(names, fmt.Sprintf("%s (%s, %.0f GB)", d.Serial, d.Path, float64(d.SizeBytes)/1e9))
	}
	return strings.Join(names, ", ")
}

func wrongDisk(hint, format string, args ...any) error {
	return &spec.Error{Code: spec.CodeWrongDisk, Message: fmt.Sprintf(format, args...), Hint: hint}
}
