//go:build e2e

package qemu

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"popfleet/internal/pace"
	"popfleet/lab/machine"
	"popfleet/lab/netns"
	"popfleet/lab/rescue"
)

// rig is one machine in a namespace of the test's own.
type rig struct {
	t       *testing.T
	ns      *netns.Namespace
	dir     string
	b       *Backend
	config  machine.Config
	signer  ssh.Signer
	rescue  atomic.Bool // what NextBoot says
	boots   atomic.Int32
	stopped atomic.Int32
	shown   ssh.PublicKey // the host key of the last login
	flaws   machine.Boot  // what is wrong with the next boot; its host keys are the rescue system's
}

func newRig(t *testing.T) *rig {
	ctx := t.Context()
	name := fmt.Sprintf("lab-test-%d", os.Getpid())
	ns, err := netns.Create(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, ns: ns, dir: t.TempDir()}
	t.Cleanup(func() {
		r.b.Close()
		KillAll(r.dir)
		netns.Delete(context.Background(), name)
	})
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	if r.signer, err = ssh.NewSignerFromKey(private); err != nil {
		t.Fatal(err)
	}
	r.config = machine.Config{Name: "9", Address: netip.MustParseAddr("198.18.0.9"), MAC: net.HardwareAddr{0x96, 0, 0, 0, 0, 9},
		Prefix6: netip.MustParsePrefix("2001:db8:1:9::/64"), DHCP: true, Disks: 2, DiskGB: 3, NextBoot: r.nextBoot, Stopped: func() { r.stopped.Add(1) }}
	r.rescue.Store(true)
	r.open()
	return r
}

func (r *rig) open() {
	b, err := New(r.t.Context(), Options{Dir: r.dir, Namespace: r.ns, Rescue: rescue.Options{
		Progress: func(step string, took time.Duration) { r.t.Log("build", step, took.Round(time.Second)) }}})
	if err != nil {
		r.t.Fatal(err)
	}
	r.b = b
}

func (r *rig) nextBoot() machine.Boot {
	r.boots.Add(1)
	b := r.flaws
	b.Rescue, b.AuthorizedKeys = r.rescue.Load(), []string{string(ssh.MarshalAuthorizedKey(r.signer.PublicKey()))}
	return b
}

// await polls until ok, for as long as an emulated machine may need on a busy host.
func (r *rig) await(what string, m machine.Machine, ok func() bool) {
	r.t.Helper()
	started := time.Now()
	for !ok() {
		if time.Since(started) > pace.Emulated.Of(time.Minute) {
			tail, _ := Tail(m.Console(), 15)
			r.t.Fatalf("no %s after %s; console:\n%s", what, time.Since(started), strings.Join(tail, "\n"))
		}
		<-time.After(100 * time.Millisecond)
	}
	r.t.Logf("%s after %.1f s", what, time.Since(started).Seconds())
}

func (r *rig) ssh(m machine.Machine) *ssh.Client {
	r.t.Helper()
	var client *ssh.Client
	r.await("ssh", m, func() bool {
		ctx, cancel := context.WithTimeout(r.t.Context(), 10*time.Second)
		defer cancel()
		conn, err := m.Dial(ctx, 22)
		if err != nil {
			return false
		}
		conn.SetDeadline(time.Now().Add(pace.Emulated.Of(30 * time.Second)))
		c, chans, reqs, err := ssh.NewClientConn(conn, "rescue", &ssh.ClientConfig{User: "root",
			Auth: []ssh.AuthMethod{ssh.PublicKeys(r.signer)}, HostKeyCallback: func(_ string, _ net.Addr, k ssh.PublicKey) error {
				r.shown = k
				return nil
			}})
		if err != nil {
			return false
		}
		conn.SetDeadline(time.Time{})
		client = ssh.NewClient(c, chans, reqs)
		return true
	})
	return client
}

func (r *rig) run(c *ssh.Client, command string) string {
	r.t.Helper()
	s, err := c.NewSession()
	if err != nil {
		r.t.Fatal(err)
	}
	defer s.Close()
	out, err := s.CombinedOutput(command)
	if err != nil {
		r.t.Errorf("%s: %v", command, err)
	}
	return string(out)
}

