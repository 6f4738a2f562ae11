package e2e

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ed25519"
	"database/sql"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	_ "modernc.org/sqlite" // the journal is read as anyone with the file would read it

	"popfleet/inventory/vault"
	"popfleet/lab/inprocess"
)

// needles are secrets by name, each in every form it could be written in.
type needles map[string][][]byte

// add takes a secret and derives its forms: as it is, hex, and base64 at each of the three alignments within a longer
// text, without the ends that depend on its neighbours.
func (n needles) add(name string, secret []byte) {
	if len(secret) == 0 {
		return
	}
	forms := [][]byte{secret, []byte(hex.EncodeToString(secret)), []byte(strings.ToUpper(hex.EncodeToString(secret)))}
	for shift := range 3 {
		for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			text := enc.EncodeToString(append(make([]byte, shift), secret...))
			from, to := 0, len(text)
			if shift > 0 {
				from = shift + 1
			}
			if (len(secret)+shift)%3 != 0 {
				to--
			}
			forms = append(forms, []byte(text[from:to]))
		}
	}
	n[name] = append(n[name], forms...)
}

// addKey takes a private SSH key by its seed: every file format holds it as it is or in base64.
func (n needles) addKey(t testing.TB, name string, k vault.KeyPair) {
	t.Helper()
	raw, err := ssh.ParseRawPrivateKey(k.Private.Reveal())
	must(t, err)
	key, ok := raw.(*ed25519.PrivateKey)
	if !ok {
		t.Fatalf("%s is a %T", name, raw)
	}
	n.add(name, key.Seed())
}

// fleetNeedles are all secrets of the fleet that no log may hold.
func (w *cliWorld) fleetNeedles(t testing.TB) needles {
	t.Helper()
	n := needles{}
	n.add("API token", []byte(w.env["HCLOUD_TOKEN"]))
	n.add("passphrase", []byte(passphrase))
	v := w.openVault(t)
	for _, node := range []string{"fsn-1", "fsn-2"} {
		k, err := v.Node(node)
		must(t, err)
		n.add(node+" machine key", k.MachineKey.Reveal())
		n.add(node+" install key", k.InstallKey.Reveal())
		n.add(node+" recovery key", k.RecoveryKey.Reveal())
		for name, text := range map[string][]byte{"machine": k.MachineKey.Reveal(), "install": k.InstallKey.Reveal()} {
			raw, err := base64.StdEncoding.DecodeString(string(text))
			must(t, err)
			n.add(node+" "+name+" key, raw", raw)
		}
		n.addKey(t, node+" initramfs host key", k.InitramfsHostKey)
		n.addKey(t, node+" system host key", k.SystemHostKey)
	}
	fleetKey, err := v.FleetKey()
	must(t, err)
	n.addKey(t, "fleet key", fleetKey)
	ca, err := v.UserCA()
	must(t, err)
	n.addKey(t, "user CA", ca)
	stack, err := v.Passphrase("stack")
	must(t, err)
	n.add("stack passphrase", stack.Reveal())
	return n
}

// in names the secrets that data holds: as it is, without line breaks (PEM, JSON), and unpacked when it is gzip.
func (n needles) in(data []byte) (found []string) {
	texts := [][]byte{data, joined(data)}
	for at := bytes.Index(data, gzipMagic); at >= 0; {
		if plain := gunzip(data[at:]); plain != nil {
			texts = append(texts, plain, joined(plain))
		}
		next := bytes.Index(data[at+1:], gzipMagic)
		if next < 0 {
			break
		}
		at += 1 + next
	}
	for _, name := range slices.Sorted(maps.Keys(n)) {
		if slices.ContainsFunc(n[name], func(form []byte) bool {
			return slices.ContainsFunc(texts, func(text []byte) bool { return bytes.Contains(text, form) })
		}) {
			found = append(found, name)
		}
	}
	return found
}

var gzipMagic = []byte{0x1f, 0x8b, 0x08}

func gunzip(data []byte) []byte {
	r, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil
	}
	plain, _ := io.ReadAll(io.LimitReader(r, 64<<20)) // what could be read of a torn one counts too
	return plain
}

// joined is data without line breaks, also those that JSON spells out.
func joined(data []byte) []byte {
	for _, gap := range []string{"\n", "\r", `\n`} {
		data = bytes.ReplaceAll(data, []byte(gap), nil)
	}
	return data
}

