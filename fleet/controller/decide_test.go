package controller

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"popfleet/agents"
	"popfleet/fleet/controller/audit"
	"popfleet/fleet/controller/policy"
	"popfleet/internal/mtls"
	"popfleet/inventory/vault"
	"popfleet/provision/lifecycle"
	"popfleet/provision/provider"
)

func (b *bench) say(s Saying) {
	b.t.Helper()
	s.By, s.At = "ada", time.Now()
	if _, err := s.Apply(b, b.w.log, node); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) verdicts() (all []audit.Entry) {
	b.t.Helper()
	if _, err := b.w.log.Read(func(e audit.Entry) error { all = append(all, e); return nil }); err != nil {
		b.t.Error(err)
	}
	return all
}

func TestTheKillSwitch(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench, k keysOf) {
		b.say(Saying{Say: SayNever, Why: "it was stolen"})
		b.reportFor(time.Minute, "boot-1")
		b.open("2222", k.initramfs)
		after(5 * time.Minute)
		l := b.lock()
		if b.sent() != 0 || l.State != Held || l.Alarm || l.Next != "fleet unlock --allow fsn-1" || !strings.Contains(l.Why, "says ada: it was stolen") {
			t.Errorf("%d keys sent, %+v", b.sent(), l)
		}
		if n := b.w.status().Nodes[0]; n.Never != "ada" {
			t.Errorf("status: never %q", n.Never)
		}
		b.say(Saying{Say: SayApprove})
		if err := b.w.expect(t.Context(), node, time.Hour, mtls.Name{}); err != nil {
			t.Fatal(err)
		}
		after(time.Minute)
		if b.sent() != 0 {
			t.Error("an approval or an expected reboot went around the kill switch")
		}
		b.say(Saying{Say: SayAllow})
		after(5 * time.Second)
		b.want(1, Unlocked, false, "")
	})
}

func TestAnApprovalIsGoodForOneUnlocking(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench, k keysOf) {
		b.report("boot-1", 1)
		after(16 * time.Minute)
		b.open("2222", k.initramfs)
		after(time.Minute)
		b.want(0, Held, false, "silent for 16m")
		b.say(Saying{Say: SayApprove})
		after(5 * time.Second)
		b.want(1, Unlocked, false, "")
		if b.said.Approval != nil || !strings.Contains(b.lock().LastDecision, "allow: approved by ada, although it was silent") {
			t.Errorf("approval %+v, decision %q", b.said.Approval, b.lock().LastDecision)
		}
		after(20 * time.Minute) // its agent never reports; it falls and comes back
		b.open("22", nil)
		b.open("2222", k.initramfs)
		after(time.Minute)
		b.want(1, Held, false, "silent for")
	})
}

func TestAnApprovalThatRanOut(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench, k keysOf) {
		b.say(Saying{Say: SayApprove, ForSec: 60})
		after(2 * time.Minute)
		b.open("2222", k.initramfs)
		after(time.Minute)
		b.want(0, Held, false, "nothing was ever heard of it")
	})
}

func TestASayingTakenTwiceIsOne(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench, _ keysOf) {
		s := Saying{Say: SayApprove, By: "ada", At: time.Now()}
		if _, err := s.Apply(b, b.w.log, node); err != nil {
			t.Fatal(err)
		}
		if err := UseApproval(b, node, b.said.Approval); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Apply(b, b.w.log, node); err == nil || b.said.Approval != nil {
			t.Errorf("an approval that was used came back: %v", err)
		}
		for _, bad := range []Saying{{Say: "maybe"}, {Say: SayApprove, ForSec: 1e9}, {Say: SayNever, Why: strings.Repeat("x", 501)}, {Say: SayTrust}} {
			bad.By, bad.At = "ada", time.Now()
			if _, err := bad.Apply(b, b.w.log, node); err == nil {
				t.Errorf("%+v was taken", bad)
			}
		}
	})
}

func TestASuspectNodeIsHeld(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench, k keysOf) {
		b.state.InstallRun = "run-1"
		b.said = vault.UnlockState{Good: &vault.GoodBoot{Install: "run-1", Manifest: "aaa"},
			Suspect: &vault.Suspicion{Install: "run-1", Since: time.Now(), Why: "boot/grub/grub.cfg changed", Manifest: "bbb"}}
		b.reportFor(time.Minute, "boot-1")
		if q := b.w.status().Nodes[0].Suspect; q == nil || q.Why != "boot/grub/grub.cfg changed" || q.Next != "fleet unlock --trust fsn-1" {
			t.Errorf("status: suspect %+v", q)
		}
		b.open("2222", k.initramfs)
		after(time.Minute)
		if l := b.lock(); b.sent() != 0 || l.State != Held || l.Next != "fleet unlock --approve fsn-1" || !strings.Contains(l.Why, "grub.cfg changed") {
			t.Errorf("%d keys sent, %+v", b.sent(), l)
		}
		b.say(Saying{Say: SayTrust})
		if b.said.Suspect != nil || b.said.Good.Manifest != "bbb" || b.said.Good.BootID != "" {
			t.Errorf("after it was trusted: %+v", b.said.Good)
		}
		after(5 * time.Second)
		b.want(1, Unlocked, false, "")
	})
}

