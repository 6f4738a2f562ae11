//go:build e2e

package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// noSecretLeaked searches everything the run left behind, on the operator's machine and on the nodes.
func (w *site) noSecretLeaked(t *testing.T) {
	needles := w.needles(t)
	w.mu.Lock()
	places := map[string][]byte{"output of every command": bytes.Clone(w.captured.Bytes())}
	w.mu.Unlock()
	collectProcesses(places)
	for _, name := range []string{"fsn-1", "fsn-2"} {
		r := w.fleet(t, 10*time.Minute, "ssh", name, "journalctl -b --no-pager -o export | head -c 8000000; cat /proc/[0-9]*/cmdline; cat /etc/fleet/*.json")
		places["journal and processes of "+name] = []byte(r.out)
	}
	// The search must be able to find: a key planted in a file of the operator's folder goes the same way as the rest.
	const plant = "fsn-1 machine key"
	planted := w.write(t, "planted.log", append([]byte("before "), needles[plant]...))
	w.collectFiles(t, places)
	os.Remove(planted)
	total, found := 0, false
	for place, data := range places {
		total += len(data)
		for what, needle := range needles {
			if !bytes.Contains(data, needle) {
				continue
			}
			if place == planted {
				found = found || what == plant
				continue
			}
			t.Errorf("%s is in %s", what, place)
		}
	}
	if !found {
		t.Error("the search does not find what was planted")
	}
	t.Logf("searched %d places, %d bytes, for %d forms of secrets", len(places), total, len(needles))
}

// needles are the secrets in the forms in which they could leak: as text, decoded, in hex and in base64.
func (w *site) needles(t *testing.T) map[string][]byte {
	t.Helper()
	v := w.openVault(t)
	needles := map[string][]byte{}
	add := func(what string, secret []byte) {
		needles[what] = secret
		needles[what+" in base64"] = []byte(base64.StdEncoding.EncodeToString(secret))
		needles[what+" in hex"] = []byte(hex.EncodeToString(secret))
		if raw, err := base64.StdEncoding.DecodeString(string(secret)); err == nil {
			needles[what+" decoded"] = raw
			needles[what+" decoded, in hex"] = []byte(hex.EncodeToString(raw))
		}
	}
	add("API token", []byte("lab-token"))
	add("passphrase", []byte(machinesPassphrase))
	for _, name := range []string{"fsn-1", "fsn-2"} {
		keys, err := v.Node(name)
		if err != nil {
			t.Fatal(err)
		}
		add(name+" machine key", keys.MachineKey.Reveal())
		add(name+" install key", keys.InstallKey.Reveal())
		add(name+" recovery key", keys.RecoveryKey.Reveal())
		add(name+" initramfs host key", pemBody(keys.InitramfsHostKey.Private.Reveal()))
		add(name+" system host key", pemBody(keys.SystemHostKey.Private.Reveal()))
	}
	return needles
}

// pemBody is a line from the middle of a PEM file, which no other key shares.
func pemBody(pem []byte) []byte {
	lines := strings.Split(string(pem), "\n")
	return []byte(lines[len(lines)/2])
}

// collectFiles reads the operator's folder but for the vault and the binaries, and the machines' consoles.
func (w *site) collectFiles(t *testing.T, places map[string][]byte) {
	t.Helper()
	read := func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil // a file that went away holds nothing
		}
		if data, err := os.ReadFile(path); err == nil {
			places[path] = data
		}
		return nil
	}
	filepath.WalkDir(filepath.Join(w.dir, ".fleet"), read)
	for _, pattern := range []string{filepath.Join(w.dir, "*.log"), filepath.Join(w.dir, "fleet.yaml"), filepath.Join(w.labDir, "machines", "*", "console.log")} {
		paths, _ := filepath.Glob(pattern)
		for _, p := range paths {
			if data, err := os.ReadFile(p); err == nil {
				places[p] = data
			}
		}
	}
	if len(places) < 5 {
		t.Fatalf("only %d places to search: %v", len(places), places)
	}
}

// collectProcesses reads every command line on this machine.
func collectProcesses(places map[string][]byte) {
	paths, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range paths {
		if data, err := os.ReadFile(p); err == nil {
			places[p] = data
		}
	}
}
