package ovh

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"popfleet/lab/faults"
	"popfleet/lab/machine"
	"popfleet/lab/ovh/api"
)

func (o *OVH) info(s *server) machine.Info {
	c := s.rented.Machine
	return machine.Info{
		Provider: machine.OVH, ID: s.Service, Name: c.Label, Status: s.State,
		Rescue: o.booting(s).Kernel == kernelRescue, Address: c.Address, Prefix6: c.Prefix6, Machine: s.machine,
	}
}

// lookup finds a server for a call; o.mu is held. What somebody else does to the server happens now.
func (o *OVH) lookup(service string) (*server, error) {
	s := o.state.named(service)
	if s == nil || o.invisible(s) {
		return nil, api.NoService()
	}
	o.meddle(s)
	if s.Expired {
		return nil, api.Expired()
	}
	return s, nil
}

func (o *OVH) invisible(s *server) bool {
	_, ok := o.opt.Faults.Take(faults.Occasion{Layer: faults.Machine, Machine: s.names()}, faults.Invisible)
	return ok
}

func (o *OVH) listServers(*request) (any, error) {
	out := []string{}
	for _, s := range o.state.servers() {
		if !o.invisible(s) {
			out = append(out, s.Service)
		}
	}
	return out, nil
}

// wireServer is a dedicated.server.DedicatedWithIAM.
type wireServer struct {
	AvailabilityZone string  `json:"availabilityZone"`
	BootID           *int64  `json:"bootId"`
	BootScript       *string `json:"bootScript"`
	CommercialRange  *string `json:"commercialRange"`
	Datacenter       string  `json:"datacenter"`
	EFIPath          *string `json:"efiBootloaderPath"`
	IAM              any     `json:"iam"`
	IP               string  `json:"ip"`
	LinkSpeed        int     `json:"linkSpeed"`
	Monitoring       bool    `json:"monitoring"`
	Name             string  `json:"name"`
	NewUpgrade       bool    `json:"newUpgradeSystem"`
	NoIntervention   bool    `json:"noIntervention"`
	OS               string  `json:"os"`
	PowerState       string  `json:"powerState"`
	ProfessionalUse  bool    `json:"professionalUse"`
	Rack             string  `json:"rack"`
	Region           string  `json:"region"`
	RescueMail       *string `json:"rescueMail"`
	RescueKey        *string `json:"rescueSshKey"`
	Reverse          *string `json:"reverse"`
	RootDevice       *string `json:"rootDevice"`
	ServerID         int64   `json:"serverId"`
	State            string  `json:"state"`
	SupportLevel     string  `json:"supportLevel"`
}

func (o *OVH) getServer(_ *request, s *server) (any, error) {
	power := "poweroff"
	if s.machine != nil && s.machine.Running() {
		power = "poweron"
	}
	region := o.regionOf(s)
	reverse := o.reverseOf(s.rented.Machine.Address)
	return wireServer{
		AvailabilityZone: region + "-a", BootID: s.BootID, BootScript: s.BootScript, CommercialRange: nonEmpty(s.rented.Range),
		Datacenter: s.rented.Datacenter, EFIPath: s.EFIPath, IAM: o.iam(s), IP: s.rented.Machine.Address.String(), LinkSpeed: 1000,
		Monitoring: s.Monitoring, Name: s.Service, NoIntervention: s.NoIntervention, OS: s.OS, PowerState: power,
		Rack: strings.ToUpper(s.rented.Datacenter[:1]) + "126A04", Region: region, RescueMail: s.RescueMail, RescueKey: s.RescueKey,
		Reverse: &reverse, RootDevice: s.RootDevice, ServerID: s.ID, State: s.State, SupportLevel: "pro",
	}, nil
}

func nonEmpty(v string) *string {
	if v == "" {
		return nil
	}
	return &v
}

// iam names the server the way rights are given on it.
func (o *OVH) iam(s *server) any {
	return map[string]any{
		"displayName": s.Service, "tags": map[string]string{},
		"id":  fmt.Sprintf("00000000-0000-4000-8000-%012d", s.ID),
		"urn": fmt.Sprintf("urn:v1:%s:resource:dedicatedServer:%s", strings.ToLower(o.opt.Region), s.Service),
	}
}

