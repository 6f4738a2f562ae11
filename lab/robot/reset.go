package robot

import (
	"context"
	"net/http"
	"slices"
	"time"

	"popfleet/lab/faults"
)

// actDeadline bounds how long a machine may take to begin an act of power.
const actDeadline = 30 * time.Second

func resetKinds() []string { return []string{"sw", "hw", "man", "power", "power_long"} }

// kinds of reset the server has, less what a fault takes away; r.mu is held.
func (r *Robot) resets(s *server) []string {
	f, ok := r.opt.Faults.Take(faults.Occasion{Layer: faults.Machine, Machine: s.names()}, faults.ResetTypeAbsent)
	if !ok {
		return s.hw.Resets
	}
	gone := f.Step
	if gone == "" {
		gone = "hw"
	}
	return slices.DeleteFunc(slices.Clone(s.hw.Resets), func(k string) bool { return k == gone })
}

func (r *Robot) resetOptions(s *server) object {
	o := s.head()
	o["type"] = r.resets(s)
	return o
}

func (r *Robot) listResets(*request) (any, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []object
	for _, s := range r.visible() {
		if o := r.resetOptions(s); len(o["type"].([]string)) > 0 {
			out = append(out, object{"reset": o})
		}
	}
	if out == nil {
		return nil, notFound("NOT_FOUND", "No servers with reset option found")
	}
	return out, nil
}

func noReset() *apiError { return notFound("RESET_NOT_AVAILABLE", "The server has no reset option") }

// operating is told only where the power button can be worked.
func (s *server) operating() string {
	switch {
	case !slices.Contains(s.hw.Resets, "power"):
		return "not supported"
	case s.machine != nil && s.machine.Running():
		return "running"
	}
	return "stopped"
}

func (r *Robot) getReset(_ *request, s *server) (any, error) {
	o := r.resetOptions(s)
	if len(o["type"].([]string)) == 0 {
		return nil, noReset()
	}
	o["operating_status"] = s.operating()
	return object{"reset": o}, nil
}

// reset answers as soon as the act is begun and says nothing of what boots then.
func (r *Robot) reset(q *request) (any, error) {
	kind := q.form.Get("type")
	s, err := r.beginReset(q, kind)
	if err != nil {
		return nil, err
	}
	if err := r.push(s, kind); err != nil {
		r.opt.Log.Error("reset", "server", s.Number, "kind", kind, "error", err)
		return nil, q.call.broken()
	}
	o := s.head()
	o["type"] = kind
	return object{"reset": o}, nil
}

// beginReset checks the call and books a manual reset. Nothing is reset while one is under way.
func (r *Robot) beginReset(q *request, kind string) (*server, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, err := r.find(q)
	if err != nil {
		return nil, err
	}
	has := r.resets(s)
	switch {
	case len(has) == 0:
		return nil, noReset()
	case !slices.Contains(resetKinds(), kind) || !slices.Contains(has, kind):
		return nil, invalid("type")
	case s.Manual:
		return nil, fail(http.StatusConflict, "RESET_MANUAL_ACTIVE", "There is already a running manual reset")
	}
	s.Manual = kind == "man"
	r.save()
	return s, nil
}

// push does an act of power to the machine. A manual reset is a person's: FinishManual.
func (r *Robot) push(s *server, kind string) error {
	r.mu.Lock()
	m, names := s.machine, s.names()
	r.mu.Unlock()
	if m == nil || kind == "man" {
		return nil
	}
	if _, ok := r.opt.Faults.Take(faults.Occasion{Layer: faults.Machine, Machine: names}, faults.ResetIgnored); ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(r.life, actDeadline)
	defer cancel()
	on, button := m.Running(), slices.Contains(s.hw.Resets, "power")
	switch {
	case kind == "sw" && on, kind == "power" && on:
		r.change(func() { s.Restart = kind == "sw" })
		return m.Shutdown(ctx) // Ctrl-Alt-Del and the power button: the system may ignore them
	case kind == "sw", kind == "hw" && !on && button:
		return nil // nothing runs that would listen, and the reset button of a machine that is off does nothing
	}
	r.change(func() { s.Restart = false; r.overtake(s) })
	switch {
	case kind == "power_long":
		return m.PowerOff(ctx)
	case on:
		return m.Reset(ctx)
	}
	return m.PowerOn(ctx)
}

// FinishManual lets the technician come who was asked for by a manual reset; false when none was.
func (r *Robot) FinishManual(number int) (bool, error) {
	r.mu.Lock()
	s := r.state.Servers[number]
	asked := s != nil && s.Manual
	if asked {
		s.Manual = false
		r.save()
	}
	r.mu.Unlock()
	if !asked {
		return false, nil
	}
	if err := r.push(s, "power_long"); err != nil {
		return true, err
	}
	return true, r.push(s, "power")
}

func noWOL() *apiError {
	return notFound("WOL_NOT_AVAILABLE", "Wake On LAN is not available on this server")
}

func (r *Robot) getWOL(_ *request, s *server) (any, error) {
	if !s.hw.WOL {
		return nil, noWOL()
	}
	return object{"wol": s.head()}, nil
}

func (r *Robot) sendWOL(q *request) (any, error) {
	s, off, err := r.sleeping(q)
	if err != nil {
		return nil, err
	}
	if off {
		if err := r.push(s, "power"); err != nil {
			return nil, q.call.broken()
		}
	}
	return object{"wol": s.head()}, nil
}

// sleeping finds the server to wake and whether it is off at all.
func (r *Robot) sleeping(q *request) (*server, bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, err := r.find(q)
	if err != nil {
		return nil, false, err
	}
	if !s.hw.WOL {
		return nil, false, noWOL()
	}
	return s, s.machine != nil && !s.machine.Running(), nil
}
