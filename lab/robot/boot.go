package robot

import (
	"regexp"
	"time"
)

// inactive is the rescue configuration when nothing waits for the next boot: os and arch are what could be chosen.
func inactive(s *server) object {
	o := s.head()
	o["os"], o["arch"], o["active"], o["password"] = []string{"linux", "vkvm"}, []int{64, 32}, false, nil
	o["authorized_key"], o["host_key"], o["boot_time"] = []object{}, []object{}, nil
	return o
}

// activated is one activation: os and arch are what was chosen.
func (r *Robot) activated(s *server, a *activation, active bool) object {
	o := s.head()
	o["os"], o["arch"], o["active"], o["password"] = a.OS, a.Arch, active, nil
	if active && a.Password != "" {
		o["password"] = a.Password
	}
	o["authorized_key"], o["host_key"], o["boot_time"] = references(a.Keys), []object{}, nil
	if a.BootTime != nil {
		o["boot_time"] = r.local(*a.BootTime)
	}
	if !time.Now().Before(a.TellKeys) {
		o["host_key"] = wireHostKeys(a.HostKeys)
	}
	return o
}

func (r *Robot) rescueNow(s *server) object {
	if s.Rescue == nil {
		return inactive(s)
	}
	return r.activated(s, s.Rescue, true)
}

// getBoot shows every boot configuration. Only the rescue system is simulated, the installations are never active.
func (r *Robot) getBoot(_ *request, s *server) (any, error) {
	install := func(dist any, more object) object {
		o := s.head()
		o["dist"], o["arch"], o["lang"], o["active"], o["password"] = dist, []int{64}, []string{"en"}, false, nil
		for k, v := range more {
			o[k] = v
		}
		return o
	}
	windows := s.head()
	windows["dist"], windows["lang"], windows["active"], windows["password"] = nil, nil, false, nil
	return object{"boot": object{
		"rescue":  r.rescueNow(s),
		"linux":   install([]string{"Debian 12 base"}, object{"authorized_key": []object{}, "host_key": []object{}}),
		"vnc":     install([]string{"Fedora-40"}, nil),
		"windows": windows,
		"plesk":   install([]string{"Debian 12 base"}, object{"hostname": nil}),
		"cpanel":  install([]string{"AlmaLinux 9 + cPanel"}, object{"hostname": nil}),
	}}, nil
}

func (r *Robot) getRescue(_ *request, s *server) (any, error) {
	return object{"rescue": r.rescueNow(s)}, nil
}

var keyboard = regexp.MustCompile(`^[a-z]{2}[a-z0-9-]{0,10}$`)

// activateRescue answers with everything but the host keys, which do not exist before the boot. To activate what is active
// already is not documented; the lab refuses it with the code that clients carry for it.
func (r *Robot) activateRescue(q *request, s *server) (any, error) {
	a, e := r.readActivation(q)
	if e != nil {
		return nil, e
	}
	if s.Rescue != nil {
		return nil, fail(409, "BOOT_ALREADY_ENABLED", "There is already an active boot configuration")
	}
	s.Rescue = a
	r.save()
	return object{"rescue": r.activated(s, a, true)}, nil
}

// readActivation checks the parameters; r.mu is held. A vKVM takes no keys, as measured.
func (r *Robot) readActivation(q *request) (*activation, *apiError) {
	a := &activation{OS: q.form.Get("os"), Arch: 64}
	var wrong []string
	if a.OS != "linux" && a.OS != "vkvm" {
		wrong = append(wrong, "os")
	}
	switch q.form.Get("arch") {
	case "", "64":
	case "32":
		a.Arch = 32
	default:
		wrong = append(wrong, "arch")
	}
	if k := q.form.Get("keyboard"); k != "" && !keyboard.MatchString(k) {
		wrong = append(wrong, "keyboard")
	}
	var e *apiError
	if a.Keys, e = r.pick(q.form["authorized_key"]); e != nil || a.OS == "vkvm" && len(a.Keys) > 0 {
		wrong = append(wrong, "authorized_key")
	}
	if wrong != nil {
		return nil, invalid(wrong...)
	}
	if len(a.Keys) == 0 {
		a.Password = newPassword()
	}
	return a, nil
}

func (r *Robot) deactivateRescue(_ *request, s *server) (any, error) {
	s.Rescue = nil
	r.save()
	return object{"rescue": inactive(s)}, nil
}

// lastRescue is the newest activation that a boot has used. Until the next boot has told its keys, it shows the former's:
// who pins without looking at boot_time pins a dead rescue system.
func (r *Robot) lastRescue(_ *request, s *server) (any, error) {
	if s.Last == nil {
		return nil, notFound("BOOT_NOT_AVAILABLE", "No boot configuration available for this server")
	}
	return object{"rescue": r.activated(s, s.Last, false)}, nil
}
