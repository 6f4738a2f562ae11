package controller

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"popfleet/internal/journal"
	"popfleet/internal/mtls"
	"popfleet/provision/lifecycle"
	"popfleet/provision/remote"
)

// ends makes every attempt end with err.
func (b *bench) ends(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.unlock = func(lifecycle.Deps) (lifecycle.Result, error) {
		return lifecycle.Result{Node: node, Stage: lifecycle.Locked, Err: err}, nil
	}
}

func (b *bench) want(sent int, state string, alarm bool, why string) {
	b.t.Helper()
	l := b.lock()
	if b.sent() != sent || l.State != state || l.Alarm != alarm || !strings.Contains(l.Why, why) {
		b.t.Errorf("%d keys sent, lock %+v; expected %d, %s, alarm %v, %q", b.sent(), l, sent, state, alarm, why)
	}
	if (l.State == Held) != (l.Next == "fleet unlock "+node) {
		b.t.Errorf("next is %q of %s", l.Next, l.State)
	}
}

func TestANodeSilentForTooLongIsHeldUntilAnOperatorSaysSo(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench, k keysOf) {
		b.report("boot-1", 1)
		after(16 * time.Minute)
		b.open("2222", k.initramfs)
		after(time.Minute)
		b.want(0, Held, false, "it was silent for 16m")
		if b.journal.count(opHold) != 1 {
			t.Errorf("one decision was journalled %d times", b.journal.count(opHold))
		}
		if err := b.w.expect(t.Context(), node, time.Minute, mtls.Name{Fleet: "demo", Service: "operator", Node: "ada"}); err != nil {
			t.Fatal(err)
		}
		after(5 * time.Second)
		b.want(1, Unlocked, false, "")
		if b.journal.count(opExpect) != 1 || b.journal.count(opAllow) != 1 || !b.lock().ExpectedUntil.IsZero() {
			t.Errorf("journal %v, lock %+v", b.journal.ops, b.lock())
		}
	})
}

func TestAnExpectedRebootMayTakeItsTime(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench, k keysOf) {
		b.report("boot-1", 1)
		if err := b.w.expect(t.Context(), node, time.Hour, mtls.Name{}); err != nil {
			t.Fatal(err)
		}
		after(50 * time.Minute)
		b.open("2222", k.initramfs)
		after(5 * time.Second)
		b.want(1, Unlocked, false, "")
	})
}

func TestANodeNeverHeardOf(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench, k keysOf) {
		b.open("2222", k.initramfs)
		after(10 * time.Second)
		b.want(0, Held, false, "nothing was ever heard of it")
		// `fleet up` saw it running before it was locked: its agent had no time to report.
		b.journal.saw(lifecycle.Sealed, time.Now().Add(-5*time.Minute))
		after(5 * time.Second)
		b.want(1, Unlocked, false, "")
	})
}

func (n *notes) saw(stage lifecycle.Stage, at time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.seen = append(n.seen, journal.Observation{Node: node, Stage: string(stage), At: at})
}

func TestOldOrOtherSightingsAreNoProof(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench, k keysOf) {
		b.journal.saw(lifecycle.Serving, time.Now().Add(-16*time.Minute))
		b.journal.saw(lifecycle.Locked, time.Now().Add(-time.Minute))
		b.journal.saw(lifecycle.Rescue, time.Now().Add(-time.Minute))
		b.open("2222", k.initramfs)
		after(time.Minute)
		b.want(0, Held, false, "silent for 16m")
		b.journal.saw(lifecycle.Sealed, time.Now()) // after it was seen locked: proves nothing about before
		after(time.Minute)
		b.want(0, Held, false, "silent for 16m")
	})
}

func TestAWrongKeyIsSentOnceWhateverHappens(t *testing.T) {
	dir := t.TempDir()
	var k keysOf
	for i, act := range []func(b *bench){
		func(b *bench) {
			b.reportFor(time.Minute, "boot-1")
			after(20 * time.Second)
			b.ends(&remote.UnlockError{Addr: "198.18.0.10:2222", Outcome: remote.WrongKey, Words: "bad password"})
			b.open("2222", k.initramfs)
			after(5 * time.Minute)
			b.want(1, Held, true, "bad password")
			if b.journal.count(opHold) != 1 {
				b.t.Errorf("journal %v", b.journal.ops)
			}
		},
		func(b *bench) { // the controller was restarted
			b.open("2222", k.initramfs)
			after(5 * time.Minute)
			b.want(0, Held, true, "bad password")
			if err := b.w.expect(b.t.Context(), node, time.Hour, mtls.Name{}); err != nil {
				b.t.Fatal(err)
			}
			after(5 * time.Minute)
			b.want(0, Held, true, "bad password") // a mark is no way around an alarm
			b.open("2222", nil)
			after(time.Minute)
			b.want(0, Held, true, "bad password")
			b.report("boot-2", 1) // somebody opened it
			b.want(0, Unlocked, false, "")
		},
	} {
		if !t.Run([]string{"first", "restarted"}[i], func(t *testing.T) {
			inFolder(t, dir, &k, act)
		}) {
			return
		}
	}
}

func TestAnImpostorGetsNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench, k keysOf) {
		b.reportFor(time.Minute, "boot-1")
		after(20 * time.Second)
		b.open("2222", k.stranger)
		after(time.Minute)
		b.want(0, Held, true, "answers with host key")
		b.open("2222", k.initramfs) // the right one is back: somebody must look first all the same
		after(time.Minute)
		b.want(0, Held, true, "answers with host key")
		b.mu.Lock()
		b.state.InitramfsHostKey = authorized(k.stranger)
		b.doors["2222"] = k.stranger // it was installed anew, with another key
		b.mu.Unlock()
		after(10 * time.Second)
		b.want(1, Unlocked, false, "")
	})
}

func TestAHostKeyThatChangesDuringTheAttempt(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench, k keysOf) {
		b.reportFor(time.Minute, "boot-1")
		b.ends(&lifecycle.Error{Node: node, Err: &remote.HostKeyError{Addr: "198.18.0.10:2222", Want: []string{"a"}, Got: "b"}})
		b.open("2222", k.initramfs)
		after(5 * time.Minute)
		b.want(1, Held, true, "answers with host key b")
	})
}

func TestWhatIsNotSealedIsNotTouched(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench, k keysOf) {
		b.mu.Lock()
		b.state.Sealed = false
		b.mu.Unlock()
		b.report("boot-1", 1)
		b.open("2222", k.initramfs)
		after(time.Minute)
		b.want(0, LockUnknown, false, "not sealed yet")
	})
}

func TestAttemptsWithoutAVerdictAreBounded(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench, k keysOf) {
		b.reportFor(time.Minute, "boot-1")
		b.ends(&remote.UnlockError{Addr: "x", Outcome: remote.TooEarly})
		b.open("2222", k.initramfs)
		after(40 * time.Second)
		if n := b.sent(); n < 1 || n > 3 {
			t.Errorf("%d attempts in the first 40 s", n)
		}
		after(time.Hour)
		b.want(maxAttempts, Held, true, "5 attempts came to nothing")
	})
}

func TestANodeThatRestartsForEverIsHeld(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench, k keysOf) {
		for i := range 10 {
			b.report(strings.Repeat("b", i+1), 1)
			after(20 * time.Second)
			b.open("2222", k.initramfs)
			after(10 * time.Second)
		}
		b.want(6, Held, false, "unlocked 6 times within an hour")
		after(time.Hour)
		b.want(7, Unlocked, false, "")
	})
}

func TestOneLeaseANode(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench, k keysOf) {
		b.reportFor(time.Minute, "boot-1")
		release, err := NodeLease(b.dir, "fleet unlock fsn-1")(t.Context(), node)
		if err != nil {
			t.Fatal(err)
		}
		b.open("2222", k.initramfs)
		after(time.Minute)
		b.want(0, Unlocking, false, `"fleet unlock fsn-1"`)
		release()
		after(20 * time.Second)
		b.want(1, Unlocked, false, "")
		// The controller's own ends with its attempt.
		release, err = NodeLease(b.dir, "fleet up")(t.Context(), node)
		if err != nil {
			t.Fatal(err)
		}
		defer release()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := NodeLease(b.dir, "fleet unlock")(ctx, node); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), `"fleet up"`) {
			t.Errorf("a second lease: %v", err)
		}
	})
}

func TestTheAgentMayBeFasterThanTheUnlock(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench, k keysOf) {
		b.reportFor(time.Minute, "boot-1")
		b.mu.Lock()
		b.unlock = func(d lifecycle.Deps) (lifecycle.Result, error) {
			b.open("2222", nil)
			b.open("22", k.system)
			b.report("boot-2", 1)
			time.Sleep(3 * time.Second)
			d.Progress(lifecycle.Event{Kind: lifecycle.EventEnd, Op: lifecycle.OpUnlock})
			return lifecycle.Result{}, &lifecycle.Error{Node: node, Err: errors.New("no answer")}
		}
		b.mu.Unlock()
		b.open("2222", k.initramfs)
		after(30 * time.Second)
		l := b.lock()
		if b.sent() != 1 || l.State != Unlocked || l.LastUnlock.UnlockedToReportSec == nil {
			t.Errorf("%d sent, lock %+v %+v", b.sent(), l, l.LastUnlock)
		}
	})
}

func TestASystemThatAnswersIsUnlocked(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench, k keysOf) {
		b.report("boot-1", 1)
		b.open("22", k.system)
		after(time.Minute)
		n := b.w.status().Nodes[0]
		if n.Freshness != Late || n.SystemAnswers == nil || !*n.SystemAnswers || n.Lock.State != Unlocked {
			t.Errorf("%+v", n)
		}
		b.open("22", k.stranger)
		after(time.Minute)
		n = b.w.status().Nodes[0]
		if n.Freshness != Unreachable || *n.SystemAnswers || n.Lock.State != LockUnknown {
			t.Errorf("with a stranger on port 22: %+v", n)
		}
	})
}

func TestAStepEndedByACommandIsNoFailure(t *testing.T) {
	l := lasting{endedNotes{}, &watcher{board: &board{deps: quiet()}}}
	if err := l.End(t.Context(), 1, journal.Outcome{}); err != nil {
		t.Error(err)
	}
}

type endedNotes struct{}

func (endedNotes) Begin(context.Context, journal.Step) (int64, error)         { return 1, nil }
func (endedNotes) Observe(context.Context, string, string, string, any) error { return nil }
func (endedNotes) End(context.Context, int64, journal.Outcome) error          { return journal.ErrEnded }
