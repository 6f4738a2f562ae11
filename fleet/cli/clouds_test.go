package cli

import (
	"slices"
	"strings"
	"testing"

	"popfleet/inventory"
	"popfleet/provision/lifecycle"
)

func TestScopeLeavesOthersAlone(t *testing.T) {
	f := inventory.Fleet{PoPs: []inventory.PoP{
		{Name: "fsn", Nodes: []inventory.Node{{Name: "fsn-1"}, {Name: "fsn-2"}}},
		{Name: "gra", Nodes: []inventory.Node{{Name: "gra-1"}, {Name: "gra-2"}}},
		{Name: "hel", Nodes: []inventory.Node{{Name: "hel-1"}}},
	}}
	exists := func(node string) bool { return node == "gra-2" }
	tests := map[string]struct{ named, want []string }{
		"nothing named":               {nil, []string{"fsn-1", "fsn-2", "gra-1", "gra-2", "hel-1"}},
		"a PoP":                       {[]string{"fsn"}, []string{"fsn-1", "fsn-2", "gra-2"}},
		"a node":                      {[]string{"fsn-2"}, []string{"fsn-2", "gra-2"}},
		"one that exists":             {[]string{"gra-2"}, []string{"gra-2"}},
		"a PoP and a node of another": {[]string{"hel", "gra-1"}, []string{"gra-1", "gra-2", "hel-1"}},
	}
	for name, c := range tests {
		t.Run(name, func(t *testing.T) {
			got := scope(f, c.named, exists)
			var names []string
			for _, n := range got.Resolved() {
				names = append(names, n.Name)
			}
			if !slices.Equal(names, c.want) {
				t.Errorf("%v, want %v", names, c.want)
			}
			if len(f.PoPs) != 3 || len(f.PoPs[1].Nodes) != 2 {
				t.Error("the fleet itself was changed")
			}
		})
	}
}

func TestCredentialsOfATokenCommand(t *testing.T) {
	three := []string{"OVH_APPLICATION_KEY", "OVH_APPLICATION_SECRET", "OVH_CONSUMER_KEY"}
	for line, want := range map[string][]string{
		"a:b:c":   {"a", "b", "c"},
		"a:b:c:d": {"a", "b", "c:d"},
		"a:b":     nil,
		"a::c":    nil,
		"":        nil,
	} {
		got, err := split("token_command", inventory.SecretText(line), three)
		if (err == nil) != (want != nil) {
			t.Errorf("%q: %v", line, err)
		}
		if err != nil && !strings.Contains(err.Error(), "OVH_APPLICATION_KEY:OVH_APPLICATION_SECRET") {
			t.Errorf("%q: %v does not say what was expected", line, err)
		}
		for i, w := range want {
			if string(got[i].Reveal()) != w {
				t.Errorf("%q: part %d is wrong", line, i)
			}
		}
	}
}

func TestADedicatedServerIsErasedOnlyByName(t *testing.T) {
	machine := inventory.Machine{Provider: inventory.ProviderHetznerRobot, Server: "321"}
	install := []lifecycle.Operation{{Op: lifecycle.OpEnterRescue}, {Op: lifecycle.OpInstall, Erases: true}}
	proposal := func(m inventory.Machine, seen lifecycle.Observation, ops []lifecycle.Operation) plan {
		return plan{proposals: []lifecycle.Proposal{{Node: lifecycle.Node{Name: "fsn-3", PoP: "fsn", Machine: m}, Seen: seen, Plan: ops}}}
	}
	tests := map[string]struct {
		p       plan
		adopt   []string
		refused bool
	}{
		"never seen before":     {proposal(machine, lifecycle.Observation{}, install), nil, true},
		"another was named":     {proposal(machine, lifecycle.Observation{}, install), []string{"fsn-4"}, true},
		"named":                 {proposal(machine, lifecycle.Observation{}, install), []string{"fsn-3"}, false},
		"its install goes on":   {proposal(machine, lifecycle.Observation{Pending: true}, install), nil, false},
		"nothing to install":    {proposal(machine, lifecycle.Observation{}, install[:1]), nil, false},
		"a cloud server is new": {proposal(inventory.Machine{Provider: inventory.ProviderHetznerCloud}, lifecycle.Observation{}, install), nil, false},
	}
	for name, c := range tests {
		t.Run(name, func(t *testing.T) {
			err := c.p.refuseUnadopted(c.adopt, "fleet up fsn")
			if (err != nil) != c.refused {
				t.Fatalf("refused: %v", err)
			}
			if err != nil && !strings.Contains(err.Error(), "fleet up fsn --adopt fsn-3") {
				t.Errorf("no way on: %v", err)
			}
		})
	}
}
