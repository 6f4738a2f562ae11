package controller

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"popfleet/agents"
)

func TestFreshnessNeedsASecondWitness(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench, _ keysOf) {
		other := func(seq uint64) {
			b.w.accept("fsn-2", []agents.Report{{V: 1, Node: "fsn-2", BootID: "x", Seq: seq, Time: time.Now(),
				Pairs: []agents.Pair{{From: node, State: "connected"}}}})
		}
		is := func(want string, heardBy ...string) {
			t.Helper()
			n := b.w.status().Nodes[0]
			if n.Freshness != want || !slices.Equal(n.HeardBy, heardBy) {
				t.Errorf("%s, heard by %v; expected %s, %v", n.Freshness, n.HeardBy, want, heardBy)
			}
		}
		is(Never)
		b.report("boot-1", 1)
		reported := time.Now()
		is(Fresh)
		after(25 * time.Second)
		other(1)
		is(Fresh, "fsn-2")
		after(20 * time.Second)
		other(2)
		is(Late, "fsn-2")
		after(time.Minute) // the peer has fallen silent too, and nothing answers
		is(Unreachable)
		if age := *b.w.status().Nodes[0].LastReportAgeSec; age != time.Since(reported).Seconds() {
			t.Errorf("age %gs", age)
		}
		b.report("boot-1", 2)
		is(Fresh)
		if since := b.w.status().Nodes[0].Since; time.Since(since) > time.Second {
			t.Errorf("fresh since %s ago", time.Since(since))
		}
	})
}

func TestAStaleReceiverMakesItsPairsUnknown(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench, _ keysOf) {
		rtt := 1.5
		b.w.accept(node, []agents.Report{{V: 1, Node: node, BootID: "x", Seq: 1, Time: time.Now(),
			Pairs: []agents.Pair{{From: "fsn-2", State: "connected", RTTMs: &rtt}}}})
		after(25 * time.Second)
		if p := b.w.status().Pairs[0]; p.From != "fsn-2" || p.To != node || p.State != "connected" || *p.RTTMs != rtt {
			t.Errorf("%+v", p)
		}
		after(10 * time.Second)
		if p := b.w.status().Pairs[0]; p.State != PairUnknown || p.RTTMs != nil || p.Why != "fsn-1 has not reported for 35s" {
			t.Errorf("%+v", p)
		}
	})
}

func TestNewer(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	have := agents.Report{BootID: "b", Seq: 10, Time: now}
	for name, c := range map[string]struct {
		report agents.Report
		silent time.Duration
		want   bool
	}{
		"next":                               {agents.Report{BootID: "b", Seq: 11, Time: now}, 0, true},
		"resend":                             {agents.Report{BootID: "b", Seq: 10, Time: now}, 0, false},
		"spooled":                            {agents.Report{BootID: "b", Seq: 3, Time: now.Add(time.Hour)}, time.Hour, false},
		"clock put back within a boot":       {agents.Report{BootID: "b", Seq: 11, Time: now.Add(-time.Hour)}, 0, true},
		"next boot":                          {agents.Report{BootID: "c", Seq: 1, Time: now.Add(time.Minute)}, time.Minute, true},
		"spool of the boot before":           {agents.Report{BootID: "a", Seq: 99, Time: now.Add(-time.Minute)}, time.Hour, false},
		"spool of a boot never heard":        {agents.Report{BootID: "c", Seq: 99, Time: now.Add(-time.Minute)}, 0, false},
		"next boot, with its clock put back": {agents.Report{BootID: "c", Seq: 1, Time: now.Add(-time.Hour)}, time.Minute, true},
	} {
		t.Run(name, func(t *testing.T) {
			rec := record{report: &have, received: now, boots: []string{"a", "b"}}
			if got := rec.newer(&c.report, now.Add(c.silent), 30*time.Second); got != c.want {
				t.Errorf("newer: %v", got)
			}
		})
	}
}

func TestBatchTakesTheNewest(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench, _ keysOf) {
		at := func(boot string, seq uint64) agents.Report {
			return agents.Report{V: 1, Node: node, BootID: boot, Seq: seq, Time: time.Now().Add(time.Duration(seq) * time.Second)}
		}
		if acked := b.w.accept(node, []agents.Report{at("b", 1), at("b", 2), at("b", 3)}); acked != 3 {
			t.Errorf("acked %d", acked)
		}
		if acked := b.w.accept(node, []agents.Report{at("b", 1), at("b", 2)}); acked != 2 { // replayed from the spool
			t.Errorf("acked %d", acked)
		}
		if r := b.w.status().Nodes[0].Report; r.Seq != 3 {
			t.Errorf("kept %d", r.Seq)
		}
	})
}

func TestStoreRefusesALaterSchema(t *testing.T) {
	path := t.TempDir() + "/controller.db"
	s, err := openStore(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.db.Exec(`PRAGMA user_version = 2`); err != nil {
		t.Fatal(err)
	}
	s.close()
	if _, err := openStore(path); err == nil || !strings.Contains(err.Error(), "later controller") {
		t.Errorf("opened: %v", err)
	}
}

func BenchmarkAccept(b *testing.B) {
	r := agents.Report{V: 1, Node: node, BootID: "b", Time: time.Now(), Services: make([]agents.Service, 6), Disks: make([]agents.Disk, 2), Pairs: make([]agents.Pair, 8)}
	text, _ := json.Marshal([]agents.Report{r})
	s, err := openStore(b.TempDir() + "/controller.db")
	if err != nil {
		b.Fatal(err)
	}
	defer s.close()
	board := &board{cfg: Config{}.complete(), store: s, now: wallClock, records: map[string]*record{}}
	for i := 0; b.Loop(); i++ {
		var reports []agents.Report
		if err := json.Unmarshal(text, &reports); err != nil {
			b.Fatal(err)
		}
		reports[0].Seq = uint64(i + 1)
		board.accept(node, reports)
		if i%100 == 0 { // a hundred nodes a second
			if err := board.flush(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	}
}
