package inventory

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// check notes everything that is wrong with a decoded fleet beyond its shape. What is missing was noted by the decoder,
// so empty required fields are passed over here.
func check(r *report, f *Fleet) {
	if f.Version != 1 {
		r.add("version", fmt.Sprintf("version %d is not known", f.Version), "want 1")
	}
	if f.Name != "" && !isLabel(f.Name) {
		r.add("name", fmt.Sprintf("%q is not a fleet name", f.Name), wantLabel)
	}
	if f.Domain != "" {
		checkDomain(r, "domain", f.Domain)
	}
	if !isPlain(f.Release) {
		r.add("release", "holds a space or control character", "want a release's name or digest")
	}
	checkProviders(r, f.Providers)
	checkControllers(r, f.Controllers)
	checkOperators(r, f.Operators)
	checkMachine(r, "defaults", f.Defaults)
	checkPoPs(r, f)
	checkUnlock(r, f)
	checkServices(r, f.Services)
}

const maxRecentlyAlive = 24 * time.Hour

func checkUnlock(r *report, f *Fleet) {
	u := f.Unlock
	if u.RecentlyAlive < time.Minute || u.RecentlyAlive > maxRecentlyAlive {
		r.add("unlock.recently_alive", fmt.Sprintf("%s is out of range", u.RecentlyAlive), "want 1m to 24h: whoever holds a stolen disk has this long")
	}
	if u.CrossCheck != CrossCheckWhenPossible && u.CrossCheck != CrossCheckRequired {
		r.add("unlock.cross_check", fmt.Sprintf("%q is not known", u.CrossCheck), "want "+CrossCheckWhenPossible+" or "+CrossCheckRequired)
	}
	if others := len(f.Resolved()) - 1; u.Peers != 0 && (u.Peers < 2 || u.Peers > others) {
		r.add("unlock.peers", fmt.Sprintf("%d of %d other nodes", u.Peers, others), "want 0 for none, or 2 up to the number of other nodes: one alone would hold the key")
	}
}

func checkProviders(r *report, providers map[string]Provider) {
	for name, p := range providers {
		field := "providers." + name
		checkProviderName(r, field, name)
		if p.Endpoint != "" {
			checkEndpoint(r, field+".endpoint", p.Endpoint)
		}
	}
}

func checkProviderName(r *report, field, name string) {
	if name != "" && !slices.Contains(providers, name) {
		r.add(field, fmt.Sprintf("provider %q is not known", name), "this build has "+strings.Join(providers, ", "))
	}
}

func checkControllers(r *report, list []Controller) {
	if len(list) == 0 && has(r, "controllers") {
		r.add("controllers", "none is listed", "want at least one; the machine fleet controller runs on")
	}
	var names, addresses unique
	for i, c := range list {
		field := fmt.Sprintf("controllers[%d]", i)
		checkLabel(r, field+".name", c.Name)
		names.add(r, field+".name", c.Name, "named", "a controller's name is unique")
		if !c.Address.IsValid() {
			continue
		}
		addresses.add(r, field+".address", c.Address.String(), "listed", "each controller has its own address")
		if a := c.Address.Addr(); c.Address.Port() == 0 || a.IsUnspecified() || a.IsMulticast() {
			r.add(field+".address", fmt.Sprintf("nothing can be dialled at %s", c.Address), "want the address agents reach it at")
		}
	}
}

func checkOperators(r *report, list []Operator) {
	var names unique
	for i, o := range list {
		field := fmt.Sprintf("operators[%d]", i)
		checkLabel(r, field+".name", o.Name)
		names.add(r, field+".name", o.Name, "named", "an operator's name is unique")
		if o.SSHKey != "" {
			checkSSHKey(r, field+".ssh_key", o.SSHKey)
		}
	}
}

