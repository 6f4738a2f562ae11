package initramfs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

const rightKey = "the-right-key"

// door is the script in a tree of its own: cryptsetup and cryptroot-unlock are played by scripts that count.
type door struct {
	t    *testing.T
	root string
	argv []string
}

// newDoor runs the script by busybox' shell, as an initramfs does, where there is one, else by sh.
func newDoor(t *testing.T) *door {
	t.Helper()
	d := &door{t: t, root: t.TempDir()}
	text, err := fs.ReadFile(Files(), "fleet-door")
	if err != nil {
		t.Fatal(err)
	}
	d.put("bin/fleet-door", string(text), 0o755)
	d.put("bin/cryptsetup", `#!/bin/sh
echo "$*" >>"`+d.root+`/tested"
key="$(cat; echo .)"
[ "$key" = "`+rightKey+`." ] && exit 0
[ -e "`+d.root+`/sick" ] && exit 3
exit 2
`, 0o755)
	d.put("bin/cryptroot-unlock", `#!/bin/sh
echo try >>"`+d.root+`/tries"
[ -e "`+d.root+`/slow" ] && until [ -e "`+d.root+`/go" ]; do sleep 0.02; done
key="$(cat; echo .)"
[ -e "`+d.root+`/early" ] && { echo "Try again later" >&2; exit 1; }
[ "$key" = "`+rightKey+`." ] || { echo "cryptsetup: cryptsetup failed, bad password or options?" >&2; exit 1; }
echo "cryptsetup: fleet-root set up successfully" >&2
`, 0o755)
	d.put("proc/uptime", "100.25 90.00\n", 0o644)
	d.put("cryptroot/crypttab", "fleet-root UUID=2b3c33b7 none luks,discard,initramfs\n", 0o644)
	d.put("dev/disk/by-uuid/2b3c33b7", "", 0o644)
	d.argv = []string{"sh"}
	if busybox, err := exec.LookPath("busybox"); err == nil {
		d.argv = []string{busybox, "ash"}
	}
	return d
}

func (d *door) put(name, text string, mode fs.FileMode) {
	d.t.Helper()
	path := filepath.Join(d.root, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), mode)); err != nil {
		d.t.Fatal(err)
	}
}

// knock hands over a key and returns what the script said and its exit code.
func (d *door) knock(key io.Reader) (words string, code int) {
	d.t.Helper()
	return d.as("", key)
}

// as is knock by the login whose key has this comment.
func (d *door) as(comment string, key io.Reader) (words string, code int) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	argv := append(d.argv[1:len(d.argv):len(d.argv)], filepath.Join(d.root, "bin/fleet-door"))
	cmd := exec.CommandContext(ctx, d.argv[0], argv...)
	cmd.Env = append(os.Environ(), "FLEET_DOOR_ROOT="+d.root)
	if comment != "" {
		cmd.Env = append(cmd.Env, "SSH_PUBKEYINFO="+comment)
	}
	cmd.Stdin = key
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		d.t.Error(err)
	}
	return said.String(), cmd.ProcessState.ExitCode()
}

func (d *door) count(file string) int {
	text, _ := os.ReadFile(filepath.Join(d.root, file)) // absent: none
	return bytes.Count(text, []byte("\n"))
}

func TestTheRightKeyOpens(t *testing.T) {
	for name, key := range map[string]string{"as it is": rightKey, "with a newline": rightKey + "\n"} {
		d := newDoor(t)
		words, code := d.knock(strings.NewReader(key))
		if code != 0 || !strings.Contains(words, "set up successfully") || d.count("tries") != 1 {
			t.Errorf("%s: exit %d, %d tries: %s", name, code, d.count("tries"), words)
		}
		// Whoever comes after it is told so, and uses up nothing.
		if words, code := d.knock(strings.NewReader(rightKey)); code != 0 || !strings.Contains(words, "has been opened") || d.count("tries") != 1 {
			t.Errorf("%s, again: exit %d, %d tries: %s", name, code, d.count("tries"), words)
		}
		if text, err := os.ReadFile(filepath.Join(d.root, "tested")); err != nil || strings.Contains(string(text), rightKey) {
			t.Errorf("the key is among cryptsetup's arguments: %s %v", text, err)
		}
	}
}

func TestWhatIsNotTheKeyBurnsNoTry(t *testing.T) {
	for name, c := range map[string]struct {
		key   string
		words string
		code  int
	}{
		"nothing":        {"", "no key came", 65},
		"newlines":       {"\n\n", "no key came", 65},
		"another key":    {"a-stale-key", "fleet: wrong key", 65},
		"one cut short":  {rightKey[:5], "fleet: wrong key", 65},
		"far too much":   {strings.Repeat("x", 5000), "longer than any", 65},
		"shell in a key": {"$(touch /tmp/x); `id` ' \" %s \\n", "fleet: wrong key", 65},
	} {
		d := newDoor(t)
		words, code := d.knock(strings.NewReader(c.key))
		if code != c.code || !strings.Contains(words, c.words) || !strings.Contains(words, "no try was used") || d.count("tries") != 0 {
			t.Errorf("%s: exit %d, %d tries: %s", name, code, d.count("tries"), words)
		}
	}
}

