package e2e

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"popfleet/internal/dial"
	"popfleet/lab/faults"
	"popfleet/lab/scripted"
	"popfleet/provision/provider"
	"popfleet/provision/remote"
)

func (s *stand) machine(t *testing.T, id string) *scripted.Machine {
	t.Helper()
	return s.lab.Machine(t, id)
}

// until waits for the machine to come to a stage.
func (s *stand) until(t *testing.T, m *scripted.Machine, stage string) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(30 * time.Second); m.Stage() != stage; <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("the machine is %s, not %s", m.Stage(), stage)
		}
	}
}

// login proves that the rescue system which came up is the one that the driver spoke of, and lets the key in.
func (s *stand) login(t *testing.T, addr netip.Addr, r provider.Rescue) {
	t.Helper()
	trust := remote.FirstUse()
	if r.Origin != provider.FirstUse {
		trust = remote.PinnedByFingerprint(r.Fingerprints...)
	}
	d, err := dial.New(s.lab.SocksURL)
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		c, err := remote.Connect(ctx, d, remote.Target{Addr: netip.AddrPortFrom(addr, 22).String(), Trust: trust, Auth: s.signer})
		if err == nil {
			c.Close()
			return
		}
		if wrong := (*remote.HostKeyError)(nil); errors.As(err, &wrong) || ctx.Err() != nil {
			t.Fatalf("log in to rescue: %v", err)
		}
	}
}

func eachProvider(t *testing.T, f func(t *testing.T, s *stand)) {
	for _, name := range providers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f(t, newStand(t, name))
		})
	}
}

// The conformance suite: what provision/provider promises, of every driver.
func TestConformance(t *testing.T) {
	t.Run("a machine's life", func(t *testing.T) { eachProvider(t, conformLife) })
	t.Run("what is not there", func(t *testing.T) { eachProvider(t, conformAbsent) })
	t.Run("wrong credentials are tried once", func(t *testing.T) { eachProvider(t, conformRefused) })
	t.Run("a context that ends", func(t *testing.T) { eachProvider(t, conformCancel) })
	t.Run("many at once", func(t *testing.T) { eachProvider(t, conformSideBySide) })
	exchanged.Lock()
	defer exchanged.Unlock()
	t.Logf("exchanges held against the providers' descriptions: %v", exchanged.total)
}

func conformLife(t *testing.T, s *stand) {
	ctx := t.Context()
	before := time.Now().Add(-time.Minute)
	server, err := s.driver.Ensure(ctx, s.wanted)
	must(t, err)
	again, err := s.driver.Ensure(ctx, s.wanted)
	must(t, err)
	if again.ID != server.ID {
		t.Fatalf("ensured twice: server %s, then %s", server.ID, again.ID)
	}
	found, ok, err := s.driver.Describe(ctx, "demo", "fsn-1")
	if err != nil || !ok || found.ID != server.ID || found.Addr4 != server.Addr4 || !found.Addr4.IsValid() {
		t.Errorf("described: %+v %t %v", found, ok, err)
	}
	all, err := s.driver.Servers(ctx, "demo")
	if err != nil || len(all) != 1 || all["fsn-1"].ID != server.ID {
		t.Errorf("listed: %v %v", all, err)
	}
	m := s.machine(t, server.ID)
	var shown []string
	for round := range 2 { // from whatever it is, then from rescue
		rescue, err := s.driver.EnterRescue(ctx, server.ID, provider.Restart{Key: s.key})
		must(t, err)
		s.until(t, m, "rescue")
		s.login(t, server.Addr4, rescue)
		if rescue.Origin != provider.FirstUse && (len(rescue.Fingerprints) == 0 || slices.Equal(rescue.Fingerprints, shown)) {
			t.Errorf("round %d: keys %v, before %v: expected fresh ones", round, rescue.Fingerprints, shown)
		}
		shown = rescue.Fingerprints
	}
	acts, err := s.driver.Activity(ctx, server.ID, before)
	if err != nil || !slices.ContainsFunc(acts, func(a provider.Activity) bool { return a.Risky }) {
		t.Errorf("activity after rescue: %v %v: nothing risky", acts, err)
	}
	for _, act := range []string{"boot disk", "reset"} { // rescue must not come back
		boots := len(m.Ledger().Boots())
		if act == "reset" {
			must(t, s.driver.Reset(ctx, server.ID, provider.Restart{Try: 1}))
		} else {
			must(t, s.driver.BootDisk(ctx, server.ID, provider.Restart{}))
		}
		waitBoots(t, m, boots+1)
		if last := m.Ledger().Boots()[len(m.Ledger().Boots())-1]; last.Stage == "rescue" {
			t.Errorf("%s came to rescue", act)
		}
	}
	if armed := s.armed(t, server.ID); len(armed) > 0 {
		t.Errorf("after booting the disk something is still armed: %v", armed)
	}
	for _, name := range []string{"fsn-1.demo.test", "fsn-1.demo.test", "fsn-1.other.test", ""} {
		must(t, s.driver.SetReverse(ctx, server.ID, server.Addr4, name))
		got, err := s.driver.Reverse(ctx, server.ID, server.Addr4)
		if err != nil || name != "" && got != name || name == "" && got == "fsn-1.other.test" {
			t.Errorf("reverse name %q, wanted %q, %v", got, name, err)
		}
	}
	for range 2 { // the second time it is gone already
		steps, err := s.driver.Release(ctx, server.ID)
		must(t, err)
		if (s.wanted.Server != "") != (len(steps) > 0) {
			t.Errorf("left for a person to do: %q", steps)
		}
	}
	if _, ok, err := s.driver.Describe(ctx, "demo", "fsn-1"); err != nil || ok != (s.wanted.Server != "") {
		t.Errorf("after release: there %t, %v: a contract must go on, a cloud server must not", ok, err)
	}
}

