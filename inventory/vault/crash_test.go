package vault

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const crashDir = "VAULT_TEST_CRASH_DIR"

// A process that makes keys is killed again and again. What it said it had must be what the vault holds, and the vault
// must open every time.
func TestKilledWriterLosesNothing(t *testing.T) {
	if dir := os.Getenv(crashDir); dir != "" {
		makeKeysUntilKilled(dir)
		return
	}
	v := newTestVault(t)
	for round := range 8 {
		said := runAndKill(t, v.dir, time.Duration(20+15*round)*time.Millisecond)
		again := reopen(t, v)
		for name, public := range said {
			keys, err := again.Node(name)
			if err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
			if keys.SystemHostKey.Public != public {
				t.Fatalf("round %d: %s has another key than its maker was given", round, name)
			}
		}
		readAll(t, again)
	}
}

// runAndKill starts the writer, kills it some time after its first word, and returns what it said: node → public key.
func runAndKill(t *testing.T, dir string, after time.Duration) map[string]string {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilledWriterLosesNothing$")
	cmd.Env = append(os.Environ(), crashDir+"="+dir)
	out := &firstWord{written: make(chan struct{})}
	cmd.Stdout = out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-out.written:
	case <-time.After(time.Minute):
		t.Error("the writer said nothing in a minute")
	}
	kill := time.NewTimer(after)
	<-kill.C
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed, as it should be
	said := map[string]string{}
	lines := strings.Split(out.text.String(), "\n")
	for _, line := range lines[:len(lines)-1] { // the last may be cut
		if name, public, ok := strings.Cut(line, " "); ok {
			said[name] = public
		}
	}
	return said
}

// firstWord collects a child's output and closes written at the first of it.
type firstWord struct {
	text    strings.Builder
	written chan struct{}
	began   bool
}

func (w *firstWord) Write(p []byte) (int, error) {
	if !w.began {
		w.began = true
		close(w.written)
	}
	return w.text.Write(p)
}

func makeKeysUntilKilled(dir string) {
	v, err := Open(dir, passphrase)
	for i := 0; err == nil; i++ {
		name := fmt.Sprintf("fsn-%d", i)
		var keys *NodeKeys
		if keys, err = v.Node(name); err != nil {
			break
		}
		fmt.Println(name, keys.SystemHostKey.Public)
		if err = v.SetNodeState(name, NodeState{ServerID: "1"}); err == nil {
			_, err = v.Leaf(LeafSpec{Service: "dns", Node: name})
		}
	}
	fmt.Println("error", err)
}

// readAll reads every encrypted file; half of one would not authenticate.
func readAll(t *testing.T, v *Vault) {
	t.Helper()
	err := filepath.WalkDir(v.dir, func(path string, d fs.DirEntry, err error) error {
		name := filepath.Base(path)
		if err != nil || d.IsDir() || name == identityFile || !strings.HasSuffix(name, ".age") {
			return err
		}
		rel, err := filepath.Rel(v.dir, path)
		if err != nil {
			return err
		}
		sealed, err := readBounded(path)
		if err != nil {
			return err
		}
		_, err = v.files.open(filepath.ToSlash(rel), sealed)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Forget is interrupted between its rename and its delete; opening finishes it.
func TestInterruptedForgetIsFinished(t *testing.T) {
	v := newTestVault(t)
	if _, err := v.Node("fsn-1"); err != nil {
		t.Fatal(err)
	}
	gone := v.path("nodes/" + forgottenPrefix + "fsn-1")
	if err := os.Rename(v.path("nodes/fsn-1"), gone); err != nil {
		t.Fatal(err)
	}
	reopen(t, v)
	if _, err := os.Stat(gone); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("forgotten keys are still there: %v", err)
	}
}

// Whatever lies in a file, reading it gives an error or the value, never a panic.
func FuzzOpenFile(f *testing.F) {
	id := newFuzzSealer(f)
	good, err := id.seal("nodes/fsn-1/state.age", []byte(`{"sealed":true}`))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good, false)
	f.Add([]byte(sealMagic+"AAAA\n{}"), true)
	f.Add([]byte("\n"), true)
	f.Add([]byte("age-encryption.org/v1\n-> X25519 \n--- \n"), false)
	f.Fuzz(func(t *testing.T, data []byte, wrap bool) {
		if wrap { // past the encryption, to the line with the MAC
			var err error
			if data, err = encrypt(data, id.recipients...); err != nil {
				t.Fatal(err)
			}
		}
		body, err := id.open("nodes/fsn-1/state.age", data)
		if err == nil && string(body) != `{"sealed":true}` {
			t.Errorf("authenticated what was never sealed: %q", body)
		}
	})
}
