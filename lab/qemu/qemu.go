// Package qemu is the machine backend whose machines really boot: QEMU guests in the lab's network namespace, with
// one or two NVMe or SATA disks that have serials, SeaBIOS or OVMF, and a rescue system that the "provider" boots them into.
//
//	ns, err := netns.Create(ctx, netns.DefaultName)
//	b, err := qemu.New(ctx, qemu.Options{Dir: "/var/lib/fleet-lab/machines", Namespace: ns})
//	m, err := b.Create(ctx, machine.Config{Name: "1", Address: …, NextBoot: …})
//	err = m.PowerOn(ctx)
//	conn, err := m.Dial(ctx, 22)
//
// The rescue system is built by lab/rescue on first use: ~/.cache/popfleet/rescue/<digest>/{vmlinuz,initrd,root.ext4}.
// A boot into rescue starts that kernel directly, with the machine's network and root's keys in a cpio of its own. A boot
// from disk starts nothing but the firmware, so boot loaders are tested as they are.
//
// Every machine has a folder Dir/<name>/: machine.json, disk<N>.raw (sparse), console.log, qmp.sock, qemu.pid, vars.fd.
// QEMU processes are in sessions of their own and outlive the lab's: a new lab process takes them over by
// [Backend.Reattach], and [KillAll] ends the ones that a dead lab left.
//
// A guest's reboot ends its QEMU process and starts another, because what boots next is the provider's decision.
// Disks are raw, not qcow2: pulling the plug is a SIGKILL, which would lose the metadata that qcow2 holds in memory,
// while what a guest has written to a raw file stays written.
//
// It needs root, for taps and the namespace. It never opens a port on the host.
package qemu

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"popfleet/internal/strictjson"
	"popfleet/lab/machine"
	"popfleet/lab/netns"
	"popfleet/lab/netns/dhcp"
	"popfleet/lab/rescue"
)

// Options of a backend. Dir and Namespace are required.
type Options struct {
	Dir       string // of the machines; must be on a file system with sparse files
	Namespace *netns.Namespace
	Rescue    rescue.Options // where the rescue system is cached, and who hears of its build
	Accel     string         // "" probes; tcg or kvm is taken at its word
	Durable   bool           // flush the guests' disks for real; slow, for machines that must survive a host crash
	Log       *slog.Logger
}

// Backend makes QEMU machines.
type Backend struct {
	o      Options
	rescue rescue.Rescue
	accel  string

	stopDHCP context.CancelFunc
	dhcpDone chan struct{}

	bareMu sync.Mutex
	bare   rescue.Rescue // guarded by bareMu: of bare machines; built when the first is made

	mu       sync.Mutex
	machines map[string]*Machine // by name; deleted ones are gone
}

