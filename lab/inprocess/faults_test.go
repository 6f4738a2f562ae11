package inprocess

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hetznercloud/hcloud-go/v2/hcloud"

	"popfleet/internal/dial"
	"popfleet/lab/faults"
)

func opts(name string) hcloud.ServerCreateOpts {
	return hcloud.ServerCreateOpts{Name: name, ServerType: &hcloud.ServerType{Name: "cx23"}, Image: &hcloud.Image{Name: "debian-12"},
		Location: &hcloud.Location{Name: "fsn1"}, StartAfterCreate: hcloud.Ptr(false)}
}

// once is a client that never repeats a call, so that what the API says is what the test sees.
func once(l *Lab, timeout time.Duration) *hcloud.Client {
	return hcloud.NewClient(hcloud.WithEndpoint(l.URL), hcloud.WithToken(l.Token), hcloud.WithRetryOpts(hcloud.RetryOpts{MaxRetries: 0}),
		hcloud.WithPollOpts(hcloud.PollOpts{BackoffFunc: hcloud.ConstantBackoff(2 * time.Millisecond)}),
		hcloud.WithHTTPClient(&http.Client{Timeout: timeout, Transport: &http.Transport{DisableKeepAlives: true}}))
}

func TestAPIFaults(t *testing.T) {
	for _, c := range []struct {
		kind    faults.Kind
		code    hcloud.ErrorCode // "" means no code: a broken answer
		acts    bool             // the server exists afterwards
		settles bool             // and its action can be awaited
	}{
		{faults.Locked, hcloud.ErrorCodeLocked, false, false},
		{faults.RateLimited, hcloud.ErrorCodeRateLimitExceeded, false, false},
		{faults.BadGateway, "", false, false},
		{faults.Unavailable, "unavailable", false, false},
		{faults.GatewayTimeout, hcloud.ErrorCodeTimeout, false, false},
		{faults.ResourceUnavailable, hcloud.ErrorCodeResourceUnavailable, false, false},
		{faults.Conflict, hcloud.ErrorCodeConflict, false, false},
		{faults.Unauthorized, hcloud.ErrorCodeUnauthorized, false, false},
		{faults.ReplyLost, "", true, false},
		{faults.Hang, "", false, false},
		{faults.ActionMissing, "ok", true, false},
		{faults.ActionError, "ok", false, false},
		{faults.Slow, "ok", true, true},
		{faults.NoIPv4, "ok", true, true},
	} {
		t.Run(string(c.kind), func(t *testing.T) {
			l := Start(t, Options{})
			f := faults.Fault{Kind: c.kind, Call: "create_server", Machine: "fsn-1", Times: 1}
			if c.kind == faults.Slow {
				f.For = faults.Duration(30 * time.Millisecond)
			}
			l.Faults.MustAdd(f)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			if other, _, err := once(l, 10*time.Second).Server.Create(ctx, opts("other-1")); err != nil || other.Server == nil {
				t.Fatalf("another server was struck: %v", err)
			}
			timeout := 10 * time.Second
			if c.kind == faults.Hang {
				timeout = 200 * time.Millisecond
			}
			res, _, err := once(l, timeout).Server.Create(ctx, opts("fsn-1"))
			checkCode(t, err, c.code)
			if err == nil {
				werr := once(l, 10*time.Second).Action.WaitFor(ctx, res.Action)
				if (werr == nil) != c.settles {
					t.Errorf("waiting for the action: %v", werr)
				}
			}
			s, _, err := once(l, 10*time.Second).Server.GetByName(ctx, "fsn-1")
			if err != nil || (s != nil) != c.acts {
				t.Errorf("afterwards: server %v, %v", s, err)
			}
			if c.kind == faults.NoIPv4 && !s.PublicNet.IPv4.IsUnspecified() {
				t.Error("the server has an IPv4 address")
			}
		})
	}
}

