package qemu

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestStage(t *testing.T) {
	on := func(boot, rest string) string {
		return "old: lab-rescue: ssh ready\n--- lab now: power on, boot " + boot + "\n" + rest
	}
	tests := map[string]string{
		"":                                 "",
		on("rescue", ""):                   "power on, into rescue",
		on("rescue", "lab-rescue: init\n"): "rescue: starting",
		on("rescue", "lab-rescue: init\nWelcome to Debian\nlab-rescue: ssh ready\n"):      "rescue: ssh answers",
		on("disk", "No bootable device.\n"):                                               "firmware: no bootable disk",
		on("disk", "GNU GRUB  version 2.06\n"):                                            "boot loader",
		on("disk", "GRUB\nBegin: Starting dropbear ...\nPlease unlock disk root: "):       "initramfs: locked",
		on("disk", "Please unlock disk root: \ncryptsetup: root: set up successfully"):    "initramfs: unlocked",
		on("disk", "set up successfully\nWelcome to Debian GNU/Linux 12!\nfsn-1 login: "): "system: login",
		on("disk", "Kernel panic - not syncing: VFS"):                                     "kernel panic",
	}
	for text, want := range tests {
		if got := stageOf(text); got != want {
			t.Errorf("%q: %q, expected %q", text, got, want)
		}
	}
}

func TestTailIsPlainText(t *testing.T) {
	path := filepath.Join(t.TempDir(), "console.log")
	if lines, err := Tail(path, 5); err != nil || lines != nil {
		t.Fatalf("a machine never switched on: %q, %v", lines, err)
	}
	text := strings.Repeat("x\n", consoleWindow) + "\x1bc\x1b[?7l\x1b[2J\x1b[0mSeaBIOS\r\n[\x1b[0;32m  OK  \x1b[0m] Started\r\nlast\xff"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	lines, err := Tail(path, 3)
	if want := []string{"SeaBIOS", "[  OK  ] Started", "last?"}; err != nil || !slices.Equal(lines, want) {
		t.Errorf("%q, %v; expected %q", lines, err, want)
	}
}

func FuzzPlain(f *testing.F) {
	f.Add([]byte("\x1b[31mred\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if out := plain(b); strings.ContainsAny(out, "\x1b\r\x00") {
			t.Fatalf("%q", out)
		}
	})
}
