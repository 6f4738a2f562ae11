package hetznerrobot

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"popfleet/provision/provider"
)

func restart() provider.Restart {
	return provider.Restart{Key: provider.SSHKey{Name: "demo-fleet", Public: fleetKey}}
}

// sure fails the test unless rescue is the last start of server 321, with its keys.
func (w world) sure(t *testing.T, r provider.Rescue, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	last := w.boxes[321].last
	if last == nil || r.Origin != provider.FromAPI || len(r.Fingerprints) != 1 || r.Fingerprints[0] != "SHA256:"+last.hosts[0] {
		t.Fatalf("rescue %+v, last start %+v", r, last)
	}
	if !r.Booted.Equal(last.at.Truncate(time.Second)) {
		t.Errorf("started at %s, want %s", r.Booted, last.at)
	}
}

func TestEnterRescue(t *testing.T) {
	in(t, func(t *testing.T, w world) {
		start := time.Now()
		r, err := w.d.EnterRescue(w.ctx, "321", restart())
		w.sure(t, r, err)
		if spent := time.Since(start); spent < 80*time.Second || spent > 90*time.Second {
			t.Errorf("noticed after %s", spent)
		}
		if w.count("POST /key") != 1 || w.count("POST /reset/321 type=sw") != 1 || w.boxes[321].presses != 1 {
			t.Errorf("calls %q", w.calls)
		}
		again, err := w.d.EnterRescue(w.ctx, "321", restart())
		w.sure(t, again, err)
		if again.Fingerprints[0] == r.Fingerprints[0] || w.count("POST /key") != 1 || w.count("GET /key") != 1 {
			t.Error("the second rescue is the first one, or the key was looked for again")
		}
	})
}

// TestRescueCases is everything that goes wrong on the way and is survived.
func TestRescueCases(t *testing.T) {
	for _, c := range []struct {
		name    string
		set     func(w world)
		r       func(w world, r *provider.Restart)
		presses []string // of buttons, in order
		said    string
		within  time.Duration
	}{
		{name: "slow", set: func(w world) { w.boxes[321].delay = 330 * time.Second }, presses: []string{"sw"}, within: 6 * time.Minute},
		{name: "host keys late", set: func(w world) { w.boxes[321].keysLate = 40 * time.Second }, presses: []string{"sw"}, said: "waiting for its host keys"},
		{name: "rescue was never entered before", presses: []string{"sw"}},
		{name: "the key is there", set: func(w world) { w.keys[mustMD5(fleetKey)] = "under another name" }, presses: []string{"sw"}},
		{name: "reply of the upload lost", set: func(w world) { w.once("POST /key", fault{cut: io.EOF, after: true}) }, presses: []string{"sw"}},
		{name: "armed by a stranger", set: func(w world) { w.boxes[321].armed, w.boxes[321].allowed = "linux", []string{"aa"} },
			presses: []string{"sw"}, said: "it is not ours"},
		{name: "armed by us", set: func(w world) { w.boxes[321].armed, w.boxes[321].allowed = "linux", []string{mustMD5(fleetKey)} },
			presses: []string{"sw"}, said: "an earlier run of ours left it"},
		{name: "vkvm armed", set: func(w world) { w.boxes[321].armed = "vkvm" }, presses: []string{"sw"}, said: "it is not ours"},
		{name: "arming fails once for certain", set: func(w world) { w.once("POST /boot", fault{status: 500, code: "BOOT_ACTIVATION_FAILED"}) },
			presses: []string{"sw"}},
		{name: "reply of arming lost", set: func(w world) { w.once("POST /boot", fault{cut: io.EOF, after: true}) },
			presses: []string{"sw"}, said: "looking whether rescue is armed"},
		{name: "arming hangs", set: func(w world) { w.once("POST /boot", fault{hang: true}) }, presses: []string{"sw"}},
		{name: "arming answers 502 and did it", set: func(w world) { w.once("POST /boot", fault{status: 502, after: true}) }, presses: []string{"sw"}},
		{name: "reset lost", set: func(w world) { w.boxes[321].lose["sw"] = 9 }, presses: []string{"sw", "hw"}, said: "next: a hardware reset",
			within: 10 * time.Minute},
		{name: "reply of the reset lost", set: func(w world) { w.once("POST /reset", fault{cut: io.EOF, after: true}) }, presses: []string{"sw"},
			said: "looking whether it restarts"},
		{name: "reset hangs and did it", set: func(w world) { w.once("POST /reset", fault{hang: true, after: true}) }, presses: []string{"sw"}},
		{name: "reset hangs and did not", set: func(w world) { w.once("POST /reset", fault{hang: true}) }, presses: []string{"sw", "hw"},
			within: 10 * time.Minute},
		{name: "reset answers 504 and did it", set: func(w world) { w.once("POST /reset", fault{status: 504, after: true}) }, presses: []string{"sw"}},
		{name: "reset fails for certain, once", set: func(w world) { w.once("POST /reset", fault{status: 500, code: "RESET_FAILED"}) },
			presses: []string{"sw", "sw"}},
		{name: "no sw", set: func(w world) { w.boxes[321].types = []string{"hw", "man"} }, presses: []string{"hw"}},
		{name: "only the power button", set: func(w world) { w.boxes[321].types = []string{"power", "power_long", "man"} },
			presses: []string{"power_long", "power"}},
		{name: "only the power button, and its state", set: func(w world) {
			w.boxes[321].types, w.boxes[321].power = []string{"power", "power_long"}, "running"
		}, presses: []string{"power_long", "power"}},
		{name: "off", set: func(w world) {
			w.boxes[321].types, w.boxes[321].power = []string{"power", "power_long", "hw"}, "stopped"
		}, presses: []string{"power"}},
		{name: "harder from the start", r: func(_ world, r *provider.Restart) { r.Try = 1 }, presses: []string{"hw"}},
		{name: "the hardest again", r: func(_ world, r *provider.Restart) { r.Try = 3 }, presses: []string{"hw"}},
		{name: "asked over ssh", r: func(w world, r *provider.Restart) { r.Ask = w.ask(nil, true) }},
		{name: "asked over ssh, cut, and restarts", r: func(w world, r *provider.Restart) { r.Ask = w.ask(io.EOF, true) }},
		{name: "asked over ssh in vain", r: func(w world, r *provider.Restart) { r.Ask = w.ask(nil, false) }, presses: []string{"sw"},
			within: 10 * time.Minute},
		{name: "ssh does not answer", r: func(w world, r *provider.Restart) { r.Ask = w.ask(io.EOF, false) }, presses: []string{"sw"},
			within: 5 * time.Minute},
		{name: "ssh and no reset at all", set: func(w world) { w.boxes[321].types = nil },
			r: func(w world, r *provider.Restart) { r.Ask = w.ask(nil, true) }},
		{name: "looking fails for a while", set: func(w world) { w.times(4, "GET /boot/321/rescue/last", fault{status: 503}) }, presses: []string{"sw"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			in(t, func(t *testing.T, w world) {
				if c.set != nil {
					c.set(w)
				}
				req := restart()
				if c.r != nil {
					c.r(w, &req)
				}
				start := time.Now()
				r, err := w.d.EnterRescue(w.ctx, "321", req)
				w.sure(t, r, err)
				if spent := time.Since(start); spent > max(c.within, 4*time.Minute) {
					t.Errorf("took %s", spent)
				}
				if got := w.pressed(); strings.Join(got, " ") != strings.Join(c.presses, " ") {
					t.Errorf("pressed %q, want %q", got, c.presses)
				}
				if strings.HasPrefix(c.name, "reply of arming") && w.count("DELETE") != 0 {
					t.Error("what was armed by us was taken back")
				}
				if !w.heard(c.said) {
					t.Errorf("did not say %q but %q", c.said, *w.said)
				}
			})
		})
	}
}