func checkCode(t *testing.T, err error, want hcloud.ErrorCode) {
	t.Helper()
	var e hcloud.Error
	switch {
	case want == "ok" && err != nil:
		t.Errorf("call: %v", err)
	case want == "" && err == nil:
		t.Error("call succeeded")
	case want != "" && want != "ok" && (!errors.As(err, &e) || e.Code != want):
		t.Errorf("call: %v, want %s", err, want)
	}
}

func TestNetworkFaults(t *testing.T) {
	l := Start(t, Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	o := newOperator(t, l)
	s := o.rescue(ctx, "fsn-1")
	at := s.PublicNet.IPv4.IP.String() + ":22"
	c, err := o.dial(ctx, at, o.key, "")
	must(t, err)
	c.Close()
	for _, f := range []struct {
		fault faults.Fault
		want  string
	}{
		{faults.Fault{Kind: faults.Refuse}, "connection refused"},
		{faults.Fault{Kind: faults.HalfOpen}, "timeout"},
		{faults.Fault{Kind: faults.Silent}, "no answer"},
		{faults.Fault{Kind: faults.Cut, Bytes: 10}, "banner: SSH-2.0-Op"},
		{faults.Fault{Kind: faults.Impostor}, "banner: SSH-2.0-Go"},
	} {
		set := l.Faults.MustAdd(f.fault)
		if got := banner(t, ctx, l, at); !strings.Contains(got, f.want) {
			t.Errorf("%s: %s, want %s", f.fault.Kind, got, f.want)
		}
		l.Faults.Clear(set.ID)
	}
	if got := banner(t, ctx, l, "198.18.9.9:22"); !strings.Contains(got, "host unreachable") {
		t.Errorf("an address that nobody has: %s", got)
	}
}

// banner is what a peer says first, or why it doesn't.
func banner(t *testing.T, ctx context.Context, l *Lab, at string) string {
	d, err := dial.New(l.SocksURL)
	must(t, err)
	ctx, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	c, err := d.DialContext(ctx, "tcp", at)
	if err != nil {
		if ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded) {
			return "no answer"
		}
		return err.Error()
	}
	defer c.Close()
	must(t, c.SetDeadline(time.Now().Add(300*time.Millisecond)))
	buf := make([]byte, 64)
	n, err := c.Read(buf)
	var ne net.Error
	switch {
	case n > 0:
		return "banner: " + string(buf[:n])
	case errors.As(err, &ne) && ne.Timeout():
		return "timeout"
	}
	return err.Error()
}

func TestMachineFaults(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	l := Start(t, Options{})
	o := newOperator(t, l)
	l.Faults.MustAdd(faults.Fault{Kind: faults.RescueIgnored, Machine: "fsn-1", Times: 1})
	s := o.rescue(ctx, "fsn-1")
	until(t, func() bool { return l.Machine(t, "fsn-1").Stage() == "factory" })
	if !s.RescueEnabled {
		t.Error("rescue_enabled is false although the disk booted")
	}
	l.Faults.MustAdd(faults.Fault{Kind: faults.ResetIgnored, Machine: "fsn-1", Times: 1})
	for want := range 2 {
		a, _, err := o.api.Server.Reset(ctx, s)
		must(t, err)
		must(t, o.api.Action.WaitFor(ctx, a))
		if got := len(l.Machine(t, "fsn-1").Ledger().Boots()); got != want+1 && want == 0 {
			t.Errorf("an ignored reset made boot %d", got)
		}
	}
	until(t, func() bool { return l.Machine(t, "fsn-1").Stage() == "rescue" })
	l.Faults.MustAdd(faults.Fault{Kind: faults.BootHangs, Times: 1})
	must(t, l.Machine(t, "fsn-1").Reset(ctx))
	until(t, func() bool { return l.Machine(t, "fsn-1").Stage() == "dead" })
}

func until(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatal("condition did not come")
		}
		<-time.After(time.Millisecond)
	}
}
