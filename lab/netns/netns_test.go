package netns

import (
	"strings"
	"testing"
)

func TestCheckName(t *testing.T) {
	for _, name := range []string{"", ".", "..", "a/b", "../x", strings.Repeat("x", 300)} {
		if checkName(name) == nil {
			t.Errorf("%q was accepted", name)
		}
	}
	if err := checkName(DefaultName); err != nil {
		t.Error(err)
	}
}

func TestOpenOfNothing(t *testing.T) {
	if _, err := Open("no-such-lab"); err == nil || !strings.Contains(err.Error(), "not up") {
		t.Errorf("%v", err)
	}
	if err := Delete(t.Context(), "no-such-lab"); err != nil {
		t.Errorf("deleting nothing: %v", err)
	}
	n := &Namespace{name: "no-such-lab"}
	if _, err := n.Dial(t.Context(), "tcp", "127.0.0.1:1"); err == nil {
		t.Error("dialled from nowhere")
	}
}

func TestAddressesFitTogether(t *testing.T) {
	if !Machines.Contains(Lab) || !Prefix6.Contains(Lab6) || Machines.Contains(Gateway4) {
		t.Error("the lab lives among its machines, the gateway is on no subnet of theirs")
	}
	if !Robot.Contains(RobotGateway) || !OVH.Contains(OVHGateway) || Robot.Overlaps(OVH) || Machines.Overlaps(Robot) || Machines.Overlaps(OVH) {
		t.Error("three networks, each with its gateway")
	}
}