func mustMD5(line string) string {
	fp, err := fingerprintMD5(line)
	if err != nil {
		panic(err)
	}
	return fp
}

// pressed lists the buttons that were pressed, in order.
func (w world) pressed() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for _, c := range w.calls {
		if kind, ok := strings.CutPrefix(c, "POST /reset/321 type="); ok {
			out = append(out, kind)
		}
	}
	return out
}

// ask is a restart over SSH that does or does not happen, whatever it answers.
func (w world) ask(err error, happens bool) func(context.Context) error {
	return func(context.Context) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		if happens {
			w.restart(w.boxes[321])
		}
		return err
	}
}

// TestRescueEnds is everything that cannot be survived: it ends with a reason, in time, and without a person called.
func TestRescueEnds(t *testing.T) {
	for _, c := range []struct {
		name string
		set  func(w world)
		r    func(r *provider.Restart)
		kind error
		text string
	}{
		{name: "no such server", set: func(w world) { delete(w.boxes, 321) }, kind: provider.ErrNotFound},
		{name: "no rescue for it", set: func(w world) { w.boxes[321].noBoot = true }, kind: provider.ErrNoRescue},
		{name: "every restart is lost", set: func(w world) { w.boxes[321].lose = map[string]int{"sw": 9, "hw": 9} }, kind: provider.ErrNoRescue,
			text: "tried Ctrl-Alt-Del, then a hardware reset"},
		{name: "boots the disk whatever is armed", set: func(w world) { w.boxes[321].delay = time.Hour }, kind: provider.ErrNoRescue, text: "no new rescue"},
		{name: "host keys never come", set: func(w world) { w.boxes[321].keysLate = time.Hour }, kind: provider.ErrNoRescue, text: "no host keys"},
		{name: "only a person can", set: func(w world) { w.boxes[321].types = []string{"man"} }, kind: provider.ErrCantRestart},
		{name: "no reset", set: func(w world) { w.boxes[321].types = nil }, kind: provider.ErrCantRestart},
		{name: "a technician is there", set: func(w world) { w.boxes[321].manual = true }, kind: provider.ErrCantRestart, text: "technician"},
		{name: "too often", r: func(r *provider.Restart) { r.Try = 4 }, kind: provider.ErrCantRestart, text: "4 restarts had no effect"},
		{name: "arming never works", set: func(w world) { w.times(-1, "POST /boot", fault{status: 500, code: "BOOT_ACTIVATION_FAILED"}) },
			kind: provider.ErrBudget},
		{name: "robot dies while looking", set: func(w world) { w.times(-1, "GET /boot/321/rescue/last", fault{hang: true}) }, kind: provider.ErrBudget},
	} {
		t.Run(c.name, func(t *testing.T) {
			in(t, func(t *testing.T, w world) {
				if c.set != nil {
					c.set(w)
				}
				req := restart()
				if c.r != nil {
					c.r(&req)
				}
				start := time.Now()
				_, err := w.d.EnterRescue(w.ctx, "321", req)
				wantKind(t, err, c.kind)
				if !strings.Contains(err.Error(), c.text) {
					t.Errorf("error %v does not say %q", err, c.text)
				}
				if spent := time.Since(start); spent > 20*time.Minute {
					t.Errorf("gave up after %s", spent)
				}
			})
		})
	}
}

