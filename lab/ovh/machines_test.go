package ovh

import (
	"testing"

	"popfleet/lab/ovh/shop"
	"popfleet/lab/scripted"
)

// A lab that goes down between the two halves of a delivery delivers the same server, not another; two sales are two.
func TestASaleIsHandedOverOnce(t *testing.T) {
	backend := scripted.New(t.Context(), scripted.Options{})
	t.Cleanup(backend.Close)
	o, err := New(t.Context(), Options{ApplicationKey: "app", ApplicationSecret: "secret", ConsumerKey: "key", Backend: backend})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.Close)
	var names []string
	for _, line := range []int64{7, 7, 8} {
		name, err := o.handOver(t.Context(), shop.Sold{Line: line, Plan: "24sk10", Datacenter: "gra"})
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	if names[0] != names[1] || names[1] == names[2] || len(o.Servers()) != 2 || len(backend.Machines()) != 2 {
		t.Errorf("handed over %v; %d servers, %d machines", names, len(o.Servers()), len(backend.Machines()))
	}
}
