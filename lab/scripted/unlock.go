package scripted

import (
	"io"
	"time"

	"popfleet/lab/faults"
	"popfleet/lab/wire"
)

// Tries of cryptroot-unlock: three, then local-block asks for at least three more, then the initramfs gives up and
// panics (facts: machines.md A2).
const (
	triesAnnounced = 3
	triesTotal     = 6
)

const maxPassphraseBytes = 8 << 10

// unlock plays cryptroot-unlock: whatever the client asked to run, this runs, and it costs a try.
func (m *Machine) unlock(bt *boot, s *session) {
	at := UnlockAttempt{Time: time.Now(), Key: s.key}
	defer func() { m.ledger.unlock(at) }()
	switch {
	case m.fault(faults.UnlockTooEarly, ""):
		at.Outcome = "too-early"
		s.say("Try again later")
		s.exit(1)
		return
	case m.fault(faults.AskpassTimeout, ""):
		at.Outcome = "timeout"
		s.say("Timeout reached while waiting for askpass")
		s.exit(1)
		return
	}
	pass, err := io.ReadAll(io.LimitReader(s, maxPassphraseBytes))
	m.ledger.hear("dropbear", pass)
	if len(pass) > 0 {
		at.Passphrase = Digest(pass)
	}
	if peer := m.peerOf(s.key); peer != "" && len(pass) > 0 {
		if pass, at.Outcome = m.takeShare(bt, s, peer, pass); pass == nil {
			return
		}
	}
	leave, refused := m.enter(bt, s, pass)
	if refused != "" {
		at.Outcome = refused
		return
	}
	defer leave()
	at.Burnt = true
	tries, ok := m.burn(bt)
	if err != nil || !ok {
		at.Outcome = "too-many"
		s.say("maximum number of tries exceeded")
		s.exit(1)
		return
	}
	at.Outcome = m.judge(bt, s, pass, tries)
}

// burn uses up one try and says whether there was one.
func (m *Machine) burn(bt *boot) (int, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	bt.tries++
	return bt.tries, bt.tries <= triesTotal && m.boot == bt && bt.stage == locked
}

func (m *Machine) judge(bt *boot, s *session, pass []byte, tries int) string {
	if len(pass) == 0 {
		s.say("Nothing to read on input")
		m.refuse(bt, s, tries)
		return "empty"
	}
	if !pause(bt.ctx, m.b.opt.Timing.Unlock) {
		return "power-lost"
	}
	d := m.snapshot()
	if !d.opens(pass) {
		s.say("cryptsetup: cryptsetup failed, bad password or options?")
		m.refuse(bt, s, tries)
		return "wrong"
	}
	m.open(bt)
	if m.fault(faults.UnlockCut, "") {
		m.cutAll(bt)
		return "opened"
	}
	s.say("cryptsetup: croot set up successfully")
	s.exit(0)
	return "opened"
}

func (m *Machine) refuse(bt *boot, s *session, tries int) {
	if tries == triesAnnounced {
		s.say("cryptsetup: maximum number of tries exceeded")
	}
	s.exit(1)
	if tries >= triesTotal && m.b.opt.Timing.Panic > 0 {
		m.b.spawn(func() {
			if pause(bt.ctx, m.b.opt.Timing.Panic) {
				m.reboot(bt)
			}
		})
	}
}

// open lets the boot go on: dropbear is killed at init-bottom, the system comes up later.
func (m *Machine) open(bt *boot) {
	m.mu.Lock()
	bt.stage, bt.door.opened = opened, true
	m.mu.Unlock()
	m.b.spawn(func() {
		if !pause(bt.ctx, m.b.opt.Timing.BootSystem) {
			return
		}
		m.mu.Lock()
		bt.stage = system
		m.mu.Unlock()
	})
}

func (m *Machine) cutAll(bt *boot) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for c := range bt.conns {
		wire.Cut(c)
	}
}