// haystack is everything a run left behind or said, by where it is.
type haystack map[string][]byte

// folder adds every file below dir; databases also row by row, since a value may lie across two pages of the file.
func (h haystack) folder(t testing.TB, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a side file of the database that went with its last reader
		}
		h[path] = data
		if bytes.HasPrefix(data, []byte("SQLite format 3")) {
			h[path+" (rows)"] = rows(t, path)
		}
		return err
	})
	must(t, err)
}

// rows is every value of every table.
func rows(t testing.TB, path string) []byte {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?mode=ro")
	must(t, err)
	defer db.Close()
	var tables []string
	for _, v := range query(t, db, "SELECT name FROM sqlite_master WHERE type = 'table'") {
		tables = append(tables, string(v))
	}
	var out bytes.Buffer
	for _, table := range tables {
		for _, v := range query(t, db, fmt.Sprintf("SELECT * FROM %q", table)) {
			out.Write(v)
			out.WriteByte(0)
		}
	}
	return out.Bytes()
}

func query(t testing.TB, db *sql.DB, text string) (values [][]byte) {
	t.Helper()
	r, err := db.QueryContext(t.Context(), text)
	must(t, err)
	defer r.Close()
	columns, err := r.Columns()
	must(t, err)
	for r.Next() {
		row := make([]any, len(columns))
		for i := range row {
			row[i] = new(sql.RawBytes)
		}
		must(t, r.Scan(row...))
		for _, v := range row {
			values = append(values, bytes.Clone(*v.(*sql.RawBytes)))
		}
	}
	must(t, r.Err())
	return values
}

// search fails the test for every secret found, naming where but not what.
func (h haystack) search(t testing.TB, n needles) (sizeBytes int) {
	t.Helper()
	for _, where := range slices.Sorted(maps.Keys(h)) {
		sizeBytes += len(h[where])
		for _, name := range n.in(h[where]) {
			t.Errorf("%s holds the %s", where, name)
		}
	}
	return sizeBytes
}

// watchProcesses collects the command lines of all our descendants, and the environment of every pulumi among them, until
// ctx ends.
func (w *cliWorld) watchProcesses(ctx context.Context, h haystack) {
	tick := time.NewTicker(15 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, path := range all {
			line, err := os.ReadFile(path)
			if err != nil || len(line) == 0 || !descendant(filepath.Dir(path)) {
				continue // it has ended, or it is somebody else's
			}
			h["command line "+string(bytes.ReplaceAll(line, []byte{0}, []byte(" ")))] = line
			if bytes.HasPrefix(line, []byte(filepath.Dir(w.bin)+"/pulumi")) {
				env, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "environ"))
				h["environment of "+path] = env
			}
		}
		<-tick.C
	}
}

// descendant says whether the process with this folder in /proc comes from this test.
func descendant(dir string) bool {
	for range 10 {
		stat, err := os.ReadFile(filepath.Join(dir, "stat"))
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])) // the name before it may hold anything
		if err != nil || len(fields) < 2 {
			return false
		}
		if fields[1] == fmt.Sprint(os.Getpid()) {
			return true
		}
		dir = filepath.Join("/proc", fields[1])
	}
	return false
}

