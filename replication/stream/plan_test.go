package stream

import (
	"reflect"
	"testing"
	"time"

	"popfleet/replication/oplog"
)

// asked is a connection that only remembers.
type asked struct {
	last  subscribe
	times int
}

func (a *asked) want(s subscribe) { a.last, a.times = s, a.times+1 }

type planTest struct {
	*testing.T
	p    *plan
	now  time.Time
	have oplog.Vector
}

func (t *planTest) expect(after time.Duration, want map[string][]uint8) {
	t.Helper()
	t.now = t.now.Add(after)
	t.p.decide(t.have, t.now)
	for node, origins := range want {
		if got := t.p.chosen(node); !reflect.DeepEqual(got, origins) {
			t.Errorf("%s is asked for %v, want %v", node, got, origins)
		}
	}
}

func TestWhoIsAskedForWhat(tt *testing.T) {
	peers := []Peer{{Node: "b", Origin: 2}, {Node: "c", Origin: 3}, {Node: "d", Origin: 4}}
	t := &planTest{tt, newPlan(1, peers, 2*time.Second), time.Unix(1e9, 0), oplog.Vector{1: 50, 2: 10, 3: 10}}
	b, c := &asked{}, &asked{}
	t.p.joined("b", b, oplog.Vector{1: 40, 2: 10, 3: 9})
	t.expect(0, map[string][]uint8{"b": {2, 3}}) // 3's own node is not there yet
	t.p.joined("c", c, oplog.Vector{1: 50, 2: 8, 3: 12, 9: 5})
	t.expect(0, map[string][]uint8{"b": {2}, "c": {3, 9}})
	if want := map[uint8]uint64{3: 10, 9: 0}; !reflect.DeepEqual(c.last.from, want) {
		t.Errorf("c was asked for %v, want %v", c.last.from, want)
	}
	t.p.heard("b", oplog.Vector{2: 10, 3: 11, 4: 7, 9: 100}) // more of 9 than c: no reason to change
	t.expect(time.Second, map[string][]uint8{"b": {2, 4}, "c": {3, 9}})
	t.have[3], t.have[4], t.have[9] = 12, 7, 5
	t.expect(500*time.Millisecond, map[string][]uint8{"b": {2, 4}, "c": {3, 9}})
	t.have[9] = 6
	t.expect(time.Second, map[string][]uint8{"b": {2, 4}, "c": {3, 9}})
	t.expect(2100*time.Millisecond, map[string][]uint8{"b": {2, 4, 9}, "c": {3}}) // c got nowhere with 9
	t.p.left("c")
	t.expect(0, map[string][]uint8{"b": {2, 3, 4, 9}, "c": nil})
	t.p.joined("c", c, oplog.Vector{3: 12, 1: 60})
	t.expect(0, map[string][]uint8{"b": {2, 4, 9}, "c": {1, 3}}) // own entries, which were lost here
	t.have[1] = 60
	t.expect(0, map[string][]uint8{"c": {3}})
	t.p.cannot("b", 4, t.now)
	t.expect(0, map[string][]uint8{"b": {2, 9}})
	t.have[9] = 100
	t.expect(forgive, map[string][]uint8{"b": {2, 4, 9}})
	before := b.times
	t.expect(time.Second, nil)
	if b.times != before {
		t.Error("asked again though nothing changed")
	}
}

func TestAStalledOriginIsAskedOfOthersEverMoreRarely(tt *testing.T) {
	t := &planTest{tt, newPlan(1, []Peer{{Node: "b", Origin: 2}, {Node: "c", Origin: 3}}, 2*time.Second), time.Unix(1e9, 0), oplog.Vector{}}
	b, c := &asked{}, &asked{}
	t.p.joined("b", b, oplog.Vector{2: 10})
	t.p.joined("c", c, oplog.Vector{2: 10})
	for range 600 {
		t.expect(time.Second, nil)
	}
	if b.times+c.times > 80 {
		t.Errorf("asked %d times in ten minutes without progress", b.times+c.times)
	}
}
