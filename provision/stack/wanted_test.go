package stack_test

import (
	"slices"
	"strings"
	"testing"

	"popfleet/inventory"
	"popfleet/provision/hetznercloud"
	"popfleet/provision/stack"
)

func TestWant(t *testing.T) {
	f := fleet("fsn-1", "fsn-2")
	f.Defaults = inventory.Machine{ServerType: "cx23", Location: "nbg1"}
	f.PoPs[0].Machine.Location = "fsn1"
	f.PoPs[0].Nodes[1].Machine.ServerType = "cx33"
	f.PoPs = append(f.PoPs,
		inventory.PoP{Name: "ash", Machine: inventory.Machine{Location: "ash"}, Nodes: []inventory.Node{{Name: "ash-1"}}},
		inventory.PoP{Name: "gra", Machine: inventory.Machine{Provider: "ovh"}, Nodes: []inventory.Node{{Name: "gra-1"}}})
	w := want(t, f)
	var got []string
	for _, s := range w.Servers {
		got = append(got, strings.Join([]string{s.Node, s.ServerType, s.Location, s.Image, s.Network, s.PlacementGroup, s.Reverse}, " "))
	}
	expected := []string{
		"fsn-1 cx23 fsn1 debian-12 network.eu-central placement.fsn fsn-1.demo.test",
		"fsn-2 cx33 fsn1 debian-12 network.eu-central placement.fsn fsn-2.demo.test",
		"ash-1 cx23 ash debian-12 network.us-east placement.ash ash-1.demo.test",
	}
	if !slices.Equal(got, expected) {
		t.Errorf("servers\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(expected, "\n"))
	}
	if len(w.Networks) != 2 || len(w.PlacementGroups) != 2 {
		t.Errorf("%d networks, %d placement groups", len(w.Networks), len(w.PlacementGroups))
	}
	if l := w.Servers[0].Labels; l[hetznercloud.LabelFleet] != "demo" || l[hetznercloud.LabelNode] != "fsn-1" || l[hetznercloud.LabelKey] != "server.fsn-1" {
		t.Errorf("labels %v", l)
	}
	var ports []string
	for _, r := range w.Firewall.Rules {
		ports = append(ports, r.Protocol+r.Port)
	}
	if !slices.Equal(ports, []string{"tcp22", "tcp2222", "tcp53", "udp53", "tcp80", "tcp443", "tcp7443", "tcp7444", "tcp7445", "icmp"}) {
		t.Errorf("open ports %v", ports)
	}
}

func TestWantRefuses(t *testing.T) {
	if _, err := stack.Want(fleet("fsn-1"), "not a key"); err == nil || !strings.Contains(err.Error(), "authorized_keys") {
		t.Errorf("error %v", err)
	}
	if _, err := stack.Want(fleet("-fsn-1-"), publicKey); err == nil || !strings.Contains(err.Error(), "label") {
		t.Errorf("error %v", err)
	}
}

func TestBigPoPHasNoPlacementGroup(t *testing.T) {
	var nodes []string
	for i := range 11 {
		nodes = append(nodes, "fsn-"+string(rune('a'+i)))
	}
	if w := want(t, fleet(nodes...)); len(w.PlacementGroups) != 0 || w.Servers[0].PlacementGroup != "" {
		t.Errorf("placement groups %v", w.PlacementGroups)
	}
}
