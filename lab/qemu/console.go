package qemu

import (
	"bytes"
	"errors"
	"io"
	"os"
	"regexp"
	"strings"
)

// Marks that the lab itself puts on a console.
const (
	powerOnMark    = "power on, boot "
	rescueInitMark = "lab-rescue: init"
)

// consoleWindow bounds what is read of a console log; a boot writes some tens of kilobytes.
const consoleWindow = 256 << 10

// stages are what a console shows on the way; the one that comes last in the log is where the machine is.
var stages = []struct{ mark, stage string }{
	{powerOnMark + "rescue", "power on, into rescue"},
	{powerOnMark + "disk", "power on, from disk"},
	{rescueInitMark, "rescue: starting"},
	{"lab-rescue: ssh ready", "rescue: ssh answers"},
	{"No bootable device", "firmware: no bootable disk"},
	{"BdsDxe: starting Boot", "firmware: boot loader"},
	{"GRUB", "boot loader"},
	{"Linux version", "kernel"},
	{"Loading, please wait", "initramfs"},
	{"Starting dropbear", "initramfs: dropbear"},
	{"Please unlock disk", "initramfs: locked"},
	{"set up successfully", "initramfs: unlocked"},
	{"Welcome to ", "system: starting"},
	{" login:", "system: login"},
	{"Kernel panic", "kernel panic"},
	{"ALERT!", "initramfs: stuck"},
	{"reboot: Restarting system", "restarting"},
	{"reboot: Power down", "powered off"},
}

// Stage guesses from a console log how far the machine has come since it was last switched on, "" if it can't tell.
// It is for people's eyes; nothing may be decided by it.
func Stage(console string) (string, error) {
	text, err := readConsole(console)
	if err != nil {
		return "", err
	}
	return stageOf(text), nil
}

func stageOf(text string) string {
	if i := strings.LastIndex(text, powerOnMark); i >= 0 {
		text = text[i:]
	}
	best, stage := -1, ""
	for _, s := range stages {
		if i := strings.LastIndex(text, s.mark); i > best {
			best, stage = i, s.stage
		}
	}
	return stage
}

// Tail is the last n lines of a console log, without what moves a terminal's cursor.
func Tail(console string, n int) ([]string, error) {
	text, err := readConsole(console)
	if err != nil || n <= 0 || text == "" {
		return nil, err
	}
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return lines[max(0, len(lines)-n):], nil
}

func readConsole(path string) (string, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil // never switched on
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return "", err
	}
	data := make([]byte, min(end, consoleWindow))
	n, err := f.ReadAt(data, end-int64(len(data)))
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	return plain(data[:n]), nil
}

// escapes are terminal control sequences, and the control characters that are not a line's end.
var escapes = regexp.MustCompile(`\x1b(?:\[[0-?]*[ -/]*[@-~]|[()][0-9A-B]|c|[@-Z\\-_=>78])|[\x00-\x08\x0b-\x1f\x7f]`)

func plain(b []byte) string {
	b = bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n"))
	return strings.ToValidUTF8(string(escapes.ReplaceAll(b, nil)), "?")
}
