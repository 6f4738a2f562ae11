//go:build e2e

package e2e

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"popfleet/internal/journal"
	"popfleet/lab/faults"
)

// A mixed PoP on machines that boot: a cloud server with one disk, a server at Hetzner Robot with two SATA disks and BIOS,
// one at OVH with two NVMe disks and UEFI. One command brings all three to serving; a disk fails and the node comes back
// by itself; a new kernel is checked and booted; with the controller gone a node's peers open it; a node moves to another
// server; taken down, no header opens any more.
func TestMachinesMixed(t *testing.T) {
	w := newSite(t, "--robot", "1", "--robot-api", "127.0.0.1:18081", "--ovh", "1", "--ovh-api", "127.0.0.1:18082")
	w.prepare(t)
	text, err := os.ReadFile(filepath.Join(w.dir, "fleet.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	w.write(t, "fleet.yaml", append(bytes.Replace(text, []byte("      - name: fsn-2\n"), []byte(
		"      - name: fsn-2\n        machine: {provider: hetznerrobot, server: \""+mixedRobot+"\"}\n"+
			"      - name: fsn-3\n        machine: {provider: ovh, server: "+mixedOVH+"}\n"), 1),
		[]byte("\nunlock: {peers: 2}\n")...))
	w.startController(t)
	t.Cleanup(func() { w.stopController() })
	for _, s := range []struct {
		name string
		do   func(*testing.T)
	}{
		{"UpFromThreeProviders", w.mixedUp},
		{"EveryNodeWouldComeBack", w.wouldComeBack},
		{"DegradedBootUnlocks", w.degradedBoot},
		{"KernelUpdateIsCheckedAndBooted", w.kernelUpdate},
		{"PeersOpenWithNoController", w.peersOpen},
		{"ReplaceMovesANode", w.replace},
		{"OverheadStaysBelowItsBar", w.overhead}, // late, so that a busy machine hides nothing else
		{"DownLeavesNoHeaderThatOpens", w.mixedDown},
	} {
		if !t.Run(s.name, s.do) {
			t.Fatalf("%s failed; what comes after it would say nothing", s.name)
		}
	}
}

const (
	overheadBar = 5.0 // percent of a node's wall time
	mixedRobot  = "321"
	mixedOVH    = "ns1001.ip-198-19-1.eu"
)

func (w *site) mixedUp(t *testing.T) {
	r := w.fleet(t, upLimit, "up", "--yes", "--json", "--adopt", "fsn-2", "--adopt", "fsn-3").want(t, 0, "up")
	figure(t, "mixed PoP, three nodes from nothing to serving", r.took)
	w.phases(t)
	w.serving, w.upBegan, w.upCPU = time.Now(), time.Now().Add(-r.took), r.cpu
	for _, e := range w.entries(t, journal.Filter{Op: "enter-rescue", Status: journal.Done}) {
		var evidence struct{ Trust string }
		if err := json.Unmarshal(e.Evidence, &evidence); err != nil {
			t.Fatal(err)
		}
		if want := map[string]string{"fsn-1": "tofu", "fsn-2": "api", "fsn-3": "tofu"}[e.Node]; evidence.Trust != want {
			t.Errorf("%s: the rescue system was known by %q, want %q", e.Node, evidence.Trust, want)
		}
	}
	again := w.fleet(t, 5*time.Minute, "up", "--yes").want(t, 0, "up again")
	if !strings.HasPrefix(again.out, "no changes") {
		t.Errorf("up again: %s", again.out)
	}
	figure(t, "up again, no changes", again.took)
	w.status(t, "--wait", "10m")
}