// New builds the rescue system if the cache has none, finds out whether KVM works, and returns the backend.
func New(ctx context.Context, o Options) (*Backend, error) {
	if o.Dir == "" || o.Namespace == nil {
		return nil, errors.New("qemu backend: a folder and a network namespace are required")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if _, err := exec.LookPath(binary); err != nil {
		return nil, fmt.Errorf("%w: apt-get install qemu-system-x86 ovmf", err)
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, err
	}
	r, err := rescue.Ensure(ctx, o.Rescue)
	if err != nil {
		return nil, err
	}
	b := &Backend{o: o, rescue: r, machines: map[string]*Machine{}}
	b.accel, err = chooseAccel(ctx, o, r)
	if err != nil {
		return nil, err
	}
	return b, b.serveDHCP(ctx)
}

// Kind says how the machines run: "qemu tcg" or "qemu kvm".
func (b *Backend) Kind() string { return "qemu " + b.accel }

// Rescue is the system that machines boot into when they are told to.
func (b *Backend) Rescue() rescue.Rescue { return b.rescue }

// needRescue builds the rescue system of bare machines when the first is made.
func (b *Backend) needRescue(ctx context.Context, c machine.Config) error {
	b.bareMu.Lock()
	defer b.bareMu.Unlock()
	if !c.Bare || b.bare.Kernel != "" {
		return nil
	}
	o := b.o.Rescue
	o.Bare = true
	r, err := rescue.Ensure(ctx, o)
	if err == nil {
		b.bare = r
	}
	return err
}

func (b *Backend) rescueFor(c machine.Config) rescue.Rescue {
	b.bareMu.Lock()
	defer b.bareMu.Unlock()
	if c.Bare {
		return b.bare
	}
	return b.rescue
}

// Create makes a machine with empty disks, powered off.
func (b *Backend) Create(ctx context.Context, c machine.Config) (machine.Machine, error) {
	if err := checkConfig(c); err != nil {
		return nil, err
	}
	if err := b.needRescue(ctx, c); err != nil {
		return nil, err
	}
	dir := filepath.Join(b.o.Dir, c.Name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, fmt.Errorf("machine %s: %w", c.Name, err)
	}
	s := newState(c)
	if err := furnish(dir, c, s); err != nil {
		return nil, errors.Join(fmt.Errorf("machine %s: %w", c.Name, err), os.RemoveAll(dir))
	}
	if err := b.o.Namespace.AddTap(ctx, s.Tap); err != nil {
		return nil, errors.Join(fmt.Errorf("machine %s: %w", c.Name, err), os.RemoveAll(dir))
	}
	return b.adopt(dir, c, s, nil), nil
}

// Reattach finds the machine that a former process left. If that process had it switched on and it is not running (the
// guest rebooted meanwhile, or the host did), it starts again, as a provider's machines do.
func (b *Backend) Reattach(ctx context.Context, c machine.Config) (machine.Machine, bool, error) {
	if err := checkConfig(c); err != nil {
		return nil, false, err
	}
	if err := b.needRescue(ctx, c); err != nil {
		return nil, false, err
	}
	dir := filepath.Join(b.o.Dir, c.Name)
	s, err := loadState(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("machine %s: %w", c.Name, err)
	}
	if err := b.o.Namespace.AddTap(ctx, s.Tap); err != nil {
		return nil, false, fmt.Errorf("machine %s: %w", c.Name, err)
	}
	p, err := reattach(ctx, dir)
	if err != nil {
		return nil, false, fmt.Errorf("machine %s: %w", c.Name, err)
	}
	m := b.adopt(dir, c, s, p)
	if p == nil && s.On {
		return m, true, m.PowerOn(ctx)
	}
	return m, true, nil
}

func (b *Backend) adopt(dir string, c machine.Config, s state, p *process) *Machine {
	m := &Machine{b: b, dir: dir, config: c, acts: make(chan act, 16), gone: make(chan struct{}), log: b.o.Log.With("machine", c.Name)}
	m.state, m.on = s, p != nil
	b.mu.Lock()
	b.machines[c.Name] = m
	b.mu.Unlock()
	go m.run(p)
	return m
}

// Close lets go of all machines and leaves them as they are, running or not.
func (b *Backend) Close() error {
	b.mu.Lock()
	all := b.machines
	b.machines = map[string]*Machine{}
	b.mu.Unlock()
	for _, m := range all {
		m.leave()
	}
	b.stopDHCP()
	<-b.dhcpDone
	return nil
}

// serveDHCP answers the machines' DHCP until Close.
func (b *Backend) serveDHCP(ctx context.Context) error {
	conn, err := b.o.Namespace.ListenPacket(ctx, "udp4", fmt.Sprintf("0.0.0.0:%d", dhcp.ServerPort), netns.Bridge)
	if err != nil {
		return fmt.Errorf("dhcp for the machines (is another lab up?): %w", err)
	}
	ctx, b.stopDHCP = context.WithCancel(context.WithoutCancel(ctx))
	b.dhcpDone = make(chan struct{})
	go func() {
		defer close(b.dhcpDone)
		if err := dhcp.Serve(ctx, conn, b.lease, b.o.Log); err != nil {
			b.o.Log.Error("dhcp ended", "error", err)
		}
	}()
	return nil
}

func (b *Backend) lease(mac net.HardwareAddr) (dhcp.Lease, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range b.machines {
		if bytes.Equal(m.config.MAC, mac) {
			return dhcp.Lease{Address: m.config.Address, Gateway: gateway4(m.config), Bits: bits4(m.config)}, m.config.DHCP
		}
	}
	return dhcp.Lease{}, false
}

func gateway4(c machine.Config) netip.Addr {
	if c.Gateway4.Is4() {
		return c.Gateway4
	}
	return netns.Gateway4
}

// bits4 is the length of the address's prefix: 32 where nothing is on the link.
func bits4(c machine.Config) int {
	if c.Net4.IsValid() {
		return c.Net4.Bits()
	}
	return 32
}

func checkConfig(c machine.Config) error {
	switch {
	case c.Name == "" || c.Name != filepath.Base(c.Name):
		return fmt.Errorf("machine %q: no fit name", c.Name)
	case !c.Address.Is4():
		return fmt.Errorf("machine %s: no IPv4 address", c.Name)
	case len(c.MAC) != 6:
		return fmt.Errorf("machine %s: no MAC address", c.Name)
	case c.Firmware != "bios" && c.Firmware != "uefi" && c.Firmware != "":
		return fmt.Errorf("machine %s: firmware %q: expected bios or uefi", c.Name, c.Firmware)
	case c.DiskKind != diskNVMe && c.DiskKind != diskSATA && c.DiskKind != "":
		return fmt.Errorf("machine %s: disks %q: expected nvme or sata", c.Name, c.DiskKind)
	case c.Net4.IsValid() && !c.Net4.Contains(c.Address):
		return fmt.Errorf("machine %s: %s is not in its network %s", c.Name, c.Address, c.Net4)
	case c.Disks < 0 || c.Disks > 2:
		return fmt.Errorf("machine %s: %d disks: expected 1 or 2", c.Name, c.Disks)
	}
	return nil
}

// state is what machine.json holds: what can't be derived from the provider's configuration.
type state struct {
	Serials []string  `json:"serials"`
	Tap     string    `json:"tap"`
	On      bool      `json:"on"` // what its owner wants, not what is
	Made    time.Time `json:"made"`
}

func loadState(dir string) (s state, err error) {
	return s, strictjson.File(filepath.Join(dir, "machine.json"), &s)
}

func (s state) save(dir string) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	tmp := filepath.Join(dir, ".machine.json")
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(dir, "machine.json"))
}