func TestWhatTheProviderSays(t *testing.T) {
	foreign := []provider.Activity{{What: "rescue_enabled", Risky: true}}
	for name, c := range map[string]struct {
		acts  []provider.Activity
		err   error
		rule  policy.CrossCheckRule
		power bool
		sent  int
		why   string
	}{
		"nothing":                  {power: true, sent: 1, why: "its agent reported"},
		"something foreign":        {acts: foreign, power: true, why: "what this fleet did not do: rescue_enabled (now)"},
		"nothing, for an error":    {err: errors.New("502"), power: true, sent: 1, why: "not cross-checked with its provider: 502"},
		"error, and it is needed":  {err: errors.New("502"), power: true, rule: policy.Required, why: "which this fleet requires: 502"},
		"no credentials":           {sent: 1, why: "not cross-checked with its provider: nobody here has its credentials"},
		"no credentials but asked": {rule: policy.Required, why: "which this fleet requires"},
	} {
		t.Run(name, func(t *testing.T) {
			arrange := func(b *bench) { b.acts, b.actsErr, b.power, b.cfg.CrossCheck = c.acts, c.err, c.power, c.rule }
			inBubbleWith(t, arrange, func(t *testing.T, b *bench, k keysOf) {
				b.reportFor(time.Minute, "boot-1")
				b.open("2222", k.initramfs)
				after(10*time.Minute + 30*time.Second)
				if b.sent() != c.sent || !strings.Contains(b.lock().LastDecision, c.why) {
					t.Errorf("%d keys sent, %q", b.sent(), b.lock().LastDecision)
				}
				if c.sent == 0 && b.lock().State != Held {
					t.Errorf("%+v", b.lock())
				}
				if c.power && c.sent == 0 && (b.asked < 5 || b.asked > 12) {
					t.Errorf("the provider was asked %d times in ten minutes", b.asked)
				}
			})
		})
	}
}

// TestAForeignActRightBeforeTheKey: the provider is asked once more when the key is about to leave.
func TestAForeignActRightBeforeTheKey(t *testing.T) {
	arrange := func(b *bench) { b.power = true }
	inBubbleWith(t, arrange, func(t *testing.T, b *bench, k keysOf) {
		b.reportFor(time.Minute, "boot-1")
		b.mu.Lock()
		first := b.w.deps.Unlock
		b.w.deps.Unlock = func(ctx context.Context, d lifecycle.Deps, n lifecycle.Node) (lifecycle.Result, error) {
			b.mu.Lock()
			b.acts = []provider.Activity{{What: "iso grml", Risky: true}}
			b.mu.Unlock()
			return first(ctx, d, n)
		}
		b.mu.Unlock()
		b.open("2222", k.initramfs)
		after(30 * time.Second)
		if l := b.lock(); b.sent() != 0 || l.State != Held || !strings.Contains(l.Why, "iso grml (now)") || l.Next != "fleet unlock --approve fsn-1" {
			t.Errorf("%d keys sent, %+v", b.sent(), l)
		}
	})
}

func TestTheProviderIsNotAskedInVain(t *testing.T) {
	inBubbleWith(t, func(b *bench) { b.power = true }, func(t *testing.T, b *bench, k keysOf) {
		b.open("2222", k.initramfs)
		after(10 * time.Minute)
		b.want(0, Held, false, "nothing was ever heard of it")
		if b.asked != 0 {
			t.Errorf("the provider was asked %d times about a node that is held anyway", b.asked)
		}
	})
}

func TestAnExpectedRebootInTheVault(t *testing.T) {
	for name, c := range map[string]struct {
		takes time.Duration
		sent  int
	}{"in time": {40 * time.Minute, 1}, "too late": {61 * time.Minute, 0}} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *bench, k keysOf) {
				b.report("boot-1", 1)
				b.say(Saying{Say: SayExpect, ForSec: 3600})
				after(c.takes)
				b.open("2222", k.initramfs)
				after(5 * time.Second)
				if b.sent() != c.sent {
					t.Errorf("%d keys sent, %+v", b.sent(), b.lock())
				}
			})
		})
	}
}

