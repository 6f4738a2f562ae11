package robot

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"popfleet/lab/faults"
)

// apiKinds are the faults that have a meaning at this web service. Others are not asked for, so they count no hit here.
var apiKinds = []faults.Kind{
	faults.Unauthorized, faults.LockOut, faults.RateLimited, faults.Conflict, faults.Busy, faults.BadGateway, faults.Unavailable,
	faults.GatewayTimeout, faults.ActionError, faults.TaskError, faults.TaskStuck, faults.NoIPv4, faults.ReplyLost, faults.Hang, faults.Slow,
}

// strike answers in the fault's way and returns true, or arranges for what strikes later and returns false.
func (r *Robot) strike(w http.ResponseWriter, q *request, f faults.Fault) bool {
	switch f.Kind {
	case faults.Unauthorized:
		r.guard.mark(source(q.Request), false, time.Now())
	case faults.LockOut:
		r.guard.shut(source(q.Request), r.scaled(f.For.D()), time.Now())
	case faults.BadGateway:
		gateway(w, http.StatusBadGateway)
		return true
	case faults.Unavailable: // "due to maintenance": the documentation promises no body
		gateway(w, http.StatusServiceUnavailable)
		return true
	case faults.GatewayTimeout:
		gateway(w, http.StatusGatewayTimeout)
		return true
	case faults.Hang:
		wait := f.For.D()
		if wait == 0 {
			wait = time.Hour
		}
		pause(q.Context(), wait)
		panic(http.ErrAbortHandler)
	case faults.Slow:
		return !pause(q.Context(), f.For.D())
	case faults.ReplyLost, faults.TaskError, faults.TaskStuck, faults.NoIPv4:
		q.fault = &f
		return false
	}
	write(w, nil, r.refusal(q, f))
	return true
}

func gateway(w http.ResponseWriter, status int) {
	w.Header().Set("Content-Type", "text/html")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, "<html><body><h1>"+http.StatusText(status)+"</h1></body></html>\n") // the client may be gone
}

// refusal is the error that a fault makes. A rate limit tells the time that the fault says as its interval.
func (r *Robot) refusal(q *request, f faults.Fault) *apiError {
	switch f.Kind {
	case faults.Unauthorized:
		return unauthorized()
	case faults.LockOut:
		return blocked()
	case faults.RateLimited:
		interval := intervalOf(q.call.class)
		if f.For > 0 {
			interval = max(f.For.D().Round(time.Second), time.Second)
		}
		return limited(r.guard.limits[q.call.class], int(interval.Seconds()))
	case faults.Conflict, faults.Busy:
		return fail(http.StatusConflict, "CONFLICT", "another request for this product is being processed")
	}
	return q.call.broken()
}

// broken is the call's own internal error.
func (k call) broken() *apiError {
	code := k.failure
	if code == "" {
		code = "INTERNAL_ERROR"
	}
	return fail(http.StatusInternalServerError, code, "%s failed due to an internal error", k.name)
}

// interfere lets somebody else act on the server before the call does, where a fault says so.
func (r *Robot) interfere(q *request) {
	r.mu.Lock()
	s := r.meant(q)
	var names []string
	if s != nil {
		names = s.names()
	}
	r.mu.Unlock()
	if s == nil {
		return
	}
	f, ok := r.opt.Faults.Take(faults.Occasion{Layer: faults.Machine, Machine: names}, faults.ForeignActivity)
	if !ok {
		return
	}
	r.opt.Log.Info("somebody else acts", "server", s.Number, "step", f.Step)
	if err := r.foreign(s, f.Step); err != nil {
		r.opt.Log.Error("somebody else acts", "server", s.Number, "error", err)
	}
}

// FaultKinds are the kinds of lab/faults that this simulator acts on, besides those of connections and of what runs on a
// machine. For generators of fault matrices.
func FaultKinds() []faults.Kind {
	return append(slices.Clone(apiKinds), faults.RescueIgnored, faults.ResetIgnored, faults.BootHangs, faults.RescueNever, faults.RescueSlow,
		faults.DisksSwapped, faults.DiskMissing, faults.HostKeyLate, faults.ResetTypeAbsent, faults.ForeignActivity, faults.Invisible)
}

// Foreign does to a server what somebody else with the account may do: enable the rescue system (step rescue or ""), vkvm
// (vkvm), reset it (reset), or boot it into a rescue system of theirs (boot).
func (r *Robot) Foreign(number int, step string) error {
	r.mu.Lock()
	s := r.state.Servers[number]
	r.mu.Unlock()
	if s == nil {
		return fmt.Errorf("server %d: not in this account", number)
	}
	return r.foreign(s, step)
}

func (r *Robot) foreign(s *server, step string) error {
	os := "linux"
	switch step {
	case "reset":
		return r.push(s, "hw")
	case "vkvm":
		os = "vkvm"
	}
	r.change(func() {
		if s.Rescue == nil {
			s.Rescue = &activation{OS: os, Arch: 64, Password: newPassword()}
		}
	})
	if step == "boot" {
		return r.push(s, "hw")
	}
	return nil
}
