package robot

import (
	"time"

	"popfleet/lab/faults"
	"popfleet/lab/machine"
)

// start is what a starting machine was decided to boot.
type start struct {
	boot     machine.Boot
	rescue   *activation // what the boot uses up, nil for the disk
	delivery *delivery
	names    []string
	wake     chan struct{} // of this start: another act of power makes a new one
}

// nextBoot is asked by a machine that starts, and holds it for as long as firmware and network boot take. A start that is
// overtaken by another act of power uses nothing up. Host keys are published before the rescue system itself starts.
func (r *Robot) nextBoot(n int) machine.Boot {
	wake, ok := r.beginStart(n)
	if !ok {
		return machine.Boot{}
	}
	overtaken := machine.Boot{Hangs: true}
	if !r.hold(wake, r.delay(postTime)) {
		return r.unlessClosed(overtaken)
	}
	st, ok := r.decide(n, wake)
	if !ok {
		return r.unlessClosed(overtaken)
	}
	if !st.boot.Rescue {
		return st.boot
	}
	keys, err := r.keys.fresh()
	if err != nil {
		r.opt.Log.Error("make host keys", "server", n, "error", err)
		return overtaken
	}
	late := st.boot.Late
	st.boot.HostKeys, st.boot.Late = keys.pem, 0
	if !r.hold(wake, r.delay(rescueTime)+r.scaled(late)) {
		return r.unlessClosed(overtaken)
	}
	if !st.boot.Hangs {
		r.publish(n, st, keys.told)
	}
	return st.boot
}

// unlessClosed lets a machine boot its disk when the lab goes down, and else what is said.
func (r *Robot) unlessClosed(b machine.Boot) machine.Boot {
	if r.life.Err() != nil {
		return machine.Boot{}
	}
	return b
}

// beginStart overtakes an earlier start of the same machine.
func (r *Robot) beginStart(n int) (chan struct{}, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.state.Servers[n]
	if s == nil {
		return nil, false
	}
	return r.overtake(s), true
}

// overtake ends the wait of a start under way; r.mu is held.
func (r *Robot) overtake(s *server) chan struct{} {
	close(s.wake)
	s.wake = make(chan struct{})
	return s.wake
}

// hold waits, and says false when the start was overtaken or the lab goes down.
func (r *Robot) hold(wake chan struct{}, d time.Duration) bool {
	t := time.NewTimer(max(d, 0))
	defer t.Stop()
	select {
	case <-wake:
		return false
	case <-r.life.Done():
		return false
	case <-t.C:
		return true
	}
}

// decide picks what boots, and uses up a rescue system that waits. Keys of a system on the disk are the factory's.
func (r *Robot) decide(n int, wake chan struct{}) (start, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.state.Servers[n]
	if s == nil || s.wake != wake {
		return start{}, false
	}
	st := start{names: s.names(), wake: wake, boot: machine.Boot{AuthorizedKeys: s.hw.Keys}}
	switch {
	case s.Delivery != nil: // stays until it is published
		st.delivery = s.Delivery
		st.boot = machine.Boot{Rescue: true, AuthorizedKeys: authorized(st.delivery.Keys), RootPassword: st.delivery.Password}
	case s.Rescue != nil && !r.machineFault(s, faults.RescueIgnored):
		st.rescue, s.Rescue = s.Rescue, nil
		if st.rescue.OS == "linux" {
			st.boot = machine.Boot{Rescue: true, AuthorizedKeys: authorized(st.rescue.Keys), RootPassword: st.rescue.Password}
		} else { // vKVM boots the disk inside a hypervisor and publishes nothing
			s.Last = st.rescue
		}
	}
	r.save()
	st.boot = st.boot.Struck(r.opt.Faults, st.names)
	return st, true
}

// publish tells the world of a rescue system that has started: in /rescue/last, or in the order that it was delivered by.
func (r *Robot) publish(n int, st start, told []publicKey) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.state.Servers[n]
	if s == nil || s.wake != st.wake {
		return // what was overtaken tells nothing
	}
	if st.delivery != nil {
		r.delivered(s, st.delivery, told)
		return
	}
	now := time.Now().UTC()
	at := bootTime(now, s.Last)
	st.rescue.BootTime, st.rescue.HostKeys, st.rescue.TellKeys = &at, told, now
	if f, ok := r.opt.Faults.Take(faults.Occasion{Layer: faults.Machine, Machine: st.names}, faults.HostKeyLate); ok {
		st.rescue.TellKeys = now.Add(r.late(f.For.D(), keyLateTime))
	}
	s.Last = st.rescue
	r.save()
}

// bootTime is now, to the second that the web service tells, and later than the boot before: on real machines a minute
// lies between two boots, in a quick test none.
func bootTime(now time.Time, before *activation) time.Time {
	now = now.Truncate(time.Second)
	if before != nil && before.BootTime != nil && !now.After(*before.BootTime) {
		return before.BootTime.Add(time.Second)
	}
	return now
}

// stopped is told by a machine whose guest powered itself off.
func (r *Robot) stopped(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.state.Servers[n]
	if s == nil || !s.Restart || s.machine == nil {
		return
	}
	s.Restart = false
	r.save()
	m := s.machine
	r.spawn(func() {
		if err := m.PowerOn(r.life); err != nil && r.life.Err() == nil {
			r.opt.Log.Error("start after a software reset", "server", n, "error", err)
		}
	})
}
