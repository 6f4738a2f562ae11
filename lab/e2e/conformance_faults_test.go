package e2e

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"popfleet/lab/faults"
	"popfleet/lab/scripted"
	"popfleet/provision/provider"
)

// restarts runs everything a node's life asks of a provider, and says where it ended.
func (s *stand) restarts(ctx context.Context, t *testing.T) error {
	server, err := s.driver.Ensure(ctx, s.wanted)
	if err != nil {
		return fmt.Errorf("ensure: %w", err)
	}
	m := s.machine(t, server.ID)
	if !server.Off {
		s.until(t, m, "factory") // a system that still starts does not hear Ctrl-Alt-Del
	}
	rescue, err := s.driver.EnterRescue(ctx, server.ID, provider.Restart{Key: s.key})
	if err != nil {
		return fmt.Errorf("enter rescue: %w", err)
	}
	s.until(t, m, "rescue")
	s.login(t, server.Addr4, rescue)
	if err := s.leaveRescue(ctx, m, server.ID); err != nil {
		return err
	}
	if err := s.driver.SetReverse(ctx, server.ID, server.Addr4, "fsn-1.demo.test"); err != nil {
		return fmt.Errorf("reverse: %w", err)
	}
	if armed := s.armed(t, server.ID); len(armed) > 0 {
		return fmt.Errorf("still armed: %v", armed)
	}
	_, err = s.driver.Release(ctx, server.ID)
	return err
}

// leaveRescue boots the disk as a node's life does: a button whose answer was lost may not have been pressed, which only
// the machine can tell; then it is pressed again, harder.
func (s *stand) leaveRescue(ctx context.Context, m *scripted.Machine, id string) error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for try := range 3 {
		if err := s.driver.BootDisk(ctx, id, provider.Restart{Try: try}); err != nil {
			return fmt.Errorf("boot disk: %w", err)
		}
		for end := time.Now().Add(2 * time.Second); time.Now().Before(end); <-tick.C {
			if m.Stage() == "factory" {
				return nil
			}
		}
	}
	return fmt.Errorf("the machine is still %s", m.Stage())
}

// pathFaults are what a bad day has for every single call. A rate limit says a short interval: Robot's own is an hour,
// where giving up is right.
var pathFaults = []faults.Fault{
	{Kind: faults.BadGateway}, {Kind: faults.Unavailable}, {Kind: faults.GatewayTimeout}, {Kind: faults.RateLimited, For: faults.Duration(time.Second)},
	{Kind: faults.Hang}, {Kind: faults.ReplyLost}, {Kind: faults.Slow, For: faults.Duration(50 * time.Millisecond)},
}

// Every single call of that path, of every provider, fails in every way that a bad day has: each case comes through,
// with one server.
func TestConformanceUnderFaults(t *testing.T) {
	var cases []matrixCase
	for _, name := range providers {
		calls := countCalls(t, name)
		for _, f := range pathFaults {
			for i := range calls {
				f := f
				f.Skip, f.Times = i, 1
				cases = append(cases, matrixCase{fmt.Sprintf("%s/%s at call %d", name, f.Kind, i+1), name, string(f.Kind),
					func(t *testing.T) ending { return restartUnder(t, name, f) }})
			}
		}
	}
	runMatrix(t, "calls of the drivers", 1, cases)
}

func restartUnder(t *testing.T, name string, f faults.Fault) ending {
	s := newStand(t, name)
	f = s.lab.Faults.MustAdd(f)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := s.restarts(ctx, t); err != nil {
		t.Errorf("one fault was not survived: %v", err)
		return stopped
	}
	if n := len(s.lab.Machines.Machines()); s.wanted.Server == "" && n != 1 {
		t.Errorf("%d servers were created", n)
	}
	if s.lab.Faults.Hits(f.ID) == 0 {
		return missed
	}
	return converged
}

// Robot's rate limit tells an interval of an hour: nothing is waited for, and the reason is the limit.
func TestConformanceRateLimitOfAnHour(t *testing.T) {
	t.Parallel()
	s := newStand(t, provider.HetznerRobot)
	s.lab.Faults.MustAdd(faults.Fault{Kind: faults.RateLimited, Skip: 1, Times: 1})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // without a deadline the driver waits, aloud
	defer cancel()
	began := time.Now()
	if err := s.restarts(ctx, t); !errors.Is(err, provider.ErrRateLimited) {
		t.Errorf("limited for an hour: %v", err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %s to stop", took)
	}
}

// countCalls is how many calls the path takes when nothing fails.
func countCalls(t *testing.T, name string) int {
	t.Helper()
	s := newStand(t, name)
	f := s.lab.Faults.MustAdd(faults.Fault{Kind: faults.Slow, For: 1})
	must(t, s.restarts(t.Context(), t))
	return s.lab.Faults.Hits(f.ID)
}