// armed is what the provider holds ready for the next start.
func (s *stand) armed(t *testing.T, id string) (out []provider.Activity) {
	t.Helper()
	acts, err := s.driver.Activity(t.Context(), id, time.Now().Add(time.Hour))
	must(t, err)
	for _, a := range acts {
		if a.At.IsZero() && a.Risky {
			out = append(out, a)
		}
	}
	return out
}

func waitBoots(t *testing.T, m *scripted.Machine, n int) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(30 * time.Second); len(m.Ledger().Boots()) < n; <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("%d boots, waited for %d", len(m.Ledger().Boots()), n)
		}
	}
}

func conformAbsent(t *testing.T, s *stand) {
	ctx := t.Context()
	if _, ok, err := s.driver.Describe(ctx, "demo", "fsn-7"); ok || err != nil {
		t.Errorf("a node nobody has: %t %v", ok, err)
	}
	nobody := map[bool]string{true: "999999", false: "ns999.ip-203-0-113.eu"}[s.lab.OVH == nil]
	for what, err := range map[string]error{
		"enter rescue": second(s.driver.EnterRescue(ctx, nobody, provider.Restart{Key: s.key})),
		"boot disk":    s.driver.BootDisk(ctx, nobody, provider.Restart{}),
		"reset":        s.driver.Reset(ctx, nobody, provider.Restart{}),
	} {
		var told *provider.Error
		if !errors.Is(err, provider.ErrNotFound) || !errors.As(err, &told) || told.Op == "" {
			t.Errorf("%s of a server that is not there: %v", what, err)
		}
	}
	w := s.wanted
	w.Node, w.Server = "fsn-7", ""
	_, err := s.driver.Ensure(ctx, w)
	if dedicated := s.wanted.Server != ""; dedicated != errors.Is(err, provider.ErrNotAdopted) {
		t.Errorf("a node that names no server: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

func conformRefused(t *testing.T, s *stand) {
	f := s.lab.Faults.MustAdd(faults.Fault{Kind: faults.Unauthorized})
	for range 3 {
		if _, _, err := s.driver.Describe(t.Context(), "demo", "fsn-1"); !errors.Is(err, provider.ErrUnauthorized) {
			t.Errorf("refused credentials: %v", err)
		}
	}
	most := 3 // one a call
	if s.lab.Robot != nil {
		most = 1 // which blocks the source's address after three
	}
	if n := s.lab.Faults.Hits(f.ID); n > most {
		t.Errorf("%d requests were refused; expected no more than %d", n, most)
	}
}

func conformCancel(t *testing.T, s *stand) {
	server, err := s.driver.Ensure(t.Context(), s.wanted)
	must(t, err)
	s.lab.Faults.MustAdd(faults.Fault{Kind: faults.Hang})
	ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
	defer cancel()
	began := time.Now()
	if err := s.driver.Reset(ctx, server.ID, provider.Restart{}); err == nil {
		t.Error("a provider that hangs was believed")
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %s to give up", took)
	}
}

func conformSideBySide(t *testing.T, s *stand) {
	server, err := s.driver.Ensure(t.Context(), s.wanted)
	must(t, err)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if _, err := s.driver.Servers(t.Context(), "demo"); err != nil {
				t.Error(err)
			}
			if _, err := s.driver.Activity(t.Context(), server.ID, time.Now()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}
