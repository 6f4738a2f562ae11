package ovh

import (
	"crypto/rand"
	"net/netip"
	"slices"
	"strings"
	"time"

	"popfleet/lab/ovh/api"
)

const (
	accountName = "lab12345-ovh"
	accountMail = "owner@example.com"
)

func unit(value int, unit string) any { return map[string]any{"unit": unit, "value": value} }

func (o *OVH) hardware(_ *request, s *server) (any, error) {
	c := s.rented.Machine
	kind := "NVME"
	if c.DiskKind == "sata" {
		kind = "SSD"
	}
	return map[string]any{
		"bootMode": s.rented.BootMode, "coresPerProcessor": max(c.CPUs, 1), "threadsPerProcessor": max(c.CPUs, 1), "numberOfProcessors": 1,
		"processorName": "EPYC 4244P", "processorArchitecture": "x86_64", "motherboard": "unknown", "formFactor": "1u",
		"description": s.rented.Range, "memorySize": unit(c.MemoryMB, "MB"), "usbKeys": nil, "expansionCards": nil,
		"defaultHardwareRaidSize": nil, "defaultHardwareRaidType": nil,
		"diskGroups": []any{map[string]any{
			"diskGroupId": 1, "numberOfDisks": max(c.Disks, 1), "diskSize": unit(c.DiskGB, "GB"), "diskType": kind,
			"description": nil, "raidController": nil, "defaultHardwareRaidSize": nil, "defaultHardwareRaidType": nil,
		}},
	}, nil
}

func (o *OVH) network(_ *request, s *server) (any, error) {
	c := s.rented.Machine
	net4 := c.Net4
	if !net4.IsValid() {
		net4 = netip.PrefixFrom(c.Address, 32)
	}
	var v6 any
	if c.Prefix6.IsValid() {
		v6 = map[string]any{
			"ip": c.Prefix6.Masked().String(), "gateway": "fe80::1", "network": c.Prefix6.Masked().String(),
		}
	}
	full := unit(1000, "Mbps")
	return map[string]any{
		"bandwidth":  map[string]any{"InternetToOvh": full, "OvhToInternet": full, "OvhToOvh": full, "type": "included"},
		"connection": full, "ola": nil, "traffic": nil, "vrack": nil,
		"routing": map[string]any{
			"ipv4": map[string]any{"ip": c.Address.String(), "gateway": c.Gateway4.String(), "network": net4.Masked().String()},
			"ipv6": v6,
		},
		"switching": map[string]any{"name": "lab-1-n3"}, "vmac": map[string]any{"supported": false, "quota": 0},
	}, nil
}

func (o *OVH) ips(_ *request, s *server) (any, error) {
	out := []string{}
	for _, b := range s.blocks() {
		out = append(out, b.String())
	}
	return out, nil
}

// serviceInfos answers for an expired service too: it is where the expiry is to be read.
func (o *OVH) serviceInfos(r *request) (any, error) {
	s := o.state.named(r.Args["serviceName"])
	if s == nil || o.invisible(s) {
		return nil, api.NoService()
	}
	status, until := "ok", o.clock().AddDate(0, 1, 0)
	if s.Expired {
		status, until = "expired", o.clock().AddDate(0, 0, -1)
	}
	return map[string]any{
		"canDeleteAtExpiration": true, "contactAdmin": accountName, "contactBilling": accountName, "contactTech": accountName,
		"creation": s.Created.Format(time.DateOnly), "domain": s.Service, "engagedUpTo": nil, "expiration": until.Format(time.DateOnly),
		"possibleRenewPeriod": []int{1, 3, 6, 12}, "renewalType": "automaticV2016", "serviceId": s.ID, "status": status,
		"renew": map[string]any{"automatic": !s.Ends, "deleteAtExpiration": s.Ends, "forced": false, "manualPayment": false, "period": 1},
	}, nil
}

// terminate asks for the end of the service. The token comes by e-mail, so that no program can do it alone.
func (o *OVH) terminate(r *request, s *server) (any, error) {
	s.Token = strings.ToLower(rand.Text())
	o.state.mail(o.clock(), accountMail, "Termination of "+s.Service, "token: "+s.Token)
	return "Termination of service " + s.Service + " was asked: confirm it with the token that was sent by e-mail", nil
}

func (o *OVH) confirmTermination(r *request, s *server) (any, error) {
	var in struct {
		Token      string `json:"token"`
		Commentary string `json:"commentary"`
		FutureUse  string `json:"futureUse"`
		Reason     string `json:"reason"`
	}
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	if s.Token == "" || !api.Same(in.Token, s.Token) {
		return nil, api.Fail(403, "Client::Forbidden", "Invalid token")
	}
	s.Token, s.Ends = "", true
	return "Service " + s.Service + " will be terminated at its expiration", nil
}

func (o *OVH) me(*request) (any, error) {
	country := "FR"
	return map[string]any{
		"nichandle": accountName, "email": accountMail, "ovhSubsidiary": country, "country": country, "state": "complete",
		"currency": map[string]any{"code": "EUR", "symbol": "€"}, "name": "Lab", "firstname": "Olga",
	}, nil
}

func (o *OVH) listKeys(*request) (any, error) {
	return append([]string{}, sorted(o.state.SSHKeys)...), nil
}

func (o *OVH) addKey(r *request) (any, error) {
	var in struct {
		Key     string `json:"key"`
		KeyName string `json:"keyName"`
	}
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	if in.KeyName == "" {
		return nil, api.Bad("[body.keyName] Missing keyName")
	}
	if err := publicKey(in.Key); err != nil {
		return nil, api.Bad("[body.key] %v", err)
	}
	if slices.Contains(sorted(o.state.SSHKeys), in.KeyName) {
		return nil, api.Conflict("This SSH key name is already used")
	}
	o.state.SSHKeys[in.KeyName] = in.Key
	return nil, nil
}

func (o *OVH) getKey(r *request) (any, error) {
	name := r.Args["keyName"]
	key, ok := o.state.SSHKeys[name]
	if !ok {
		return nil, api.NoObject("keyName", name)
	}
	return map[string]any{"key": key, "keyName": name}, nil
}

func (o *OVH) deleteKey(r *request) (any, error) {
	name := r.Args["keyName"]
	if _, ok := o.state.SSHKeys[name]; !ok {
		return nil, api.NoObject("keyName", name)
	}
	delete(o.state.SSHKeys, name)
	return nil, nil
}
