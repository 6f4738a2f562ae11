package initramfs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"popfleet/internal/shares"
)

// ward is a locked node that expects the shares of its peers.
type ward struct {
	*door
	set shares.Generation
}

// newWard is one whose peers' slot opens with the key of its shares.
func newWard(t *testing.T, threshold int, peers ...string) *ward {
	t.Helper()
	w := &ward{door: newDoor(t)}
	script, err := fs.ReadFile(Files(), "shares.sh")
	if err != nil {
		t.Fatal(err)
	}
	w.put("etc/fleet/shares.sh", string(script), 0o644)
	if w.set, err = shares.New("n-1", 7, threshold, peers, nil); err != nil {
		t.Fatal(err)
	}
	w.expect(w.set.Commit())
	w.slots(rightKey, w.set.Key)
	return w
}

func (w *ward) expect(generations ...shares.Commitment) {
	w.put("etc/fleet/peers", shares.Commitments{Node: "n-1", Generations: generations}.Text(), 0o644)
}

// slots makes the header open with these keys; cryptsetup and cryptroot-unlock look them up.
func (w *ward) slots(keys ...string) {
	w.put("slots", strings.Join(keys, ".\n")+".\n", 0o600)
	opens := `key="$(cat; echo .)"; grep -qxF -- "$key" "` + w.root + `/slots"`
	w.put("bin/cryptsetup", "#!/bin/sh\necho \"$*\" >>'"+w.root+"/tested'\n"+opens+" || exit 2\n", 0o755)
	w.put("bin/cryptroot-unlock", "#!/bin/sh\necho try >>'"+w.root+"/tries'\n"+
		"[ -e '"+w.root+"/early' ] && { echo 'Try again later' >&2; exit 1; }\n"+
		opens+" || { echo 'bad password' >&2; exit 1; }\necho 'cryptsetup: fleet-root set up successfully' >&2\n", 0o755)
}

// push is what dropbear runs when this peer logged in.
func (w *ward) push(peer, line string) (words string, code int) {
	w.t.Helper()
	return w.as("peer."+peer, strings.NewReader(line))
}

func (w *ward) line(i int) string { return w.set.Shares[i].Line }

func (w *ward) mustKeep(i, of int) {
	w.t.Helper()
	words, code := w.push(w.set.Shares[i].Peer, w.line(i))
	if code != 0 || !strings.Contains(words, fmt.Sprintf("fleet: share kept: %d of %d", i+1, of)) {
		w.t.Fatalf("share %d: exit %d: %s", i+1, code, words)
	}
}

// TestEnoughPeersOpen: for several thresholds, and secrets that are new every time; the script and the Go code agree.
func TestEnoughPeersOpen(t *testing.T) {
	for threshold, peers := range map[int][]string{2: {"a-1", "b-1", "c-1"}, 3: {"a-1", "b-1", "c-1", "d-1"}, 5: {"a-1", "b-1", "c-1", "d-1", "e-1"}} {
		w := newWard(t, threshold, peers...)
		for i := range threshold - 1 {
			w.mustKeep(i, threshold)
			w.mustKeep(i, threshold) // again: it is one share
		}
		if w.count("tested") != 0 || w.count("tries") != 0 {
			t.Errorf("%d shares of %d: the disk was touched", threshold-1, threshold)
		}
		last := len(peers) - 1
		words, code := w.push(peers[last], w.line(last)+"\n")
		if code != 0 || !strings.Contains(words, "set up successfully") || w.count("tries") != 1 {
			t.Errorf("threshold %d: exit %d, %d tries: %s", threshold, code, w.count("tries"), words)
		}
		if _, err := os.Stat(filepath.Join(w.root, "fleet-shares")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("shares are left: %v", err)
		}
		if tested, _ := os.ReadFile(filepath.Join(w.root, "tested")); strings.Contains(string(tested), w.set.Key) {
			t.Error("the key is among cryptsetup's arguments")
		}
		if spent, err := os.ReadFile(filepath.Join(w.root, "run/fleet-door/spent")); err != nil || string(spent) != "7\n" {
			t.Errorf("the generation that was used: %q, %v", spent, err)
		}
		if words, code := w.push(peers[0], w.line(0)); code != 0 || !strings.Contains(words, "has been opened") || w.count("tries") != 1 {
			t.Errorf("one that comes late: exit %d: %s", code, words)
		}
	}
}