func checkMachine(r *report, field string, m Machine) {
	checkProviderName(r, field+".provider", m.Provider)
	for _, w := range []struct{ key, value string }{
		{"server_type", m.ServerType}, {"location", m.Location}, {"image", m.Image},
	} {
		if w.value != "" && !isWord(w.value) {
			r.add(field+"."+w.key, fmt.Sprintf("%q is not a name the provider could know", w.value), "want a–z, 0–9, - and .")
		}
	}
	if m.Server != "" && !strings.Contains(field, ".nodes[") {
		r.add(field+".server", "is said of more than one node", "want it at the node that lives on it")
	}
	for i, o := range m.Elsewhere {
		if !isWord(o.ServerType) || !isWord(o.Location) {
			r.add(fmt.Sprintf("%s.elsewhere[%d]", field, i), fmt.Sprintf("%q at %q is nothing the provider could know", o.ServerType, o.Location),
				"want server_type and location, of a–z, 0–9, - and .")
		}
	}
	checkDisks(r, field+".disks", m.Disks)
}

const minDiskGB, maxDiskGB = 4, 1_000_000

func checkDisks(r *report, field string, d Disks) {
	if d.MinGB != 0 && (d.MinGB < minDiskGB || d.MinGB > maxDiskGB) {
		r.add(field+".min_gb", fmt.Sprintf("%d is out of range", d.MinGB), fmt.Sprintf("want %d to %d", minDiskGB, maxDiskGB))
	}
	if len(d.Serials) > 2 {
		r.add(field+".serials", fmt.Sprintf("%d disks are listed", len(d.Serials)), "want one, or two to mirror")
	}
	for i, s := range d.Serials {
		at := fmt.Sprintf("%s.serials[%d]", field, i)
		switch {
		case s == "" || !isPlain(s):
			r.add(at, fmt.Sprintf("%q is not a serial number", s), "want the serial or WWN as fleet plan shows it")
		case isDevice(s):
			r.add(at, fmt.Sprintf("%q is a device name, and those move between boots", s), "want the disk's serial or WWN")
		}
	}
}

func isDevice(s string) bool {
	return strings.Contains(s, "/") || len(s) == 3 && (strings.HasPrefix(s, "sd") || strings.HasPrefix(s, "vd")) ||
		strings.HasPrefix(s, "nvme") && strings.Contains(s, "n") && len(s) <= 8
}

func checkPoPs(r *report, f *Fleet) {
	if len(f.PoPs) == 0 && has(r, "pops") {
		r.add("pops", "none is listed", "want at least one")
	}
	var pops, nodes unique
	for i, p := range f.PoPs {
		field := fmt.Sprintf("pops[%d]", i)
		if p.Name != "" && !isPoPName(p.Name) {
			r.add(field+".name", fmt.Sprintf("%q is not a PoP name", p.Name), "want a city code: a letter, then a–z and 0–9, at most 20")
		}
		pops.add(r, field+".name", p.Name, "named", "a PoP's name is unique")
		checkPlace(r, field+".place", p.Place)
		checkMachine(r, field+".machine", p.Machine)
		checkNodes(r, field, p, &nodes)
	}
	checkResolved(r, f)
}

func checkPlace(r *report, field string, p Place) {
	// Written so that NaN fails too.
	if !(p.Lat >= -90 && p.Lat <= 90) {
		r.add(field+".lat", fmt.Sprintf("%v is not a latitude", p.Lat), "want -90 to 90, in degrees")
	}
	if !(p.Lon >= -180 && p.Lon <= 180) {
		r.add(field+".lon", fmt.Sprintf("%v is not a longitude", p.Lon), "want -180 to 180, in degrees")
	}
}

func checkNodes(r *report, pop string, p PoP, seen *unique) {
	if len(p.Nodes) == 0 && has(r, pop+".nodes") {
		r.add(pop+".nodes", "none is listed", "want at least one")
	}
	for i, n := range p.Nodes {
		field := fmt.Sprintf("%s.nodes[%d]", pop, i)
		if n.Name != "" && p.Name != "" && !isNodeName(n.Name, p.Name) {
			r.add(field+".name", fmt.Sprintf("%q is not a node of %s", n.Name, p.Name), fmt.Sprintf("want %s-<number>, such as %s-1", p.Name, p.Name))
		}
		seen.add(r, field+".name", n.Name, "named", "a node's name is unique")
		checkMachine(r, field+".machine", n.Machine)
	}
}