func TestAfterAWrongKeyThereIsAPause(t *testing.T) {
	d := newDoor(t)
	d.knock(strings.NewReader("wrong"))
	if words, code := d.knock(strings.NewReader(rightKey)); code != 75 || !strings.Contains(words, "fleet: busy: a wrong key") {
		t.Errorf("at once: exit %d: %s", code, words)
	}
	d.put("proc/uptime", "119.99 90.00\n", 0o644)
	if _, code := d.knock(strings.NewReader(rightKey)); code != 75 {
		t.Errorf("a moment before the pause is over: exit %d", code)
	}
	d.put("proc/uptime", "120.30 90.00\n", 0o644)
	if words, code := d.knock(strings.NewReader(rightKey)); code != 0 || d.count("tries") != 1 {
		t.Errorf("after the pause: exit %d: %s", code, words)
	}
}

func TestWhatIsNoVerdictMayBeAskedAgain(t *testing.T) {
	d := newDoor(t)
	disk := filepath.Join(d.root, "dev/disk/by-uuid/2b3c33b7")
	if err := os.Remove(disk); err != nil {
		t.Fatal(err)
	}
	if words, code := d.knock(strings.NewReader(rightKey)); code != 75 || !strings.Contains(words, "not there yet; try again later") {
		t.Errorf("an array that is late: exit %d: %s", code, words)
	}
	d.put("dev/disk/by-uuid/2b3c33b7", "", 0o644)
	d.put("sick", "", 0o644)
	if words, code := d.knock(strings.NewReader("wrong")); code != 75 || !strings.Contains(words, "could not be tried") {
		t.Errorf("cryptsetup that fails: exit %d: %s", code, words)
	}
	if d.count("tries") != 0 {
		t.Errorf("%d tries", d.count("tries"))
	}
	d.put("early", "", 0o644)
	if words, code := d.knock(strings.NewReader(rightKey)); code != 1 || !strings.Contains(words, "Try again later") {
		t.Errorf("no prompt yet: exit %d: %s", code, words)
	}
	if err := os.Remove(filepath.Join(d.root, "early")); err != nil {
		t.Fatal(err)
	}
	if words, code := d.knock(strings.NewReader(rightKey)); code != 0 {
		t.Errorf("then: exit %d: %s", code, words)
	}
}

// TestManyUnlockersBurnOneTry: unlockers that know nothing of each other come while the first is at work.
func TestManyUnlockersBurnOneTry(t *testing.T) {
	d := newDoor(t)
	d.put("slow", "", 0o644)
	const unlockers = 8
	var mu sync.Mutex
	codes := map[int]int{}
	tell := func(code int) {
		mu.Lock()
		defer mu.Unlock()
		codes[code]++
		if codes[75] == unlockers-1 { // all others were sent away
			d.put("go", "", 0o644)
		}
	}
	var all sync.WaitGroup
	for range unlockers {
		all.Go(func() {
			words, code := d.knock(strings.NewReader(rightKey))
			if code == 75 && !strings.Contains(words, "fleet: busy: another unlocker is here") {
				t.Error(words)
			}
			tell(code)
		})
	}
	all.Wait()
	if codes[0] != 1 || codes[75] != unlockers-1 || d.count("tries") != 1 {
		t.Errorf("exit codes %v, %d tries", codes, d.count("tries"))
	}
}

// TestAnUnlockerThatSendsNothingKeepsNobodyOut: its connection is open, its key does not come.
func TestAnUnlockerThatSendsNothingKeepsNobodyOut(t *testing.T) {
	d := newDoor(t)
	hangs, end := io.Pipe()
	waited := make(chan int)
	go func() {
		_, code := d.knock(hangs)
		waited <- code
	}()
	if words, code := d.knock(strings.NewReader(rightKey)); code != 0 {
		t.Errorf("exit %d: %s", code, words)
	}
	end.Close()
	if code := <-waited; code != 65 {
		t.Errorf("the one without a key: exit %d", code)
	}
}

// TestAnUnlockerThatDiedKeepsNobodyOut: a lock ends with its process, also when the id belongs to another one by now.
func TestAnUnlockerThatDiedKeepsNobodyOut(t *testing.T) {
	for name, holder := range map[string]string{"gone": "4194304", "another process": strconv.Itoa(os.Getpid()), "no id": ""} {
		d := newDoor(t)
		d.put("run/fleet-door/1", holder+"\n", 0o644)
		if words, code := d.knock(strings.NewReader(rightKey)); code != 0 {
			t.Errorf("%s: exit %d: %s", name, code, words)
		}
	}
}