// TestWhatIsNotTheShareIsNamedAndBurnsNothing: and the right shares still open afterwards.
func TestWhatIsNotTheShareIsNamedAndBurnsNothing(t *testing.T) {
	w := newWard(t, 2, "a-1", "b-1", "c-1")
	old, err := shares.New("n-1", 6, 2, []string{"a-1", "b-1", "gone-1"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	flipped := []byte(w.line(0))
	flipped[len(flipped)-1] ^= 1
	w.mustKeep(0, 2)
	for name, c := range map[string]struct{ peer, line, words string }{
		"a bit is wrong":       {"a-1", string(flipped), "wrong share: that of peer a-1 is not what was committed to"},
		"another peer's":       {"b-1", w.line(0), "wrong share: share 1 is not peer b-1's"},
		"an older generation":  {"b-1", old.Shares[1].Line, "stale share: generation 6 of peer b-1 is not known here"},
		"of a removed node":    {"gone-1", old.Shares[2].Line, "stale share: generation 6 of peer gone-1"},
		"a removed node lies":  {"gone-1", w.line(1), "wrong share: share 2 is not peer gone-1's"},
		"no such share":        {"a-1", strings.Replace(w.line(0), " 7 1 ", " 7 9 ", 1), "wrong share: there is no share 9"},
		"index as a pattern":   {"a-1", strings.Replace(w.line(0), " 7 1 ", " 7 - ", 1), "wrong share: there is no share -"},
		"another node's":       {"a-1", strings.Replace(w.line(0), "n-1", "m-1", 1), "wrong share: peer a-1 sent something else"},
		"a key":                {"a-1", w.set.Key, "wrong share: peer a-1 sent something else"},
		"the machine key":      {"a-1", rightKey, "wrong share: peer a-1 sent something else"},
		"two lines":            {"a-1", w.line(0) + "\n" + w.line(1), "wrong share: peer a-1 sent something else"},
		"two blanks":           {"a-1", strings.Replace(w.line(0), " 7 ", "  7 ", 1), "wrong share: peer a-1 sent something else"},
		"shell":                {"a-1", "$(touch /tmp/x) `id` * ? [a-z]", "wrong share: peer a-1 sent something else"},
		"zeros":                {"a-1", string(make([]byte, 400)), "no key came"},
		"far too much":         {"a-1", strings.Repeat("a", 5000), "wrong key: longer than any"},
		"nothing":              {"a-1", "", "no key came"},
		"a short value":        {"a-1", w.line(0)[:len(w.line(0))-2], "wrong share: peer a-1 sent something else"},
		"somebody not a peer":  {"", w.line(0), "wrong share: share 1 is not peer 's"},
		"a path for a peer":    {"../../etc", w.line(0), "wrong share: share 1 is not peer ../../etc's"},
		"generation of a word": {"a-1", strings.Replace(w.line(0), " 7 ", " share ", 1), "stale share: generation share"},
	} {
		words, code := w.push(c.peer, c.line)
		if code != 65 || !strings.Contains(words, "fleet: "+c.words) || !strings.Contains(words, "no try was used") {
			t.Errorf("%s: exit %d: %s", name, code, words)
		}
	}
	if w.count("tested") != 0 || w.count("tries") != 0 {
		t.Fatalf("the disk was touched: %d, %d", w.count("tested"), w.count("tries"))
	}
	if words, code := w.push("b-1", w.line(1)); code != 0 || !strings.Contains(words, "set up successfully") {
		t.Errorf("then the right one: exit %d: %s", code, words)
	}
}

// TestAnythingSentAsAShare: whatever bytes come, nothing is tried on the disk and the script ends by itself.
func TestAnythingSentAsAShare(t *testing.T) {
	w := newWard(t, 2, "a-1", "b-1")
	w.mustKeep(0, 2)
	r := rand.New(rand.NewPCG(7, 7))
	for i := range 40 {
		raw := []byte(w.line(1))
		for range 1 + r.IntN(3) {
			switch r.IntN(4) {
			case 0:
				raw[r.IntN(len(raw))] = byte(r.IntN(256))
			case 1:
				raw = raw[:1+r.IntN(len(raw))]
			case 2:
				at := r.IntN(len(raw))
				raw = append(raw[:at:at], append([]byte{byte(r.IntN(256))}, raw[at:]...)...)
			default:
				raw = append(raw, raw[r.IntN(len(raw)):]...)
			}
		}
		if string(bytes.ReplaceAll(bytes.TrimRight(raw, "\n"), []byte{0}, nil)) == w.line(1) {
			continue
		}
		if words, code := w.as("peer.b-1", bytes.NewReader(raw)); code != 65 || w.count("tested") != 0 {
			t.Fatalf("%d: %q: exit %d: %s", i, raw, code, words)
		}
	}
}

// TestWithoutCommitments: a node whose peers are switched off, and one whose file is broken.
func TestWithoutCommitments(t *testing.T) {
	w := newWard(t, 2, "a-1", "b-1")
	for _, spoil := range []func() error{
		func() error { return os.WriteFile(filepath.Join(w.root, "etc/fleet/peers"), nil, 0o644) },
		func() error { return os.Remove(filepath.Join(w.root, "etc/fleet/peers")) },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		if words, code := w.push("a-1", w.line(0)); code != 65 || !strings.Contains(words, "no shares are expected here") {
			t.Errorf("exit %d: %s", code, words)
		}
	}
	if words, code := w.knock(strings.NewReader(rightKey)); code != 0 {
		t.Errorf("the machine key: exit %d: %s", code, words)
	}
}

// TestSharesOfASlotThatIsGone are said to be dead, once tried, and keep nobody else out.
func TestSharesOfASlotThatIsGone(t *testing.T) {
	w := newWard(t, 2, "a-1", "b-1")
	w.slots(rightKey)
	w.mustKeep(0, 2)
	for range 3 {
		words, code := w.push("b-1", w.line(1))
		if code != 65 || !strings.Contains(words, "fleet: dead shares: generation 7 opens no key slot") || w.count("tested") != 1 || w.count("tries") != 0 {
			t.Errorf("exit %d, tested %d times: %s", code, w.count("tested"), words)
		}
	}
	if words, code := w.knock(strings.NewReader(rightKey)); code != 0 {
		t.Errorf("the machine key, at once: exit %d: %s", code, words)
	}
	if _, err := os.Stat(filepath.Join(w.root, "run/fleet-door/spent")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a generation is said to be spent: %v", err)
	}
}

// TestTwoGenerationsSideBySide: while new shares are given out, old and new ones open, but never one of each.
func TestTwoGenerationsSideBySide(t *testing.T) {
	w := newWard(t, 2, "a-1", "b-1")
	next, err := shares.New("n-1", 8, 2, []string{"a-1", "c-1"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	w.expect(w.set.Commit(), next.Commit())
	w.slots(rightKey, w.set.Key, next.Key)
	w.mustKeep(0, 2)
	if words, code := w.push("a-1", next.Shares[0].Line); code != 0 || !strings.Contains(words, "share kept: 1 of 2") {
		t.Errorf("the next: exit %d: %s", code, words)
	}
	if words, code := w.push("c-1", next.Shares[1].Line); code != 0 || !strings.Contains(words, "set up successfully") {
		t.Errorf("the next: exit %d: %s", code, words)
	}
}

// TestTooEarlyKeepsTheShares: a late array or prompt asks for the same share again, from any peer.
func TestTooEarlyKeepsTheShares(t *testing.T) {
	w := newWard(t, 2, "a-1", "b-1")
	w.put("early", "", 0o644)
	w.mustKeep(0, 2)
	if words, code := w.push("b-1", w.line(1)); code != 1 || !strings.Contains(words, "Try again later") {
		t.Errorf("too early: exit %d: %s", code, words)
	}
	if err := os.Remove(filepath.Join(w.root, "early")); err != nil {
		t.Fatal(err)
	}
	if words, code := w.push("a-1", w.line(0)); code != 0 || !strings.Contains(words, "set up successfully") {
		t.Errorf("later: exit %d: %s", code, words)
	}
}

// TestAllPeersAtOnce: one try, whoever comes first, and everybody gets an answer that means something.
func TestAllPeersAtOnce(t *testing.T) {
	peers := []string{"a-1", "b-1", "c-1", "d-1"}
	w := newWard(t, 3, peers...)
	var all sync.WaitGroup
	for i, p := range peers {
		all.Go(func() {
			words, code := w.push(p, w.line(i))
			ok := code == 0 && (strings.Contains(words, "share kept") || strings.Contains(words, "set up successfully")) ||
				code == 75 && strings.Contains(words, "fleet: busy")
			if !ok {
				t.Errorf("%s: exit %d: %s", p, code, words)
			}
		})
	}
	all.Wait()
	if w.count("tries") != 1 {
		t.Errorf("%d tries", w.count("tries"))
	}
}

// TestAPeerDiesHalfWay: its half-written share is no share, and its lock ends with it.
func TestAPeerDiesHalfWay(t *testing.T) {
	w := newWard(t, 2, "a-1", "b-1")
	w.put("fleet-shares/new.4194304", w.set.Key[:10], 0o600)
	w.put("run/fleet-door/1", "4194304\n", 0o644)
	w.mustKeep(0, 2)
	if words, code := w.push("b-1", w.line(1)); code != 0 || !strings.Contains(words, "set up successfully") {
		t.Errorf("exit %d: %s", code, words)
	}
}
