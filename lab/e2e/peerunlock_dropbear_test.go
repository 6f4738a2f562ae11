package e2e

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"popfleet/agents/bootchain"
	"popfleet/agents/initrd"
	"popfleet/agents/peerunlock"
	"popfleet/internal/dial"
	"popfleet/internal/shares"
	"popfleet/inventory/vault"
	"popfleet/lab/inprocess"
	"popfleet/playbooks"
	"popfleet/playbooks/spec"
	"popfleet/provision/initramfs"
	"popfleet/provision/remote"
)

// realDoor is what stands before a locked disk: dropbear itself, with a per-node part made by the agent, the scripts of
// the initramfs in busybox' shell, and a LUKS2 header that cryptsetup tries keys on. Only cryptroot-unlock is played: it
// needs an initramfs around it.
type realDoor struct {
	t    *testing.T
	root string
	addr string
	said bytes.Buffer // dropbear's log
}

func needs(t *testing.T, programs ...string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, for a mount namespace with a home of its own")
	}
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%s is not installed", p)
		}
	}
}

func (d *realDoor) put(name string, data []byte, mode fs.FileMode) {
	d.t.Helper()
	path := filepath.Join(d.root, name)
	must(d.t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(d.t, os.WriteFile(path, data, mode))
}

func (d *realDoor) script(name string) []byte {
	d.t.Helper()
	text, err := fs.ReadFile(initramfs.Files(), name)
	must(d.t, err)
	return text
}

func (d *realDoor) cryptsetup(stdin string, args ...string) {
	d.t.Helper()
	cmd := exec.Command("cryptsetup", args...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		d.t.Fatalf("cryptsetup %s: %v %s", args[0], err, out)
	}
}

// newRealDoor locks a disk behind these keys and starts dropbear with the files of the per-node part.
func newRealDoor(t *testing.T, part bootchain.NodePart, keys ...string) *realDoor {
	t.Helper()
	d := &realDoor{t: t, root: filepath.Join(t.TempDir(), "initramfs")}
	packed, err := part.Build()
	must(t, err)
	tree := &initrd.Tree{Keep: func(string) bool { return true }}
	must(t, tree.Add(bytes.NewReader(packed)))
	for _, name := range []string{bootchain.AuthorizedKeysFile, bootchain.PeersFile, bootchain.DropbearKeyFile} {
		e, ok := tree.Regular(name)
		if !ok {
			t.Fatalf("the per-node part has no %s", name)
		}
		d.put(name, e.Data, 0o600)
	}
	disk := filepath.Join(d.root, "disk.img")
	d.put("disk.img", nil, 0o600)
	must(t, os.Truncate(disk, 24<<20))
	quickKDF := []string{"--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"}
	d.cryptsetup(keys[0], append([]string{"luksFormat", "--batch-mode", "--type", "luks2", "--key-file", "-", disk}, quickKDF...)...)
	for i, k := range keys[1:] {
		d.put("new-key", []byte(k), 0o600)
		d.cryptsetup(keys[0], append([]string{"luksAddKey", "--batch-mode", "--key-slot", fmt.Sprint(4 + i), "--key-file", "-", disk, filepath.Join(d.root, "new-key")}, quickKDF...)...)
	}
	d.put("cryptroot/crypttab", []byte("fleet-root "+disk+" none luks\n"), 0o644)
	d.put("proc/uptime", []byte("100.25 90.00\n"), 0o644)
	d.put("etc/fleet/shares.sh", d.script("shares.sh"), 0o644)
	d.put("bin/fleet-door", d.script("fleet-door"), 0o755)
	d.put("bin/cryptroot-unlock", []byte("#!/bin/sh\necho try >>'"+d.root+"/tries'\n"+
		"cryptsetup open --type luks2 --test-passphrase --key-file - '"+disk+"' && echo 'cryptsetup: fleet-root set up successfully' >&2\n"), 0o755)
	shell := "sh"
	if path, err := exec.LookPath("busybox"); err == nil {
		shell = path + " ash"
	}
	d.put("forced", []byte("#!/bin/sh\nFLEET_DOOR_ROOT='"+d.root+"'; export FLEET_DOOR_ROOT\nexec "+shell+" '"+d.root+"/bin/fleet-door'\n"), 0o755)
	d.serve()
	return d
}

// serve runs dropbear with the options of fleet-unlock, on another port, where its login finds only our keys.
func (d *realDoor) serve() {
	d.t.Helper()
	me, err := user.Current()
	must(d.t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(d.t, err)
	d.addr = l.Addr().String()
	must(d.t, l.Close())
	ctx, cancel := context.WithCancel(context.Background())
	script := `mount -t tmpfs -o mode=700 none "$1" && mkdir -m 700 "$1/.ssh" && cp "$2/etc/fleet/authorized_keys" "$1/.ssh/authorized_keys" &&
exec dropbear -F -E -s -r "$2/etc/dropbear/dropbear_ed25519_host_key" -p "$3" -j -k -I 300 -c "$2/forced"`
	cmd := exec.CommandContext(ctx, "unshare", "-m", "sh", "-c", script, "sh", me.HomeDir, d.root, d.addr)
	cmd.Stderr = &d.said
	must(d.t, cmd.Start())
	d.t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // it was killed
		if d.t.Failed() {
			d.t.Log(d.said.String())
		}
	})
	waitUntil(d.t, func() bool {
		c, err := net.Dial("tcp", d.addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

func (d *realDoor) tries() int {
	text, _ := os.ReadFile(filepath.Join(d.root, "tries")) // absent: none
	return bytes.Count(text, []byte("\n"))
}

// silentFor plays the mesh: the ward was alive a while ago.
type silentFor time.Duration

func (s silentFor) Heard(context.Context) (map[string]time.Duration, error) {
	return map[string]time.Duration{"n-1": time.Duration(s)}, nil
}

// peer starts the agent's watcher of one peer and returns it.
func (d *realDoor) peer(name string, login vault.KeyPair, pin, share string) *peerunlock.Watcher {
	d.t.Helper()
	data, err := json.Marshal(playbooks.PeerUnlock{Version: 1, Node: name, Key: string(login.Private.Reveal()),
		Wards: []playbooks.Ward{{Node: "n-1", Address: d.addr, HostKey: pin, Share: share}}})
	must(d.t, err)
	file := filepath.Join(d.t.TempDir(), "peer-unlock.json")
	must(d.t, os.WriteFile(file, data, 0o600))
	w := peerunlock.New(peerunlock.Deps{Alive: silentFor(time.Minute), File: file, Every: 50 * time.Millisecond,
		Rules: peerunlock.Rules{Recently: time.Hour, Silent: time.Second, Pause: 100 * time.Millisecond, Hourly: 3}})
	ctx, cancel := context.WithCancel(d.t.Context())
	done := make(chan struct{})
	go func() { defer close(done); w.Run(ctx) }()
	d.t.Cleanup(func() { cancel(); <-done })
	return w
}

func says(w *peerunlock.Watcher, words string) func() bool {
	return func() bool {
		s := w.Status()
		return len(s) == 1 && (s[0].Last == words || strings.Contains(s[0].Holds, words))
	}
}

// TestPeersOpenARealDoor: two agents' SSH clients, real dropbear, the scripts of the initramfs, a real header.
func TestPeersOpenARealDoor(t *testing.T) {
	needs(t, "dropbear", "unshare", "cryptsetup")
	w := newWorld(t, inprocess.Options{}, 1)
	peers := []string{"a-1", "b-1", "c-1"}
	g, err := shares.New("n-1", 3, 2, peers, nil)
	must(t, err)
	_, host, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	hostKey, err := ssh.NewPublicKey(host.Public())
	must(t, err)
	pin := string(ssh.MarshalAuthorizedKey(hostKey))
	fleet, err := w.vault.FleetKey()
	must(t, err)
	part := bootchain.NodePart{HostKey: host, AuthorizedKeys: []string{fleet.Public}, LUKSUUID: "2b3c33b7",
		Network: spec.Network{MAC: "52:54:00:00:00:01"},
		Peers:   bootchain.Peers{Commitments: shares.Commitments{Node: "n-1", Generations: []shares.Commitment{g.Commit()}}.Text()}}
	logins := map[string]vault.KeyPair{}
	for _, p := range append(peers, "gone-1") {
		logins[p], err = w.vault.PeerLogin(p)
		must(t, err)
	}
	for _, p := range peers {
		part.Peers.Logins = append(part.Peers.Logins, spec.PeerLogin{Node: p, Key: logins[p].Public})
	}
	d := newRealDoor(t, part, "the-machine-key-of-thirty-two-bytes", g.Key)

	// A peer's login can hand over nothing else, whatever it asks for.
	id, err := logins["a-1"].Signer()
	must(t, err)
	outcome, words, err := remote.SendKey(t.Context(), dial.Direct(), remote.Locked{Addr: d.addr, HostKey: hostKey, Auth: id}, []byte("the-machine-key-of-thirty-two-bytes"))
	if err != nil || outcome == remote.Opened || !strings.Contains(words, "wrong share: peer a-1 sent something else") {
		t.Errorf("the machine key by a peer's login: %s %s %v", outcome, words, err)
	}
	waitUntil(t, says(d.peer("gone-1", logins["gone-1"], pin, g.Shares[0].Line), "it does not let this node in"))
	waitUntil(t, says(d.peer("b-1", logins["b-1"], pin, g.Shares[0].Line), "share 1 is not peer b-1's"))
	waitUntil(t, says(d.peer("a-1", logins["a-1"], pin, g.Shares[0].Line), string(peerunlock.Kept)))
	if d.tries() != 0 {
		t.Fatalf("%d tries before there were two shares", d.tries())
	}
	began := time.Now()
	waitUntil(t, says(d.peer("c-1", logins["c-1"], pin, g.Shares[2].Line), string(peerunlock.Opened)))
	if d.tries() != 1 {
		t.Errorf("%d tries", d.tries())
	}
	t.Logf("the second share opened it within %s", time.Since(began).Round(time.Millisecond))
}