// TestMachine walks one machine through its life. It needs root; everything it makes is its own.
func TestMachine(t *testing.T) {
	r := newRig(t)
	m, err := r.b.Create(t.Context(), r.config)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(r.b.Kind())
	if err := m.PowerOn(t.Context()); err != nil {
		t.Fatal(err)
	}
	c := r.ssh(m)
	defer c.Close()
	r.checkRescue(m, c)
	r.checkNetwork(c)

	// a lab that dies leaves its machines running; the next one takes them over
	if err := r.b.Close(); err != nil {
		t.Fatal(err)
	}
	r.open()
	m2, found, err := r.b.Reattach(t.Context(), r.config)
	if err != nil || !found || !m2.Running() || m2.Serials()[1] != m.Serials()[1] {
		t.Fatalf("reattached %v, %v", found, err)
	}
	if up := r.run(c, "echo still here"); up != "still here\n" || r.boots.Load() != 1 {
		t.Errorf("%q after %d boots", up, r.boots.Load())
	}
	m = m2

	// the guest's own reboot asks what is next; an empty disk boots nothing
	r.rescue.Store(false)
	r.run(c, "sync; nohup sh -c 'sleep 1; reboot -f' >/dev/null 2>&1 &")
	r.await("second boot", m, func() bool { return r.boots.Load() == 2 })
	r.await("firmware finds no system", m, func() bool { s, _ := Stage(m.Console()); return s == "firmware: no bootable disk" })

	// the guest switches itself off
	r.rescue.Store(true)
	if err := m.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	c = r.ssh(m)
	defer c.Close()
	if got := r.run(c, "head -c 6 /dev/nvme1n1"); got != "marked" {
		t.Errorf("second disk holds %q: what was written before the plug was pulled is lost", got)
	}
	r.run(c, "nohup sh -c 'sleep 1; poweroff -f' >/dev/null 2>&1 &")
	r.await("power off", m, func() bool { return r.stopped.Load() == 1 && !m.Running() })
	if err := m.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(r.dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func (r *rig) checkRescue(m machine.Machine, c *ssh.Client) {
	r.t.Helper()
	out := r.run(c, "hostname; cat /etc/hetzner-build; cat /sys/block/nvme?n1/device/serial; free -m; for t in sgdisk cryptsetup mdadm mkfs.ext4 mkfs.vfat zstd chroot; do command -v $t >/dev/null || echo no $t; done")
	for _, want := range append([]string{"rescue\n", "popfleet lab rescue"}, m.Serials()...) {
		if !strings.Contains(out, want) {
			r.t.Errorf("no %q in:\n%s", want, out)
		}
	}
	if strings.Contains(out, "no ") {
		r.t.Errorf("tools are missing:\n%s", out)
	}
	r.t.Log(out)
	if s, err := Stage(m.Console()); err != nil || !strings.HasPrefix(s, "rescue") {
		r.t.Errorf("stage %q, %v", s, err)
	}
	r.run(c, "printf marked | dd of=/dev/nvme1n1 conv=fsync 2>/dev/null") // survives a pulled plug, see above
}

// checkNetwork asks the machine for its routes and for what DHCP would give it, and talks to it over IPv6.
func (r *rig) checkNetwork(c *ssh.Client) {
	r.t.Helper()
	routes := r.run(c, "ip -4 addr show eth0; ip route; ping -c1 -W20 198.18.0.1 >/dev/null && echo lab answers")
	for _, want := range []string{"inet 198.18.0.9/32", "default via 172.31.1.1 dev eth0", "lab answers"} {
		if !strings.Contains(routes, want) {
			r.t.Errorf("no %q in:\n%s", want, routes)
		}
	}
	script := "#!/bin/sh\n[ \"$1\" = bound ] && echo \"$ip/$mask router $router routes $staticroutes\"\nexit 0\n"
	dhcp := r.run(c, "cat >/run/show <<'E'\n"+script+"E\nchmod +x /run/show; busybox udhcpc -f -n -q -t 10 -i eth0 -s /run/show -O staticroutes 2>&1")
	if want := "198.18.0.9/32 router 172.31.1.1 routes 172.31.1.1/32 0.0.0.0 0.0.0.0/0 172.31.1.1"; !strings.Contains(dhcp, want) {
		r.t.Errorf("no %q in:\n%s", want, dhcp)
	}
	ctx, cancel := context.WithTimeout(r.t.Context(), 30*time.Second)
	defer cancel()
	conn, err := r.ns.Dial(ctx, "tcp6", "[2001:db8:1:9::1]:22")
	if err != nil {
		r.t.Errorf("ipv6: %v", err)
		return
	}
	conn.Close()
}
