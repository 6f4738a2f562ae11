package ovh

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"popfleet/lab/faults"
	"popfleet/lab/ovh/api"
)

// intervention is a visit of the provider's staff to a server.
type intervention struct {
	ID      int64     `json:"id"`
	Service string    `json:"service"`
	At      time.Time `json:"at"`
	Type    string    `json:"type"`
}

// meddle lets happen what faults say that others do to the server: a stranger with access to the account, or the
// provider's staff. A fault without a number of times does it once per server. o.mu is held.
func (o *OVH) meddle(s *server) {
	f, ok := o.opt.Faults.Take(faults.Occasion{Layer: faults.Machine, Machine: s.names()}, faults.ForeignActivity, faults.Intervention)
	if !ok || f.Times == 0 && slices.Contains(s.Struck, f.ID) {
		return
	}
	s.Struck = append(s.Struck, f.ID)
	o.opt.Log.Info("fault strikes", "kind", string(f.Kind), "server", s.Service, "fault", f.ID)
	if f.Kind == faults.Intervention {
		o.intervene(s, f.Step == Reboot)
	} else if slices.Contains(others, f.Step) {
		o.foreign(s, f.Step)
	} else {
		o.opt.Log.Error("a fault wants what nobody does", "fault", f.ID, "step", f.Step)
	}
	o.save()
}

// others is what somebody else can do to a server, "" being rescue.
var others = []string{
	"", "rescue", "script", "hacked", "expired", Reboot, Reinstall, "hardware_update", "requestAccessIPMI", "resetIPMI", "addVirtualMac", "genericMoveFloatingIp",
}

// Foreign does to a server what somebody else could: "rescue" (the default) sets its bootId and a stranger's key,
// "script" a boot script, "hacked" the provider's block, "expired" the end of the service; a task's function, such as
// hardReboot or reinstallServer, puts that task among the server's tasks. Only hardReboot reaches the machine, and
// hardware_update waits for a date that nobody gives it.
func (o *OVH) Foreign(service, what string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.state.named(service)
	if s == nil {
		return fmt.Errorf("server %s: no such server", service)
	}
	if !slices.Contains(others, what) {
		return fmt.Errorf("%q: expected one of %s", what, strings.Join(others, ", "))
	}
	o.foreign(s, what)
	o.save()
	return nil
}

// strangersKey is nobody's: its private half was never kept.
const strangersKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEHZFSd/R0Tn04uN7chTOYZhXTdslEUfAyNsHJiB49G3 stranger"

func (o *OVH) foreign(s *server, what string) {
	switch what {
	case "", "rescue":
		s.BootID, s.RescueKey = ptr(o.kernelID(kernelRescue)), ptr(strangersKey)
	case "script":
		s.BootScript = ptr("#!ipxe\nchain http://198.51.100.7/boot\n")
	case "hacked":
		s.State = "hackedBlocked"
	case "expired":
		s.Expired = true
	case Reboot:
		o.begin(s, Reboot, "Reboot asked", nil)
	default:
		t := o.begin(s, what, "", nil)
		t.Effect, t.NeedSchedule = false, what == "hardware_update"
	}
}

// Intervene opens an intervention on a server, as the provider's staff does when it does not answer; with reboot they
// press its button.
func (o *OVH) Intervene(service string, reboot bool) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.state.named(service)
	if s == nil {
		return fmt.Errorf("server %s: no such server", service)
	}
	o.intervene(s, reboot)
	o.save()
	return nil
}

func (o *OVH) intervene(s *server, reboot bool) {
	i := &intervention{ID: o.state.nextID(), Service: s.Service, At: o.clock(), Type: "serverDown"}
	o.state.Interventions[i.ID] = i
	o.state.mail(i.At, accountMail, "Intervention on "+s.Service, fmt.Sprintf("intervention %d: the server does not answer", i.ID))
	if reboot {
		o.begin(s, Reboot, fmt.Sprintf("Intervention %d", i.ID), nil)
	}
}

func (o *OVH) listInterventions(_ *request, s *server) (any, error) {
	out := []int64{}
	for _, id := range sorted(o.state.Interventions) {
		if o.state.Interventions[id].Service == s.Service {
			out = append(out, id)
		}
	}
	return out, nil
}

func (o *OVH) getIntervention(r *request, s *server) (any, error) {
	i := o.state.Interventions[r.ID("interventionId")]
	if i == nil || i.Service != s.Service {
		return nil, api.NoObject("interventionId", r.Args["interventionId"])
	}
	return map[string]any{"interventionId": i.ID, "date": seconds(i.At), "type": i.Type}, nil
}