// checkResolved looks at what nodes inherit: a location must come from somewhere, a disk is in one machine only.
func checkResolved(r *report, f *Fleet) {
	var serials, servers unique
	nodes := f.Resolved()
	next := 0
	for i, p := range f.PoPs {
		for j := range p.Nodes {
			n, field := nodes[next], fmt.Sprintf("pops[%d].nodes[%d]", i, j)
			next++
			checkWhere(r, field, n.Machine)
			if n.Machine.Server != "" {
				servers.add(r, field+".machine.server", n.Machine.Provider+" "+n.Machine.Server, "claimed", "a server is one node")
			}
			for k, s := range n.Machine.Disks.Serials {
				serials.add(r, fmt.Sprintf("%s.machine.disks.serials[%d]", field, k), s, "claimed", "a disk is in one machine")
			}
		}
	}
}

// checkWhere: a cloud server needs a location to be created at, a dedicated one has to be there.
func checkWhere(r *report, field string, m Machine) {
	at := field + ".machine.server"
	switch {
	case !m.Dedicated() && m.Server != "":
		r.add(at, m.Provider+" servers are created, not taken over", "leave it out, or say provider: "+ProviderHetznerRobot+" or "+ProviderOVH)
	case !m.Dedicated() && m.Location == "":
		r.add(field, "has no location", "say location at the node, in its PoP's machine or in defaults")
	case m.Provider == ProviderHetznerRobot && m.Server != "" && !isServerNumber(m.Server):
		r.add(at, fmt.Sprintf("%q is not a server number", m.Server), "want the number that Robot shows, such as 321")
	case m.Provider == ProviderOVH && m.Server != "" && !isServiceName(m.Server):
		r.add(at, fmt.Sprintf("%q is not a service name", m.Server), "want the name that OVH shows, such as ns3012345.ip-192-0-2.eu")
	case m.Dedicated() && m.Server == "":
		r.add(field, "names no dedicated server", "say machine: {server: …} at the node; `fleet order` rents one first")
	}
}

func checkServices(r *report, s Services) {
	if !s.Store.Embedded() {
		checkMongoURI(r, "services.store.uri", s.Store.URI)
	}
	if ttl := s.DNS.TTL; ttl < time.Second || ttl > 24*time.Hour || ttl%time.Second != 0 {
		r.add("services.dns.ttl", fmt.Sprintf("%s cannot be a TTL", ttl), "want whole seconds, 1s to 24h")
	}
	if m := s.DNS.MMDB; m != "" && (!filepath.IsLocal(m) || strings.ContainsFunc(m, isControl)) {
		r.add("services.dns.mmdb", fmt.Sprintf("%q is not below the operator's folder", m), "want a relative path")
	}
	if !isWord(s.App.Binary) {
		r.add("services.app.binary", fmt.Sprintf("%q is not a binary of a release", s.App.Binary), "want a–z, 0–9, - and .")
	}
	for name, value := range s.App.Env {
		checkEnv(r, "services.app.env."+name, name, value)
	}
	var names unique
	for i, n := range s.Transport.Names {
		field := fmt.Sprintf("services.transport.names[%d]", i)
		checkDomain(r, field, strings.TrimPrefix(n, "*."))
		names.add(r, field, n, "listed", "once is enough")
	}
}

func checkEnv(r *report, field, name, value string) {
	if !isEnvName(name) {
		r.add(field, "is not the name of an environment variable", "want letters, digits and _")
	}
	if strings.ContainsFunc(value, isControl) {
		r.add(field, "holds a line break or control character", "want one line")
	}
}

// unique finds what is said twice.
type unique struct{ seen []string }

func (u *unique) add(r *report, field, value, said, rule string) {
	if value == "" {
		return
	}
	if slices.Contains(u.seen, value) {
		r.add(field, fmt.Sprintf("%q is %s twice", value, said), rule)
		return
	}
	u.seen = append(u.seen, value)
}

// has reports whether the file says something of field that was not refused already.
func has(r *report, field string) bool {
	_, said := r.at[field]
	return said && !slices.ContainsFunc(r.problems, func(p Problem) bool { return p.Field == field })
}

func isNodeName(name, pop string) bool {
	number, ok := strings.CutPrefix(name, pop+"-")
	n, err := strconv.Atoi(number)
	return ok && err == nil && n >= 1 && n <= 9999 && strconv.Itoa(n) == number
}