func TestRescueStopsAtTheCallersDeadline(t *testing.T) {
	in(t, func(t *testing.T, w world) {
		w.boxes[321].delay = time.Hour
		ctx, cancel := context.WithTimeout(w.ctx, 90*time.Second)
		defer cancel()
		start := time.Now()
		_, err := w.d.EnterRescue(ctx, "321", restart())
		wantKind(t, err, provider.ErrTimeout)
		if spent := time.Since(start); spent != 90*time.Second {
			t.Errorf("after %s", spent)
		}
	})
}

// TestAForeignRescueIsNotOurs: somebody arms rescue for himself between our arming and the start.
func TestAForeignRescueIsNotOurs(t *testing.T) {
	in(t, func(t *testing.T, w world) {
		req := restart()
		req.Ask = func(context.Context) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.boxes[321].allowed = []string{mustMD5(otherKey)}
			w.restart(w.boxes[321])
			return nil
		}
		_, err := w.d.EnterRescue(w.ctx, "321", req)
		wantKind(t, err, provider.ErrNoRescue)
		if !strings.Contains(err.Error(), "not ours") {
			t.Error(err)
		}
	})
}

// TestKeysOfAGivenUpBootAreNotTaken: the first start publishes its keys when the second is under way.
func TestKeysOfAGivenUpBootAreNotTaken(t *testing.T) {
	in(t, func(t *testing.T, w world) {
		b := w.boxes[321]
		req := restart()
		req.Ask = func(context.Context) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			b.keysLate = 80 * time.Second
			w.restart(b)
			b.keysLate = 0
			return nil
		}
		r, err := w.d.EnterRescue(w.ctx, "321", req)
		time.Sleep(5 * time.Minute) // on the test's own clock: whatever was under way has started
		w.settle(b)
		w.sure(t, r, err)
		if b.presses != 1 {
			t.Errorf("pressed %q", w.pressed())
		}
	})
}

// TestABootOfAnEarlierRunIsNotOurs: it shows itself right after we asked for a restart, when the machine has not come as
// far as using up what we armed.
func TestABootOfAnEarlierRunIsNotOurs(t *testing.T) {
	in(t, func(t *testing.T, w world) {
		b := w.boxes[321]
		req := restart()
		req.Ask = func(context.Context) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			b.last = &started{at: time.Now(), os: "linux", allowed: b.allowed, hosts: []string{strings.Repeat("E", 43)}, keysAt: time.Now()}
			time.AfterFunc(25*time.Second, func() {
				w.mu.Lock()
				defer w.mu.Unlock()
				w.restart(b)
			})
			return nil
		}
		r, err := w.d.EnterRescue(w.ctx, "321", req)
		time.Sleep(5 * time.Minute) // on the test's own clock: whatever was under way has started
		w.settle(b)
		w.sure(t, r, err)
		if b.presses != 0 {
			t.Errorf("pressed %q", w.pressed())
		}
	})
}

func TestAKeyThatRobotNoLongerHasIsLookedForAgain(t *testing.T) {
	in(t, func(t *testing.T, w world) {
		r, err := w.d.EnterRescue(w.ctx, "321", restart())
		w.sure(t, r, err)
		clear(w.keys)
		if _, err := w.d.EnterRescue(w.ctx, "321", restart()); err == nil {
			t.Fatal("armed with a key that is gone")
		}
		r, err = w.d.EnterRescue(w.ctx, "321", restart())
		w.sure(t, r, err)
	})
}

func TestAMalformedKeyIsRefusedBeforeAnyCall(t *testing.T) {
	in(t, func(t *testing.T, w world) {
		for _, key := range []string{"", "ssh-ed25519", fleetKey + "\n" + otherKey} {
			var ours *provider.Error
			_, err := w.d.EnterRescue(w.ctx, "321", provider.Restart{Key: provider.SSHKey{Name: "k", Public: key}})
			if !errors.As(err, &ours) {
				t.Errorf("key %q: %v", key, err)
			}
		}
		if n := w.count(""); n != 0 {
			t.Errorf("%d calls", n)
		}
	})
}