// regionOf is the region of the server's datacenter: eu-west-gra for gra3.
func (o *OVH) regionOf(s *server) string {
	place := strings.TrimRight(s.rented.Datacenter, "0123456789")
	switch {
	case o.opt.Region == "US":
		return "us-east-" + place
	case o.opt.Region == "CA" || place == "bhs":
		return "ca-east-" + place
	case place == "waw":
		return "eu-central-" + place
	}
	return "eu-west-" + place
}

// settable is what a PUT may change. A field that is absent stays; null gives back what was there before it was set.
type settable struct {
	BootID         json.RawMessage `json:"bootId"`
	BootScript     json.RawMessage `json:"bootScript"`
	EFIPath        json.RawMessage `json:"efiBootloaderPath"`
	RescueMail     json.RawMessage `json:"rescueMail"`
	RescueKey      json.RawMessage `json:"rescueSshKey"`
	RootDevice     json.RawMessage `json:"rootDevice"`
	Monitoring     *bool           `json:"monitoring"`
	NoIntervention *bool           `json:"noIntervention"`
	State          *string         `json:"state"`
}

// putServer answers null. Nothing is changed unless everything can be.
func (o *OVH) putServer(r *request, s *server) (any, error) {
	var in settable
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	next := s.Choices
	if err := o.setBoot(&next, in.BootID); err != nil {
		return nil, err
	}
	if err := setTexts(&next, in); err != nil {
		return nil, err
	}
	if in.Monitoring != nil {
		next.Monitoring = *in.Monitoring
	}
	if in.NoIntervention != nil {
		next.NoIntervention = *in.NoIntervention
	}
	if in.State != nil {
		if !slices.Contains([]string{"error", "hacked", "hackedBlocked", "ok"}, *in.State) {
			return nil, api.Bad("[body.state] Given data (%s) does not belong to the StateEnum enumeration", *in.State)
		}
		next.State = *in.State
	}
	s.Choices = next
	return nil, nil
}

func (o *OVH) setBoot(s *Choices, raw json.RawMessage) error {
	if raw == nil {
		return nil
	}
	var id *int64
	if err := json.Unmarshal(raw, &id); err != nil {
		return api.Bad("[body.bootId] Given data (%s) is not valid for type long", raw)
	}
	if id != nil {
		if _, ok := o.boot(*id); !ok {
			return o.offList(*id)
		}
	}
	s.BootID = id
	return nil
}

func setTexts(s *Choices, in settable) error {
	for _, f := range []struct {
		name string
		raw  json.RawMessage
		to   **string
		fits func(string) error
	}{
		{"bootScript", in.BootScript, &s.BootScript, nil},
		{"efiBootloaderPath", in.EFIPath, &s.EFIPath, nil},
		{"rescueMail", in.RescueMail, &s.RescueMail, mailAddress},
		{"rescueSshKey", in.RescueKey, &s.RescueKey, publicKey},
		{"rootDevice", in.RootDevice, &s.RootDevice, nil},
	} {
		if f.raw == nil {
			continue
		}
		var v *string
		if err := json.Unmarshal(f.raw, &v); err != nil {
			return api.Bad("[body.%s] Given data (%s) is not valid for type string", f.name, f.raw)
		}
		if v != nil && *v == "" {
			v = nil
		}
		if v != nil && f.fits != nil {
			if err := f.fits(*v); err != nil {
				return api.Bad("[body.%s] %v", f.name, err)
			}
		}
		*f.to = v
	}
	return nil
}

func publicKey(v string) error {
	_, _, _, rest, err := ssh.ParseAuthorizedKey([]byte(v))
	if err != nil || len(rest) > 0 {
		return fmt.Errorf("invalid SSH public key: one key on one line is expected")
	}
	return nil
}

func mailAddress(v string) error {
	if user, host, ok := strings.Cut(v, "@"); !ok || user == "" || !strings.Contains(host, ".") {
		return fmt.Errorf("invalid e-mail address %q", v)
	}
	return nil
}