// TestEveryDecisionIsInTheChainedLog, with who, reasons and evidence, once.
func TestEveryDecisionIsInTheChainedLog(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench, k keysOf) {
		b.report("boot-1", 1)
		after(16 * time.Minute)
		b.open("2222", k.initramfs)
		after(5 * time.Minute)
		b.say(Saying{Say: SayApprove})
		after(10 * time.Second)
		var words []string
		for _, e := range b.verdicts() {
			words = append(words, e.Who+" "+e.Node+" "+e.Verdict)
			if e.Verdict == audit.VerdictOrder {
				continue
			}
			var f policy.Facts
			var found []policy.Finding
			if err := errors.Join(json.Unmarshal(e.Evidence, &f), json.Unmarshal(e.Reasons, &found)); err != nil || f.FirstSeen.IsZero() || len(found) != 6 {
				t.Errorf("%s: %d findings, %+v, %v", e.Verdict, len(found), f, err)
			}
		}
		if got := strings.Join(words, ", "); got != "controller fsn-1 hold, ada fsn-1 order, controller fsn-1 allow" {
			t.Error(got)
		}
	})
}

func TestAnAllowanceThatCannotBeWrittenIsNone(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench, k keysOf) {
		b.w.log.Path = b.dir + "/nowhere/audit.jsonl"
		b.reportFor(time.Minute, "boot-1")
		b.open("2222", k.initramfs)
		after(10 * time.Second)
		if b.sent() != 0 {
			t.Error("a key was sent without a record")
		}
	})
}

// TestABootNobodyProvedIsProven, soon and then more and more seldom, never of a suspect node.
func TestABootNobodyProvedIsProven(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench, _ keysOf) {
		b.mu.Lock()
		b.state.InstallRun = "run-1"
		b.prove = func() (lifecycle.Result, error) { return lifecycle.Result{Err: errors.New("no answer")}, nil }
		b.mu.Unlock()
		b.reportFor(time.Hour, "boot-1")
		if b.proofs < 4 || b.proofs > 8 {
			t.Errorf("%d attempts in an hour", b.proofs)
		}
		b.mu.Lock()
		b.proofs = 0
		b.prove = func() (lifecycle.Result, error) {
			b.said.Good = &vault.GoodBoot{Install: "run-1", BootID: "boot-2", Rotated: "boot-2"}
			return lifecycle.Result{}, nil
		}
		b.mu.Unlock()
		b.reportFor(time.Hour, "boot-2")
		if b.proofs != 1 {
			t.Errorf("%d proofs of one boot", b.proofs)
		}
		b.mu.Lock()
		b.proofs = 0
		b.prove = func() (lifecycle.Result, error) {
			b.said.Suspect = &vault.Suspicion{Install: "run-1", Why: "x"}
			return lifecycle.Result{Err: lifecycle.ErrSuspect}, nil
		}
		b.mu.Unlock()
		b.reportFor(time.Hour, "boot-3")
		if b.proofs != 1 || b.w.status().Nodes[0].Suspect == nil {
			t.Errorf("%d proofs of a suspect boot, status %+v", b.proofs, b.w.status().Nodes[0].Suspect)
		}
	})
}

// TestAPackageRunIsLookedAt at once, also while an earlier proof waits for its next attempt; one that was judged is left
// alone, and so is that of a suspect node.
func TestAPackageRunIsLookedAt(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench, _ keysOf) {
		seq := uint64(0)
		reports := func(changed string, d time.Duration) (proofs int) {
			b.mu.Lock()
			b.proofs = 0
			b.mu.Unlock()
			for range d / (10 * time.Second) {
				seq++
				b.w.accept(node, []agents.Report{{V: 1, Node: node, BootID: "boot-1", Seq: seq, Time: time.Now(), BootChanged: changed}})
				after(10 * time.Second)
			}
			b.mu.Lock()
			defer b.mu.Unlock()
			return b.proofs
		}
		b.mu.Lock()
		b.state.InstallRun = "run-1"
		b.said.Good = &vault.GoodBoot{Install: "run-1", BootID: "boot-1", Rotated: "boot-1", Manifest: "m1"}
		b.mu.Unlock()
		if n := reports("", time.Minute) + reports("m1", time.Minute); n != 0 {
			t.Errorf("%d looks at a node that changed nothing", n)
		}
		if n := reports("m2", time.Hour); n < 4 || n > 8 {
			t.Errorf("%d looks in an hour at what could not be judged", n)
		}
		b.mu.Lock()
		b.prove = func() (lifecycle.Result, error) {
			good := *b.said.Good
			good.Declared = "m3" // judged, and not believed
			b.said.Good = &good
			return lifecycle.Result{}, nil
		}
		b.mu.Unlock()
		if n := reports("m3", 30*time.Second); n != 1 {
			t.Errorf("%d looks at the next run", n)
		}
		if n := reports("m3", time.Hour); n != 0 {
			t.Errorf("%d looks at what was judged", n)
		}
		b.mu.Lock()
		b.said.Suspect = &vault.Suspicion{Install: "run-1", Why: "x"}
		b.mu.Unlock()
		after(time.Minute)
		if n := reports("m4", time.Hour); n != 0 {
			t.Errorf("%d looks at a suspect node", n)
		}
	})
}
