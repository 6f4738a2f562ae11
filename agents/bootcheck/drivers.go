package bootcheck

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"popfleet/playbooks/spec"
)

// always are the modules without which no node opens its root, as /sys/module spells them.
var always = []string{"dm_crypt", "xts", "ext4"}

// drivers compares what moves this machine's disks and network card now with what the next initramfs can load. The
// hardware is asked, not a list: a driver that the running kernel loaded from the root may be missing before the root
// is open.
func drivers(_ context.Context, n *node) spec.BootProof {
	if p, ok := n.withTree(); !ok {
		return p
	}
	need := slices.Clone(always)
	if n.root.mirror != nil {
		need = append(need, "raid1")
	}
	for _, d := range n.disks {
		need = append(need, n.driversOf("/sys/block/"+filepath.Base(d.Path))...)
	}
	nic := n.driversOf("/sys/class/net/" + n.nic())
	need = append(need, nic...)
	slices.Sort(need)
	need = slices.Compact(need)
	have := n.loadable()
	var missing []string
	for _, m := range n.withDependencies(need) {
		if !have[m] {
			missing = append(missing, m)
		}
	}
	if len(missing) > 0 {
		return failed("name them in /etc/initramfs-tools/modules; then "+doInitramfs,
			"the initramfs of %s lacks %s, which this machine uses", n.version(), strings.Join(missing, ", "))
	}
	if len(nic) == 0 {
		return warned("", "%s are there; what drives the network card could not be found out", strings.Join(need, ", "))
	}
	return passed("%s are there", strings.Join(need, ", "))
}

// nic is the name of the interface with the node's MAC, "" when there is none.
func (n *node) nic() string {
	running, err := n.network()
	if err != nil {
		return ""
	}
	cards, _ := filepath.Glob(n.path("/sys/class/net/*"))
	for _, c := range cards {
		if strings.EqualFold(attr(c, "address"), running.MAC) {
			return filepath.Base(c)
		}
	}
	return ""
}

func (c Checker) network() (spec.Network, error) {
	if c.Network != nil {
		return c.Network()
	}
	return c.Host.Network()
}

// driversOf walks from a device up to its bus: every device on the way may have a driver, and that one a module.
func (c Checker) driversOf(device string) (modules []string) {
	at, err := filepath.EvalSymlinks(c.path(device))
	if err != nil {
		return nil
	}
	for top := c.path("/sys"); at != top && at != "/" && at != "."; at = filepath.Dir(at) {
		// A network card's or disk's own folder links to the device that carries it.
		for _, dir := range []string{at, filepath.Join(at, "device")} {
			if module, err := filepath.EvalSymlinks(filepath.Join(dir, "driver/module")); err == nil {
				modules = append(modules, filepath.Base(module))
			}
		}
	}
	slices.Sort(modules)
	return slices.Compact(modules)
}

// loadable are the modules that the initramfs holds, and those that are part of its kernel.
func (n *node) loadable() map[string]bool {
	have := map[string]bool{}
	within := "lib/modules/" + n.version() + "/"
	for _, p := range n.tree.Paths() {
		if strings.Contains(p, within) && strings.Contains(filepath.Base(p), ".ko") {
			have[moduleName(p)] = true
		}
	}
	for line := range strings.Lines(readString(n.path("/", within, "modules.builtin"))) {
		have[moduleName(strings.TrimSpace(line))] = true
	}
	return have
}

// moduleName is a module's name by its file: dm-crypt.ko.xz is dm_crypt.
func moduleName(path string) string {
	name, _, _ := strings.Cut(filepath.Base(path), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// withDependencies adds what the modules need, by the next kernel's own list.
func (n *node) withDependencies(need []string) []string {
	all := slices.Clone(need)
	dep, err := os.ReadFile(n.path("/lib/modules", n.version(), "modules.dep"))
	if err != nil {
		return all
	}
	for line := range strings.Lines(string(dep)) {
		name, on, ok := strings.Cut(line, ":")
		if !ok || !slices.Contains(need, moduleName(name)) {
			continue
		}
		for _, d := range strings.Fields(on) {
			all = append(all, moduleName(d))
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}
