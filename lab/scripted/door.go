package scripted

import "time"

// doorPause is how long the door lets nobody in after a wrong key.
const doorPause = 20 * time.Second

// door is the forced command that our image puts before cryptroot-unlock: one unlocker at a time, and only with a key
// that opens the header. It lives as long as the boot.
type door struct {
	taken  bool
	opened bool
	wrong  time.Time
	shares map[string]map[byte][]byte // by generation and index
	spent  int                        // the generation that was put together
}

// WithoutDoor makes the machine's initramfs hand every connection to cryptroot-unlock, as Debian's own does.
func (m *Machine) WithoutDoor() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.plain = true
}

// enter passes a key on to cryptroot-unlock, or says why not; leave ends the turn.
func (m *Machine) enter(bt *boot, s *session, pass []byte) (leave func(), refused string) {
	m.mu.Lock()
	if m.plain {
		m.mu.Unlock()
		return func() {}, ""
	}
	words, status, refused := m.refusal(bt, pass)
	if refused == "" {
		bt.door.taken = true
	}
	m.mu.Unlock()
	if refused != "" {
		s.say("fleet: " + words)
		s.exit(status)
		return nil, refused
	}
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		bt.door.taken = false
	}, ""
}

// refusal is what the door says to who may not pass; mu is held.
func (m *Machine) refusal(bt *boot, pass []byte) (words string, status uint32, outcome string) {
	d := &bt.door
	switch {
	case len(pass) == 0:
		return "no key came; no try was used", 65, "empty"
	case d.taken:
		return "busy: another unlocker is here; no try was used", 75, "busy"
	case d.opened || bt.stage != locked:
		return "it has been opened: set up successfully", 0, "opened-before"
	case !d.wrong.IsZero() && time.Since(d.wrong) < doorPause:
		return "busy: a wrong key came less than 20 seconds ago; no try was used", 75, "busy"
	case !m.installed().opens(pass):
		d.wrong = time.Now()
		return "wrong key: it opens no key slot; no try was used", 65, "wrong"
	}
	return "", 0, ""
}
