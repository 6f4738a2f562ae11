package hetznerrobot

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"popfleet/provision/provider"
)

func TestOneRefusedLoginStopsTheDriver(t *testing.T) {
	for name, bad := range map[string]fault{
		"401":            {status: 401, code: "UNAUTHORIZED"},
		"403":            {status: 403, code: "FORBIDDEN"},
		"403 of a proxy": {status: 403},
		"401 of a proxy": {status: 401},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T, w world) {
				w.latency = 100 * time.Millisecond
				w.times(-1, "", bad)
				var wg sync.WaitGroup
				for range 20 { // at once: three refusals block the address
					wg.Go(func() {
						wantKind(t, w.d.Reset(w.ctx, "321", provider.Restart{}), provider.ErrUnauthorized)
						_, err := w.d.Servers(w.ctx, "demo")
						wantKind(t, err, provider.ErrUnauthorized)
					})
				}
				wg.Wait()
				if n := w.count(""); n != 1 {
					t.Errorf("%d calls with a refused login", n)
				}
			})
		})
	}
}

func TestALoginThatWorkedAndIsRefusedLaterStopsToo(t *testing.T) {
	in(t, func(t *testing.T, w world) {
		if _, err := w.d.Servers(w.ctx, "demo"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second) // on the test's own clock
		w.mu.Lock()
		w.password = "another"
		w.mu.Unlock()
		for range 5 {
			_, err := w.d.Servers(w.ctx, "demo")
			wantKind(t, err, provider.ErrUnauthorized)
		}
		if n := w.count(""); n != 2 {
			t.Errorf("%d calls", n)
		}
	})
}

func TestALimitIsNoRefusedLogin(t *testing.T) {
	in(t, func(t *testing.T, w world) {
		w.times(3, "GET /server", fault{status: 403, code: "RATE_LIMIT_EXCEEDED", extra: map[string]any{"max_request": 200, "interval": 3600}})
		start := time.Now()
		if _, err := w.d.Servers(w.ctx, "demo"); err != nil {
			t.Fatal(err)
		}
		if spent := time.Since(start); spent < 15*time.Minute || spent > 20*time.Minute || !w.heard("limit for server calls is used up") {
			t.Errorf("after %s, said %q", spent, *w.said)
		}
	})
}

func TestALimitThatNeverEndsIsGivenUp(t *testing.T) {
	in(t, func(t *testing.T, w world) {
		w.times(-1, "GET /server", fault{status: 403, code: "RATE_LIMIT_EXCEEDED", extra: map[string]any{"max_request": 200, "interval": 600}})
		start := time.Now()
		_, err := w.d.Servers(w.ctx, "demo")
		wantKind(t, err, provider.ErrRateLimited)
		if spent := time.Since(start); spent < 10*time.Minute || spent > 12*time.Minute {
			t.Errorf("after %s", spent)
		}
	})
}

func TestALimitDoesNotOutwaitTheCaller(t *testing.T) {
	in(t, func(t *testing.T, w world) {
		w.times(-1, "GET /server", fault{status: 403, code: "RATE_LIMIT_EXCEEDED", extra: map[string]any{"max_request": 200, "interval": 3600}})
		ctx, cancel := context.WithTimeout(w.ctx, time.Minute)
		defer cancel()
		start := time.Now()
		_, err := w.d.Servers(ctx, "demo")
		wantKind(t, err, provider.ErrRateLimited)
		if spent := time.Since(start); spent != 0 {
			t.Errorf("waited %s for nothing", spent)
		}
	})
}

// TestOwnCountKeepsInsideTheLimit holds every class to what Robot allows in any hour.
func TestOwnCountKeepsInsideTheLimit(t *testing.T) {
	in(t, func(t *testing.T, w world) {
		var made []time.Time
		for range 130 {
			if err := w.d.Reset(w.ctx, "321", provider.Restart{}); err != nil {
				t.Fatal(err)
			}
			made = append(made, time.Now())
		}
		for i := 50; i < len(made); i++ {
			if gap := made[i].Sub(made[i-50]); gap < time.Hour {
				t.Fatalf("resets %d and %d are %s apart: more than 50 in an hour", i-50, i, gap)
			}
		}
		if made[44].After(made[0]) {
			t.Errorf("the 45th reset waited %s", made[44].Sub(made[0]))
		}
		if total := made[129].Sub(made[0]); total > 3*time.Hour {
			t.Errorf("130 resets took %s", total)
		}
		if !w.heard("nearly used up") {
			t.Error("it waited in silence")
		}
	})
}

func TestOwnCountDoesNotOutwaitTheCaller(t *testing.T) {
	in(t, func(t *testing.T, w world) {
		for range 45 {
			if err := w.d.Reset(w.ctx, "321", provider.Restart{}); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(w.ctx, 10*time.Second)
		defer cancel()
		wantKind(t, w.d.Reset(ctx, "321", provider.Restart{}), provider.ErrRateLimited)
		if n := w.d.limits[classReset].left(time.Now()); n != 5 {
			t.Errorf("%d left: a wait that was not begun was counted", n)
		}
		if n := w.count("POST /reset/321"); n != 45 {
			t.Errorf("%d resets", n)
		}
	})
}

// TestManyRescuesShareTheLimitOfBootCalls is the arithmetic of large fleets that restart over SSH: three calls a node are
// needed before the first look, so a hundred servers of one account fit into one hour's calls, and more have to wait.
func TestManyRescuesShareTheLimitOfBootCalls(t *testing.T) {
	for nodes, limit := range map[int]time.Duration{1: 90 * time.Second, 45: 2 * time.Minute, 100: 4 * time.Minute, 150: 2 * time.Hour} {
		in(t, func(t *testing.T, w world) {
			w.latency = 100 * time.Millisecond
			start := time.Now()
			var wg sync.WaitGroup
			for i := range nodes {
				b := w.add(1000 + i)
				wg.Go(func() {
					r := restart()
					r.Ask = func(context.Context) error {
						w.mu.Lock()
						defer w.mu.Unlock()
						w.restart(b)
						return nil
					}
					if _, err := w.d.EnterRescue(w.ctx, fmt.Sprint(1000+i), r); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			spent, calls := time.Since(start), w.count("GET /boot")+w.count("POST /boot")
			t.Logf("%d nodes in rescue after %s, %d boot calls", nodes, spent.Round(time.Second), calls)
			if spent > limit || spent < time.Hour && calls > 500 {
				t.Errorf("%d nodes after %s with %d calls", nodes, spent, calls)
			}
		})
	}
}
