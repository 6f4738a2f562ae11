package lifecycle

import (
	"strings"
	"testing"

	"popfleet/inventory/vault"
	"popfleet/playbooks/spec"
)

func manifestOf(digest string, files map[string]string) spec.BootManifest {
	m := spec.BootManifest{Digest: digest}
	for path, sum := range files {
		m.Files = append(m.Files, spec.BootFile{Path: path, SHA256: sum})
	}
	return m
}

func TestChangesOfAManifest(t *testing.T) {
	whole := map[string]string{"boot/vmlinuz-6.1": "k", "disk A/mbr": "m", "disk A/esp/EFI/BOOT/BOOTX64.EFI": "e", "disk B/mbr": "m", "disk B/esp/EFI/BOOT/BOOTX64.EFI": "e"}
	good := &vault.GoodBoot{Manifest: "whole", Files: whole}
	for _, c := range []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"the same", whole, ""},
		{"a mirror with one disk", map[string]string{"boot/vmlinuz-6.1": "k", "disk B/mbr": "m", "disk B/esp/EFI/BOOT/BOOTX64.EFI": "e"}, ""},
		{"one disk, and its boot code changed", map[string]string{"boot/vmlinuz-6.1": "k", "disk B/mbr": "x", "disk B/esp/EFI/BOOT/BOOTX64.EFI": "e"}, "disk B/mbr changed"},
		{"one file of a disk gone", map[string]string{"boot/vmlinuz-6.1": "k", "disk A/mbr": "m", "disk B/mbr": "m", "disk B/esp/EFI/BOOT/BOOTX64.EFI": "e"}, "disk A/esp/EFI/BOOT/BOOTX64.EFI is gone"},
		{"a disk more", map[string]string{"boot/vmlinuz-6.1": "k", "disk A/mbr": "m", "disk A/esp/EFI/BOOT/BOOTX64.EFI": "e", "disk B/mbr": "m", "disk B/esp/EFI/BOOT/BOOTX64.EFI": "e", "disk C/mbr": "m"}, "disk C/mbr is new"},
		{"another kernel", map[string]string{"boot/vmlinuz-6.2": "k", "disk A/mbr": "m", "disk A/esp/EFI/BOOT/BOOTX64.EFI": "e", "disk B/mbr": "m", "disk B/esp/EFI/BOOT/BOOTX64.EFI": "e"}, "boot/vmlinuz-6.2 is new, boot/vmlinuz-6.1 is gone"},
		{"no boot at all", map[string]string{"disk A/mbr": "m", "disk A/esp/EFI/BOOT/BOOTX64.EFI": "e", "disk B/mbr": "m", "disk B/esp/EFI/BOOT/BOOTX64.EFI": "e"}, "boot/vmlinuz-6.1 is gone"},
	} {
		if got := changes(good, manifestOf("other", c.files)); got != c.want {
			t.Errorf("%s: %q, expected %q", c.name, got, c.want)
		}
	}
	if got := changes(good, manifestOf("whole", nil)); got != "" {
		t.Errorf("the same digest: %q", got)
	}
	if got := changes(&vault.GoodBoot{Manifest: "x"}, manifestOf("y", whole)); got == "" {
		t.Error("another digest, and no files recorded: believed")
	}
	many := map[string]string{}
	for _, c := range "abcdefghij" {
		many[string(c)] = "x"
	}
	if got := difference(nil, many); strings.Count(got, " is new") != maxNamed || !strings.HasSuffix(got, "and 4 more") {
		t.Errorf("many changes: %q", got)
	}
}

func TestOnlyAfterABootOfThisInstallation(t *testing.T) {
	n := &node{fleetRun: &fleetRun{Deps: Deps{}}}
	if due, err := n.rotationDue(&vault.GoodBoot{BootID: "b"}, "b"); due || err != nil {
		t.Errorf("without a vault to rotate in: %v %v", due, err)
	}
	if why := n.doubt(nil, "b", manifestOf("d", nil)); why != "" {
		t.Errorf("nothing recorded: %q", why)
	}
	n.opened = true
	if why := n.doubt(&vault.GoodBoot{BootID: "b", Manifest: "d"}, "b", manifestOf("d", nil)); !strings.Contains(why, "boot is the one from before") {
		t.Errorf("a boot id from before the key was sent: %q", why)
	}
	if why := n.doubt(&vault.GoodBoot{BootID: "a", Manifest: "d"}, "b", manifestOf("d", nil)); why != "" {
		t.Errorf("a new boot: %q", why)
	}
}
