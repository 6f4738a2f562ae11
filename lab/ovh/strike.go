package ovh

import (
	"context"
	"io"
	"net/http"
	"time"

	"popfleet/lab/faults"
	"popfleet/lab/ovh/api"
)

// strikes are the faults of single calls, beside those of time and keys, which strike earlier.
var strikes = []faults.Kind{
	faults.Locked, faults.RateLimited, faults.BadGateway, faults.Unavailable, faults.GatewayTimeout,
	faults.ResourceUnavailable, faults.Conflict, faults.Unauthorized, faults.ActionError, faults.ActionMissing,
	faults.ReplyLost, faults.Hang, faults.Slow,
	faults.Busy, faults.Expired, faults.TaskMissing, faults.TaskError, faults.TaskStuck, faults.TaskZero,
}

// strike answers in the fault's way and returns true, or arranges for what strikes later and returns false.
func (o *OVH) strike(w http.ResponseWriter, r *request, f faults.Fault) bool {
	switch f.Kind {
	case faults.BadGateway:
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(http.StatusBadGateway)
		_, _ = io.WriteString(w, "<html><body><h1>502 Bad Gateway</h1></body></html>\n") // the client may be gone
		return true
	case faults.Hang:
		wait := f.For.D()
		if wait == 0 {
			wait = time.Hour
		}
		pause(r.Context(), wait)
		panic(http.ErrAbortHandler)
	case faults.Slow:
		return !pause(r.Context(), f.For.D())
	case faults.ActionError, faults.ActionMissing, faults.ReplyLost,
		faults.TaskMissing, faults.TaskError, faults.TaskStuck, faults.TaskZero:
		r.fault = &f
		return false
	case faults.RateLimited:
		w.Header().Set("Retry-After", "1")
	}
	if e := refusal(f.Kind); e != nil {
		api.Answer(w, nil, e)
		return true
	}
	return false
}

func refusal(k faults.Kind) *api.Error {
	switch k {
	case faults.Locked, faults.Busy, faults.Conflict:
		return api.Conflict("A task is already running on this service")
	case faults.RateLimited:
		return api.Fail(http.StatusTooManyRequests, "Client::TooManyRequests", "Too many requests, please retry later")
	case faults.Unavailable:
		return api.Fail(http.StatusServiceUnavailable, "Server::ServiceUnavailable", "Service is temporarily unavailable")
	case faults.GatewayTimeout:
		return api.Fail(http.StatusGatewayTimeout, "Server::GatewayTimeout", "Gateway timeout")
	case faults.ResourceUnavailable:
		return api.Bad("The requested configuration is not available")
	case faults.Unauthorized:
		return api.NotLoggedIn()
	case faults.Expired:
		return api.Expired()
	}
	return nil
}

// pause waits, and says false when the context ended first.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
