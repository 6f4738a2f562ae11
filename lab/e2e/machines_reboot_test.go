//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"
)

// servesAnew waits until the controller hears of another boot than the given one with every service healthy.
func (w *site) servesAnew(t *testing.T, name, boot string) {
	t.Helper()
	eventually(t, 20*time.Minute, func() string {
		n := node(t, w.status(t), name)
		if n.Report == nil || n.Report.BootID == boot {
			return "no report of a new boot; the lock is " + n.Lock.State + " " + n.Lock.Why
		}
		for _, s := range n.Report.Services {
			if !s.Healthy {
				return s.Name + " is not healthy: " + s.Reason
			}
		}
		return ""
	})
}

// kernelUpdate installs Debian's next kernel on a node as its administrator would, asks whether the node would come back,
// reboots it from within, and touches nothing more: it is to run the new kernel, unlocked by the controller.
func (w *site) kernelUpdate(t *testing.T) {
	deb := newerKernel(t)
	before := strings.TrimSpace(w.fleet(t, time.Minute, "ssh", "fsn-1", "uname -r").want(t, 0, "uname").out)
	boot := node(t, w.status(t), "fsn-1").Report.BootID
	file, err := os.Open(deb)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	push := exec.CommandContext(t.Context(), w.bin("fleet"), "-C", w.dir, "ssh", "fsn-1", "cat > /var/tmp/kernel.deb")
	push.Env, push.Stdin = w.env, file
	if out, err := push.CombinedOutput(); err != nil {
		t.Fatalf("push the kernel: %v\n%s", err, out)
	}
	began := time.Now()
	r := w.fleet(t, 20*time.Minute, "ssh", "fsn-1", "apt-get install -y /var/tmp/kernel.deb 2>&1 && rm /var/tmp/kernel.deb").want(t, 0, "install the kernel")
	figure(t, "a new kernel: package, initramfs and the hook's check", time.Since(began))
	t.Logf("%s", tail(r.out))
	check := w.fleet(t, 10*time.Minute, "check", "reboot", "fsn-1").want(t, 0, "check reboot")
	figure(t, "check reboot, one node", check.took)

	began = time.Now()
	w.fleet(t, 2*time.Minute, "ssh", "fsn-1", "systemctl reboot") // the connection may end before the answer
	w.servesAnew(t, "fsn-1", boot)
	figure(t, "reboot into the new kernel, to serving again", time.Since(began))
	after := strings.TrimSpace(w.fleet(t, time.Minute, "ssh", "fsn-1", "uname -r").want(t, 0, "uname").out)
	if after == before {
		t.Errorf("it still runs %s", after)
	}
	t.Logf("kernel %s, then %s", before, after)
	if s := node(t, w.status(t), "fsn-1"); s.Suspect != nil {
		t.Errorf("a package's kernel made it suspect: %+v", s.Suspect)
	}
}

// newerKernel fetches the newest kernel for virtual machines that Debian has beside the image's own line.
func newerKernel(t *testing.T) string {
	t.Helper()
	names, err := exec.Command("apt-cache", "pkgnames", "linux-image-6.12").Output()
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, n := range strings.Fields(string(names)) {
		if strings.HasSuffix(n, "-cloud-amd64") && !strings.Contains(n, "6.12-cloud") && !strings.Contains(n, "unsigned") {
			found = append(found, n)
		}
	}
	if len(found) == 0 {
		t.Skip("this machine's Debian mirror has no second kernel line to update to")
	}
	sort.Slice(found, func(i, j int) bool { return kernelNumber(found[i]) < kernelNumber(found[j]) })
	dir := t.TempDir()
	get := exec.Command("apt-get", "download", found[len(found)-1])
	get.Dir = dir
	if out, err := get.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", get.Args, err, out)
	}
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(debs) != 1 {
		t.Fatalf("%v: %v", debs, err)
	}
	return debs[0]
}

// kernelNumber is the last number of a version such as linux-image-6.12.111+deb12-cloud-amd64.
func kernelNumber(pkg string) (n int) {
	fmt.Sscanf(strings.TrimPrefix(pkg, "linux-image-6.12."), "%d", &n)
	return n
}

// peersOpen takes the controller away and cuts a node's power: the two others together are to open it.
func (w *site) peersOpen(t *testing.T) {
	s := w.status(t, "--wait", "10m")
	address, boot := node(t, s, "fsn-1").Address, node(t, s, "fsn-1").Report.BootID
	w.stopController()
	began := time.Now()
	if err := w.lab.Power(t.Context(), "demo-fsn-1", "cycle"); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Minute, func() string {
		out, err := exec.CommandContext(t.Context(), "curl", "-sS", "--fail", "--max-time", "20", "--socks5-hostname", labSocks, "--cacert", w.ca,
			"--connect-to", "demo.test:443:"+address+":443", "https://demo.test/").CombinedOutput()
		if err != nil {
			return "fsn-1 does not serve: " + string(out)
		}
		return ""
	})
	figure(t, "power cut with no controller, to serving, opened by peers", time.Since(began))
	w.startController(t)
	w.servesAnew(t, "fsn-1", boot)
	w.status(t, "--wait", "12m")
}

// replace moves the cloud node to another server.
func (w *site) replace(t *testing.T) {
	before := w.serverID(t, "demo-fsn-1")
	r := w.fleet(t, 40*time.Minute, "replace", "fsn-1", "--yes").want(t, 0, "replace")
	figure(t, "replace: old keys destroyed, a new server serving", r.took)
	if after := w.serverID(t, "demo-fsn-1"); after == before || servers(t) != 1 {
		t.Errorf("server %s, then %s, %d in all", before, after, servers(t))
	}
	w.fleet(t, 5*time.Minute, "plan").want(t, 0, "plan afterwards")
	w.status(t, "--wait", "10m")
}

// serverID is the lab's id of the machine with the given name.
func (w *site) serverID(t *testing.T, name string) string {
	t.Helper()
	s, err := w.lab.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range s.Machines {
		if m.Name == name {
			return m.ID
		}
	}
	t.Fatalf("the lab has no %s", name)
	return ""
}
