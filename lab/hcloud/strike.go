package hcloud

import (
	"context"
	"io"
	"net/http"
	"time"

	"popfleet/lab/faults"
)

// apiKinds are the faults that have a meaning at this API. Others are not asked for, so they count no hit here.
var apiKinds = []faults.Kind{
	faults.Locked, faults.RateLimited, faults.BadGateway, faults.Unavailable, faults.GatewayTimeout, faults.ResourceUnavailable,
	faults.Conflict, faults.Unauthorized, faults.ActionError, faults.ActionMissing, faults.ReplyLost, faults.Hang, faults.Slow, faults.NoIPv4,
}

// strike answers in the fault's way and returns true, or arranges for what strikes later and returns false.
func (c *Cloud) strike(w http.ResponseWriter, r *request, f faults.Fault) bool {
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
	case faults.ActionError, faults.ActionMissing, faults.ReplyLost, faults.NoIPv4:
		r.fault = &f
		return false
	case faults.RateLimited:
		rateHeaders(w.Header(), c.opt.RatePerHour, 0, time.Now().Add(time.Second))
	}
	if e := refusal(f.Kind); e != nil {
		write(w, nil, e)
		return true
	}
	return false
}

func refusal(k faults.Kind) *apiError {
	switch k {
	case faults.Locked:
		return locked()
	case faults.RateLimited:
		return fail(http.StatusTooManyRequests, "rate_limit_exceeded", "limit of 3600 requests per hour reached")
	case faults.Unavailable:
		return fail(http.StatusServiceUnavailable, "unavailable", "service unavailable")
	case faults.GatewayTimeout:
		return fail(http.StatusGatewayTimeout, "timeout", "request timed out")
	case faults.ResourceUnavailable:
		return fail(http.StatusPreconditionFailed, "resource_unavailable", "error during placement")
	case faults.Conflict:
		return fail(http.StatusConflict, "conflict", "resource changed while the request was processed, please retry")
	case faults.Unauthorized:
		return fail(http.StatusUnauthorized, "unauthorized", "unable to authenticate")
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
