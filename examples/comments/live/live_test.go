package live

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// shelf is a store of events; put makes one as another node would.
type shelf struct {
	mu     sync.Mutex
	events map[string]Event
	at     map[string]time.Time
	err    error
	full   int
}

func newShelf() *shelf { return &shelf{events: map[string]Event{}, at: map[string]time.Time{}} }

func (s *shelf) put(id string, revision int64, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events[id], s.at[id] = event(id, revision), at
}

func (s *shelf) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *shelf) look(_ context.Context, _ string, since time.Time) ([]Event, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if since.IsZero() {
		s.full++
	}
	var found []Event
	for id, e := range s.events {
		if !s.at[id].Before(since) {
			found = append(found, e)
		}
	}
	return found, s.err
}

func event(id string, revision int64) Event {
	return Event{Kind: "comment", ID: id, Revision: revision, Data: fmt.Appendf(nil, "%d", revision)}
}

// inBubble runs test with a hub that looks once per second of the bubble's time.
func inBubble(t *testing.T, test func(t *testing.T, h *Hub, s *shelf)) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		s := newShelf()
		h := New(s.look, 3, slog.New(slog.DiscardHandler))
		go h.Run(ctx, time.Second)
		test(t, h, s)
	})
}

func watch(t *testing.T, h *Hub) *Watcher {
	t.Helper()
	w, err := h.Watch(t.Context(), "t")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Stop)
	return w
}

func expect(t *testing.T, w *Watcher, want ...Event) {
	t.Helper()
	for _, e := range want {
		select {
		case got, open := <-w.C:
			if !open || got.ID != e.ID || got.Revision != e.Revision {
				t.Fatalf("got %+v (open %t), want %+v", got, open, e)
			}
		case <-time.After(time.Hour): // of the bubble
			t.Fatalf("nothing came, want %+v", e)
		}
	}
}

func expectNothing(t *testing.T, w *Watcher) {
	t.Helper()
	select {
	case got, open := <-w.C:
		t.Fatalf("got %+v (open %t), want nothing", got, open)
	case <-time.After(2 * time.Minute):
	}
}

func TestOwnWritesArriveAtOnceAndOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, h *Hub, s *shelf) {
		w := watch(t, h)
		start := time.Now()
		s.put("a", 1, time.Now())
		h.Publish("t", event("a", 1))
		expect(t, w, event("a", 1))
		if d := time.Since(start); d != 0 {
			t.Fatalf("it took %s", d)
		}
		h.Publish("elsewhere", event("b", 1))
		expectNothing(t, w) // the looks find a, which was told already
	})
}

func TestWritesOfOthersArriveWithinALook(t *testing.T) {
	inBubble(t, func(t *testing.T, h *Hub, s *shelf) {
		w := watch(t, h)
		start := time.Now()
		s.put("a", 1, time.Now().Add(-30*time.Second)) // stamped by a slower clock
		expect(t, w, event("a", 1))
		if d := time.Since(start); d > time.Second {
			t.Fatalf("it took %s", d)
		}
		s.put("a", 2, time.Now())
		expect(t, w, event("a", 2))
	})
}

func TestAnOlderStateNeverFollowsANewer(t *testing.T) {
	inBubble(t, func(t *testing.T, h *Hub, s *shelf) {
		w := watch(t, h)
		h.Publish("t", event("a", 3))
		h.Publish("t", event("a", 2))
		expect(t, w, event("a", 3))
		expectNothing(t, w)
	})
}

func TestWhatArrivesLongAfterItWasStampedIsFound(t *testing.T) {
	inBubble(t, func(t *testing.T, h *Hub, s *shelf) {
		w := watch(t, h)
		s.put("a", 1, time.Now().Add(-time.Hour)) // a partition has healed
		start := time.Now()
		expect(t, w, event("a", 1))
		if d := time.Since(start); d > fullEvery*time.Second {
			t.Fatalf("it took %s", d)
		}
	})
}

func TestWhatWasThereIsNotTold(t *testing.T) {
	inBubble(t, func(t *testing.T, h *Hub, s *shelf) {
		s.put("a", 1, time.Now())
		expectNothing(t, watch(t, h))
	})
}

func TestTheSecondWatcherWaitsForTheFirstLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		h := New(func(context.Context, string, time.Time) ([]Event, error) { <-gate; return nil, nil }, 3, slog.New(slog.DiscardHandler))
		done := make(chan error, 2)
		for range 2 {
			go func() {
				w, err := h.Watch(t.Context(), "t")
				if err == nil {
					w.Stop()
				}
				done <- err
			}()
		}
		synctest.Wait()
		if len(done) != 0 {
			t.Fatal("a watcher did not wait for the look")
		}
		close(gate)
		if err := errors.Join(<-done, <-done); err != nil {
			t.Fatal(err)
		}
	})
}

func TestAStoreThatIsAwayRefusesWatchersAndIsAskedAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, h *Hub, s *shelf) {
		away := errors.New("away")
		s.fail(away)
		if _, err := h.Watch(t.Context(), "t"); !errors.Is(err, away) {
			t.Fatalf("got %v", err)
		}
		if n := h.Watchers(); n != 0 {
			t.Fatalf("%d watchers left", n)
		}
		s.fail(nil)
		w := watch(t, h)
		s.fail(away)
		s.put("a", 1, time.Now())
		time.Sleep(5 * time.Second) // the bubble's: looks fail meanwhile
		s.fail(nil)
		expect(t, w, event("a", 1))
	})
}

func TestAWatcherWhoFallsBehindIsCutOff(t *testing.T) {
	inBubble(t, func(t *testing.T, h *Hub, s *shelf) {
		slow, quick := watch(t, h), watch(t, h)
		for i := range int64(buffer + 1) {
			h.Publish("t", event("a", i+1))
			expect(t, quick, event("a", i+1))
		}
		n := 0
		for range slow.C {
			n++
		}
		if n != buffer || h.Watchers() != 1 {
			t.Fatalf("the slow one got %d, %d watchers left", n, h.Watchers())
		}
	})
}

func TestLimitAndDrain(t *testing.T) {
	inBubble(t, func(t *testing.T, h *Hub, s *shelf) {
		all := []*Watcher{watch(t, h), watch(t, h), watch(t, h)}
		if _, err := h.Watch(t.Context(), "t"); !errors.Is(err, ErrFull) {
			t.Fatalf("got %v", err)
		}
		h.Drain()
		for _, w := range all {
			if _, open := <-w.C; open {
				t.Fatal("a stream outlived the drain")
			}
		}
		if _, err := h.Watch(t.Context(), "t"); !errors.Is(err, ErrEnded) {
			t.Fatalf("got %v", err)
		}
		h.Undrain()
		h.Publish("t", event("a", 1))
		expectNothing(t, watch(t, h))
	})
}