// overhead is the part of each node's way to serving in which nothing of the provider, the boot or the disk was at work: what
// lies between its operations, each of which is such a wait. Sharing keys among peers begins when the last node is up: the way
// there is waited for by all.
func (w *site) overhead(t *testing.T) {
	t.Helper()
	ways := map[string][]journal.Entry{}
	for _, e := range w.entries(t, journal.Filter{Status: journal.Done}) {
		if e.Node == "" || e.Ended.After(w.serving) {
			continue
		}
		ways[e.Node] = append(ways[e.Node], e)
	}
	var last time.Time // when the slowest node had come all the way by itself
	for _, way := range ways {
		slices.SortFunc(way, func(a, b journal.Entry) int { return a.Began.Compare(b.Began) })
		if i := slices.IndexFunc(way, func(e journal.Entry) bool { return e.Op == "converge" }); i >= 0 && way[i].Ended.After(last) {
			last = way[i].Ended
		}
	}
	for name, way := range ways {
		var between time.Duration
		end := way[0].Began
		for _, e := range way {
			if gap := e.Began.Sub(end); gap > 0 {
				between += gap
			}
			if e.Ended.After(end) {
				end = e.Ended
			}
			if e.Op == "converge" && end.Before(last) {
				end = last
			}
		}
		wall := end.Sub(way[0].Began)
		percent := 100 * float64(between) / float64(wall)
		t.Logf("FIGURE %-58s %6.1f %%", "overhead of "+name+" between its operations", percent)
		if percent > overheadBar {
			t.Errorf("%s: nothing was at work for %s of its %s", name, between.Round(time.Second), wall.Round(time.Second))
		}
	}
	own := 100 * float64(w.upCPU) / float64(last.Sub(w.upBegan))
	t.Logf("FIGURE %-58s %6.1f %%", "the operator's own CPU time, of the wall time of three nodes", own)
	if own > overheadBar {
		t.Errorf("the run itself computed for %s", w.upCPU)
	}
}

// wouldComeBack asks the reboot check of every node.
func (w *site) wouldComeBack(t *testing.T) {
	r := w.fleet(t, 10*time.Minute, "check", "reboot").want(t, 0, "check reboot")
	figure(t, "check reboot, three nodes", r.took)
}

// degradedBoot pulls a disk out of the machine with BIOS, cuts its power, and waits for it to serve from the other one.
func (w *site) degradedBoot(t *testing.T) {
	if _, err := w.lab.AddFault(t.Context(), faults.Fault{Kind: faults.DiskMissing, Machine: mixedRobot}); err != nil {
		t.Fatal(err)
	}
	boot := node(t, w.status(t), "fsn-2").Report.BootID
	began := time.Now()
	if err := w.lab.Power(t.Context(), mixedRobot, "cycle"); err != nil {
		t.Fatal(err)
	}
	w.servesAnew(t, "fsn-2", boot)
	figure(t, "power cut with a disk pulled, to serving again", time.Since(began))
	if _, err := w.lab.ClearFault(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
}

// mixedDown takes everything down; the disks of the dedicated machines stay, and what is on them is read here.
func (w *site) mixedDown(t *testing.T) {
	// The pulled disk is back in its slot at the next start: its header has to go like the other's.
	r := w.fleet(t, 40*time.Minute, "down", "--yes", "demo").want(t, 0, "down")
	figure(t, "down: key slots destroyed on three nodes", r.took)
	for _, id := range []string{mixedRobot, mixedOVH} {
		if !strings.Contains(r.out, id) {
			t.Errorf("nobody is told what is left to do about %s:\n%s", id, r.out)
		}
	}
	read := 0
	disks, err := filepath.Glob(filepath.Join(w.labDir, "machines", "*", "disk*.raw"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range disks {
		for _, h := range luksHeaders(t, path) {
			read++
			if len(h.Keyslots) > 0 {
				t.Errorf("%s: a LUKS header still has %d key slot(s)", path, len(h.Keyslots))
			}
		}
	}
	t.Logf("%d LUKS headers on %d disks read: none has a key slot", read, len(disks))
	if read == 0 && !strings.Contains(r.out+r.errOut, "erased") {
		t.Error("no LUKS header was found on any disk: the check saw nothing")
	}
}

// luksHeader is what LUKS2 says of itself in its JSON area.
type luksHeader struct {
	Keyslots map[string]json.RawMessage `json:"keyslots"`
}

// luksHeaders finds the primary and secondary LUKS2 headers of a disk image, wherever its partitions begin.
func luksHeaders(t *testing.T, path string) (out []luksHeader) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const step, span = 4096, 6 << 30
	block := make([]byte, step)
	for off := int64(0); off < span; off += step {
		if n, err := f.ReadAt(block, off); n < step || err != nil {
			return out
		}
		if !bytes.HasPrefix(block, []byte("LUKS\xba\xbe")) && !bytes.HasPrefix(block, []byte("SKUL\xba\xbe")) {
			continue
		}
		size := binary.BigEndian.Uint64(block[8:16])
		if size < step || size > 4<<20 {
			continue
		}
		whole := make([]byte, size)
		if _, err := f.ReadAt(whole, off); err != nil {
			t.Fatal(err)
		}
		var h luksHeader
		text, _, _ := bytes.Cut(whole[step:], []byte{0})
		if err := json.Unmarshal(text, &h); err != nil {
			t.Logf("%s: LUKS header at %d has no readable JSON: %v", path, off, fmt.Errorf("%w", err))
			continue
		}
		out = append(out, h)
	}
	return out
}
