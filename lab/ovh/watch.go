package ovh

import (
	"context"
	"time"

	"popfleet/lab/machine"
)

// The provider pings monitored servers. The lab's machines have no ping, so it knocks where an SSH server answers in
// every state that the fleet leaves a machine in: the system's port and the initramfs's.
const (
	systemPort = 22
	unlockPort = 2222
)

// watch opens an intervention when a monitored server has been silent for too long, and presses its button. It looks
// ten times in that time.
func (o *OVH) watch() {
	for pause(o.life, max(o.opt.Delay(Monitor)/10, 5*time.Millisecond)) {
		for _, i := range o.Servers() {
			o.attend(i)
		}
	}
}

func (o *OVH) attend(i machine.Info) {
	if i.Machine == nil || !o.monitored(i.ID) {
		return
	}
	answers := o.answers(i.Machine)
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.state.named(i.ID)
	switch now := o.opt.Now(); {
	case s == nil || !s.watched():
	case answers:
		s.silent, s.told = time.Time{}, false
	case s.silent.IsZero():
		s.silent = now
	case !s.told && now.Sub(s.silent) >= o.opt.Delay(Monitor):
		s.told = true
		o.opt.Log.Info("intervention", "server", s.Service, "silent_since", s.silent)
		o.intervene(s, true)
		o.save()
	}
}

func (s *server) watched() bool { return s.Monitoring && !s.NoIntervention && !s.Expired }

// monitored also forgets the silence of a server that nobody watches.
func (o *OVH) monitored(service string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.state.named(service)
	if s == nil || !s.watched() {
		if s != nil {
			s.silent, s.told = time.Time{}, false
		}
		return false
	}
	return true
}

func (o *OVH) answers(m machine.Machine) bool {
	ctx, cancel := context.WithTimeout(o.life, 2*time.Second)
	defer cancel()
	for _, port := range []uint16{systemPort, unlockPort} {
		if conn, err := m.Dial(ctx, port); err == nil {
			_ = conn.Close() // nothing was said on it
			return true
		}
	}
	return false
}
