package ops

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"popfleet/agents/facts"
	"popfleet/playbooks/spec"
)

// TestRebootOnlyIntoWhatComesBack: a node that would not come back is not rebooted; a rescue system always is.
func TestRebootOnlyIntoWhatComesBack(t *testing.T) {
	good := spec.BootCheck{Checks: []spec.BootProof{{Name: "grub", OK: true}, {Name: "mirrors", OK: true, Warn: true}}}
	bad := spec.BootCheck{Checks: []spec.BootProof{{Name: "grub", OK: true}, {Name: "space", Why: "/boot is full"}}}
	rescue := t.TempDir()
	for path, data := range map[string]string{"proc/sys/kernel/hostname": "rescue\n", "etc/hetzner-build": "1"} {
		os.MkdirAll(filepath.Dir(filepath.Join(rescue, path)), 0o755)
		os.WriteFile(filepath.Join(rescue, path), []byte(data), 0o644)
	}
	for name, c := range map[string]struct {
		root    string
		result  spec.BootCheck
		err     error
		reboots bool
		says    string
	}{
		"good":            {t.TempDir(), good, nil, true, ""},
		"bad":             {t.TempDir(), bad, nil, false, "space: /boot is full"},
		"nothing checked": {t.TempDir(), spec.BootCheck{}, nil, false, "would not come back"},
		"can't look":      {t.TempDir(), good, errors.New("no disks"), false, "no disks"},
		"in rescue":       {rescue, bad, nil, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			rebooted := false
			r := reboot{host: facts.Host{Root: c.root}, act: func(bool) error { rebooted = true; return nil },
				check: func(context.Context, spec.BootCheckRequest) (spec.BootCheck, error) { return c.result, c.err }}
			_, err := r.serve(t.Context(), nil, nil)
			var typed *spec.Error
			if rebooted != c.reboots || (err == nil) != c.reboots || err != nil && (!errors.As(err, &typed) || typed.Code != CodeNotBootable || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("rebooted %v, %v", rebooted, err)
			}
		})
	}
}
