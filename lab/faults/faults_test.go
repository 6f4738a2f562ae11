package faults

import (
	"encoding/json"
	"testing"
	"time"
)

func TestTake(t *testing.T) {
	machine := []string{"1001", "fsn-1", "198.18.0.10"}
	api := Occasion{Layer: API, Machine: machine, Call: []string{"start_server", "POST /servers/{id}/actions/poweron"}}
	for _, c := range []struct {
		name  string
		fault Fault
		at    Occasion
		want  bool
	}{
		{"any", Fault{Kind: Locked}, api, true},
		{"by name", Fault{Kind: Locked, Machine: "fsn-1"}, api, true},
		{"by id", Fault{Kind: Locked, Machine: "1001"}, api, true},
		{"by address", Fault{Kind: Locked, Machine: "198.18.0.10"}, api, true},
		{"another machine", Fault{Kind: Locked, Machine: "fsn-2"}, api, false},
		{"by call", Fault{Kind: Locked, Call: "start_server"}, api, true},
		{"by route, any case", Fault{Kind: Locked, Call: "post /servers/{id}/actions/poweron"}, api, true},
		{"another call", Fault{Kind: Locked, Call: "create_server"}, api, false},
		{"another layer", Fault{Kind: Refuse}, api, false},
		{"port", Fault{Kind: Refuse, Port: 22}, Occasion{Layer: Net, Machine: machine, Port: 22}, true},
		{"another port", Fault{Kind: Refuse, Port: 22}, Occasion{Layer: Net, Machine: machine, Port: 2222}, false},
		{"provider", Fault{Kind: Slow, Provider: "ovh"}, Occasion{Layer: API, Provider: "ovh"}, true},
		{"another provider", Fault{Kind: Slow, Provider: "ovh"}, Occasion{Layer: API, Provider: "hetznercloud"}, false},
		{"any provider", Fault{Kind: Slow}, Occasion{Layer: API, Provider: "hetznercloud"}, true},
		{"step", Fault{Kind: InstallFails, Step: "luks"}, Occasion{Layer: Node, Machine: machine, Step: "image"}, false},
	} {
		var s Set
		s.MustAdd(c.fault)
		if _, got := s.Take(c.at); got != c.want {
			t.Errorf("%s: struck %v, want %v", c.name, got, c.want)
		}
	}
}

func TestTimesAndSkip(t *testing.T) {
	var s Set
	f := s.MustAdd(Fault{Kind: Locked, Skip: 1, Times: 2})
	var got []bool
	for range 5 {
		_, ok := s.Take(Occasion{Layer: API})
		got = append(got, ok)
	}
	want := []bool{false, true, true, false, false}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("struck %v, want %v", got, want)
		}
	}
	if s.Hits(f.ID) != 2 {
		t.Errorf("%d hits, want 2", s.Hits(f.ID))
	}
	if len(s.List()) != 0 {
		t.Error("a used-up fault is still set")
	}
}

func TestNetworkFaultEndsAfterItsTime(t *testing.T) {
	var s Set
	s.MustAdd(Fault{Kind: Refuse, For: Duration(time.Nanosecond)})
	at := Occasion{Layer: Net, Port: 22}
	if _, ok := s.Take(at); !ok {
		t.Fatal("the first connection was not refused")
	}
	for deadline := time.Now().Add(time.Second); ; {
		if _, ok := s.Take(at); !ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("still refused")
		}
	}
}

func TestAddRefuses(t *testing.T) {
	var s Set
	for _, f := range []Fault{{Kind: "no-such"}, {Kind: Locked, Times: -1}, {Kind: Slow, For: -1}, {Kind: DiskMissing, Disk: -1}, {Kind: Refuse, Provider: "ovh"}} {
		if _, err := s.Add(f); err == nil {
			t.Errorf("%+v was taken", f)
		}
	}
}

func TestAddRefusesACallThatDoesNotExist(t *testing.T) {
	var s Set
	s.Know([]string{"reset_server", "reset"})
	if _, err := s.Add(Fault{Kind: Locked, Call: "Reset"}); err != nil {
		t.Error(err)
	}
	if _, err := s.Add(Fault{Kind: Locked, Call: "resset"}); err == nil {
		t.Error("a fault that can never strike was taken")
	}
}

func TestEveryKindHasALayerAndWords(t *testing.T) {
	seen := map[Kind]bool{}
	for _, d := range Kinds() {
		if d.Text == "" || d.Layer == "" || seen[d.Kind] {
			t.Errorf("kind %q: no words, no layer, or twice", d.Kind)
		}
		seen[d.Kind] = true
	}
}

func TestDurationInJSON(t *testing.T) {
	data, err := json.Marshal(Fault{Kind: Slow, For: Duration(1500 * time.Millisecond)})
	if err != nil || string(data) != `{"kind":"slow","for":"1.5s"}` {
		t.Errorf("%s %v", data, err)
	}
	var f Fault
	if err := json.Unmarshal([]byte(`{"kind":"slow","for":"soon"}`), &f); err == nil {
		t.Error("a duration without a number was taken")
	}
}