// TestCLISecretsStayHidden runs a fleet through its life and searches all that it left behind, said, and showed of
// itself while it ran.
func TestCLISecretsStayHidden(t *testing.T) {
	t.Parallel()
	w := newCLIWorld(t, inprocess.Options{})
	processes := haystack{}
	ctx, cancel := context.WithCancel(t.Context())
	var watch sync.WaitGroup
	watch.Go(func() { w.watchProcesses(ctx, processes) })
	h := haystack{}
	for i, args := range [][]string{{"plan"}, {"up", "--yes", "--json"}, {"up", "--yes"}, {"plan", "--json"}, {"ssh", "fsn-1", "true"}} {
		o := w.run(t, args...)
		h[fmt.Sprintf("stdout of call %d %v", i, args)], h[fmt.Sprintf("stderr of call %d %v", i, args)] = []byte(o.stdout), []byte(o.stderr)
	}
	n := w.fleetNeedles(t)
	wrong := w.env["FLEET_PASSPHRASE"]
	w.env["FLEET_PASSPHRASE"] = wrong + "?"
	o := w.want(t, 1, "plan")
	h["said of a wrong passphrase"] = []byte(o.stdout + o.stderr)
	w.env["FLEET_PASSPHRASE"] = wrong
	cancel()
	watch.Wait()
	h.folder(t, w.path(".fleet"))
	h.folder(t, w.env["TMPDIR"])
	h.folder(t, w.env["HOME"])
	sizeBytes := h.search(t, n)
	pulumis := 0
	for where := range processes {
		if strings.HasPrefix(where, "command line "+filepath.Dir(w.bin)+"/pulumi") {
			pulumis++
		}
		if strings.HasPrefix(where, "environment of") {
			// The stack's passphrase has to be there: Pulumi takes it no other way. Nobody but its owner can read it.
			delete(n, "stack passphrase")
		}
	}
	lines := processes.search(t, n)
	if pulumis == 0 || len(h) < 15 {
		t.Errorf("%d command lines of pulumi, %d places searched: the search missed what it was made for", pulumis, len(h))
	}
	t.Logf("%d secrets in %d forms: none in %d places (%d bytes), none in %d processes (%d bytes)", len(n), 9*len(n), len(h), sizeBytes, len(processes), lines)
}

// TestCLISecretsInCrashDump: a run that is asked for its stacks in the middle shows no secret in them.
func TestCLISecretsInCrashDump(t *testing.T) {
	t.Parallel()
	for _, op := range []string{"install", "unlock", "seal"} {
		t.Run(op, func(t *testing.T) {
			t.Parallel()
			w := newCLIWorld(t, inprocess.Options{})
			w.env["GOTRACEBACK"] = "all"
			c := w.start(t, "up", "--yes", "--json")
			if !c.until(t, func(e cliEvent) bool { return e.Kind == "node" && e.Data["kind"] == "begin" && e.Data["op"] == op }) {
				t.Fatalf("%s never began: %s", op, c.wait(t))
			}
			must(t, c.cmd.Process.Signal(syscall.SIGQUIT))
			o := c.wait(t)
			if !strings.Contains(o.stderr, "SIGQUIT") || !strings.Contains(o.stderr, "goroutine ") {
				t.Fatalf("no dump: %s", o)
			}
			h := haystack{"the dump": []byte(o.stderr), "stdout": []byte(o.stdout)}
			h.folder(t, w.path(".fleet"))
			h.search(t, w.fleetNeedles(t))
		})
	}
}

// TestCLISecretSearchFinds is the positive control: planted in every form, a secret is found.
func TestCLISecretSearchFinds(t *testing.T) {
	secret := []byte("a planted secret of some length")
	n := needles{}
	n.add("planted", secret)
	var zipped bytes.Buffer
	zip := gzip.NewWriter(&zipped)
	_, err := zip.Write(append([]byte("before it "), secret...))
	must(t, err)
	must(t, zip.Close())
	dir := t.TempDir()
	plant := func(name string, data []byte) { must(t, os.WriteFile(filepath.Join(dir, name), data, 0o600)) }
	plant("raw", append([]byte("x"), secret...))
	plant("hex", []byte(hex.EncodeToString(secret)))
	plant("gzip", append([]byte("header"), zipped.Bytes()...))
	for shift := range 3 {
		text := base64.StdEncoding.EncodeToString([]byte("abc"[:shift] + string(secret) + "and more"))
		plant(fmt.Sprint("base64-", shift), []byte(text[:20]+`\n`+text[20:]))
	}
	db, err := sql.Open("sqlite", filepath.Join(dir, "db"))
	must(t, err)
	_, err = db.ExecContext(t.Context(), "CREATE TABLE kept (v BLOB)")
	must(t, err)
	_, err = db.ExecContext(t.Context(), "INSERT INTO kept VALUES (?)", append(bytes.Repeat([]byte("filler"), 5000), secret...))
	must(t, err)
	must(t, db.Close())
	h := haystack{}
	h.folder(t, dir)
	for where, data := range h {
		if len(n.in(data)) != 1 && where != filepath.Join(dir, "db") {
			t.Errorf("not found in %s", where)
		}
	}
	if len(h) != 8 {
		t.Errorf("%d places", len(h))
	}
	if found := n.in([]byte("nothing of the kind")); found != nil {
		t.Errorf("found %v where there is none", found)
	}
}
