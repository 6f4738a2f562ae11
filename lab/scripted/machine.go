package scripted

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"

	"popfleet/lab/faults"
	"popfleet/lab/machine"
	"popfleet/lab/wire"
)

// stage is what answers on a running machine.
type stage string

// The stages of a boot. A machine that is off has stage off.
const (
	off     stage = "off"
	booting stage = "booting"
	rescue  stage = "rescue"
	factory stage = "factory" // the provider's image, never installed by us
	locked  stage = "locked"  // dropbear in the initramfs
	opened  stage = "opened"  // unlocked, the system is starting
	system  stage = "system"
	dead    stage = "dead" // nothing answers until the next start
)

// Machine is one scripted computer.
type Machine struct {
	b      *Backend
	ledger *Ledger

	mu      sync.Mutex
	cfg     atomic.Pointer[machine.Config]
	disks   []*disk // survive a power cut
	deleted bool
	plain   bool  // no door before cryptroot-unlock
	boot    *boot // nil when off
	ports   map[uint16]func(net.Conn)
	kept    keptContent

	carried *declarations // what the next boots begin with
	forged  bool          // and call their own
}

// boot is one run from power-on to power-off. What lives in memory lives here.
type boot struct {
	id       string
	ctx      context.Context // ends with the power
	cut      context.CancelFunc
	given    machine.Boot
	stage    stage
	hostKeys []ssh.Signer    // of rescue and factory: the provider's, else fresh every boot
	agents   map[string]bool // digests of agents in /run
	tries    int             // of unlocking
	door     door
	install  *installRun
	conns    map[net.Conn]bool
	sharing  *sharing // guarded by the machine's mu: passes content on
	declared declarations
}

func newMachine(b *Backend, c machine.Config) *Machine {
	m := &Machine{b: b, ledger: &Ledger{}, ports: map[uint16]func(net.Conn){}}
	m.cfg.Store(&c)
	for i := range max(1, c.Disks) {
		m.disks = append(m.disks, &disk{Serial: fmt.Sprintf("LAB%s%d", c.Name, i), SizeBytes: int64(c.DiskGB) << 30, holds: &content{}})
	}
	return m
}

func (m *Machine) adopt(c machine.Config) {
	m.cfg.Store(&c)
}

// Label is the name people gave it when it was made.
func (m *Machine) Label() string { return m.cfg.Load().Label }

// Address is its IPv4 address.
func (m *Machine) Address() netip.Addr { return m.cfg.Load().Address }

// Ledger tells what was done to it.
func (m *Machine) Ledger() *Ledger { return m.ledger }

// Stage says what answers on it now: off, booting, rescue, factory, locked, opened, system or dead.
func (m *Machine) Stage() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.boot == nil {
		return string(off)
	}
	return string(m.boot.stage)
}

// Serve lets f answer connections to a port of the running system that scripted machines do not answer by themselves.
// f owns the connection; it must return when the connection is closed, which a power cut does.
func (m *Machine) Serve(port uint16, f func(net.Conn)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ports[port] = f
}

func (m *Machine) isDeleted() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.deleted
}

// PowerOn starts the machine if it is off.
func (m *Machine) PowerOn(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.deleted {
		return errors.New("machine is deleted")
	}
	if m.boot == nil && m.b.life.Err() == nil {
		m.start()
	}
	return nil
}

// start begins a boot; mu is held.
func (m *Machine) start() {
	ctx, cut := context.WithCancel(m.b.life)
	bt := &boot{id: newBootID(), ctx: ctx, cut: cut, stage: booting, agents: map[string]bool{}, conns: map[net.Conn]bool{}}
	bt.declared = m.remembered(bt.id)
	m.boot = bt
	m.b.spawn(func() { m.run(bt) })
}

// run goes through the stages that come by themselves.
func (m *Machine) run(bt *boot) {
	given := m.cfg.Load().NextBoot()
	keys, err := hostKeys(given.HostKeys)
	if err != nil {
		m.b.opt.Log.Error("scripted machine: host keys", "error", err)
		return
	}
	m.mu.Lock()
	bt.given = given
	next := boots(order(m.disks, given))
	m.mu.Unlock()
	t := m.b.opt.Timing
	wait := t.BootDisk
	if given.Rescue {
		next, wait = rescue, t.BootRescue
	}
	if given.Hangs {
		next = dead
	}
	m.ledger.booted(string(next), bt.id)
	if pause(bt.ctx, wait+given.Late) {
		m.mu.Lock()
		bt.hostKeys, bt.stage = keys, next
		m.mu.Unlock()
	}
}

// powerCut ends the boot at once: connections break, memory is gone.
func (m *Machine) powerCut() { m.end(wire.Cut) }

// end stops the boot and treats every connection by how.
func (m *Machine) end(how func(net.Conn)) {
	m.mu.Lock()
	bt := m.boot
	m.boot = nil
	m.mu.Unlock()
	if bt == nil {
		return
	}
	bt.cut()
	m.mu.Lock()
	defer m.mu.Unlock()
	for c := range bt.conns {
		how(c)
	}
}

// PowerOff pulls the plug.
func (m *Machine) PowerOff(context.Context) error { m.powerCut(); return nil }

// Shutdown presses the ACPI button. A system stops; a rescue system and an initramfs do not listen.
func (m *Machine) Shutdown(context.Context) error {
	m.mu.Lock()
	listens := m.boot != nil && (m.boot.stage == system || m.boot.stage == factory || m.boot.stage == rescue)
	m.mu.Unlock()
	if listens {
		m.powerCut()
		m.cfg.Load().Stopped()
	}
	return nil
}

// Reset cuts the power and starts again.
func (m *Machine) Reset(ctx context.Context) error {
	m.powerCut()
	return m.PowerOn(ctx)
}

// Running says whether it has power.
func (m *Machine) Running() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.boot != nil
}

// Serials names its disks.
func (m *Machine) Serials() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []string
	for _, d := range m.disks {
		out = append(out, d.Serial)
	}
	return out
}

// Console is "": a scripted machine has none.
func (m *Machine) Console() string { return "" }

// Delete ends the machine; its ledger stays readable.
func (m *Machine) Delete(context.Context) error {
	m.powerCut()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.deleted = true
	return nil
}

// Dial connects to a port, as the world outside reaches it: nobody there, nobody listening, or a connection.
func (m *Machine) Dial(ctx context.Context, port uint16) (net.Conn, error) {
	rtt := m.b.opt.Timing.RTT
	if !pause(ctx, rtt) {
		return nil, ctx.Err()
	}
	m.mu.Lock()
	bt := m.boot
	if bt == nil {
		m.mu.Unlock()
		return nil, syscall.EHOSTUNREACH
	}
	serve := m.listener(bt, port)
	if serve == nil {
		m.mu.Unlock()
		return nil, syscall.ECONNREFUSED
	}
	near, far := wire.Pipe(rtt/2, addr("operator"), addr(fmt.Sprintf("%s:%d", m.cfg.Load().Address, port)))
	bt.conns[far] = true
	m.mu.Unlock()
	m.b.spawn(func() {
		defer m.hangUp(bt, far)
		serve(far)
	})
	return near, nil
}

func (m *Machine) hangUp(bt *boot, c net.Conn) {
	_ = c.Close() // in memory: can't fail
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(bt.conns, c)
}

// listener picks what answers on a port; mu is held.
func (m *Machine) listener(bt *boot, port uint16) func(net.Conn) {
	switch {
	case port == 22 && bt.stage == rescue:
		return func(c net.Conn) { m.serveRescue(bt, c) }
	case port == 22 && bt.stage == factory:
		return func(c net.Conn) { m.serveFactory(bt, c) }
	case bt.sharing != nil && int(port) == bt.sharing.port && (bt.stage == rescue || bt.stage == system):
		return bt.sharing.serve
	case port == 2222 && bt.stage == locked:
		return func(c net.Conn) { m.serveDropbear(bt, c) }
	case port == 22 && bt.stage == system:
		return func(c net.Conn) { m.serveSystem(bt, c) }
	case bt.stage == system:
		return m.ports[port]
	}
	return nil
}

// reboot is what the machine does to itself. It closes its connections in good order: what was said is heard.
func (m *Machine) reboot(bt *boot) {
	m.mu.Lock()
	current := m.boot == bt
	m.mu.Unlock()
	if !current {
		return
	}
	m.end(func(c net.Conn) { _ = c.Close() }) // in memory: can't fail
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.boot == nil && !m.deleted && m.b.life.Err() == nil {
		m.start()
	}
}

func (m *Machine) names() []string {
	names := []string{m.cfg.Load().Name, m.cfg.Load().Label, m.cfg.Load().Address.String()}
	if m.cfg.Load().ID != "" {
		names = append(names, m.cfg.Load().ID)
	}
	return names
}

func (m *Machine) occasion(layer string) faults.Occasion {
	return faults.Occasion{Layer: layer, Machine: m.names()}
}

func (m *Machine) fault(k faults.Kind, step string) bool {
	o := m.occasion(faults.Node)
	o.Step = step
	_, ok := m.b.opt.Faults.Take(o, k)
	return ok
}

type addr string

func (a addr) Network() string { return "lab" }
func (a addr) String() string  { return string(a) }

func newHostKey() (ssh.Signer, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	return ssh.NewSignerFromKey(key)
}

// hostKeys reads the provider's keys, or makes one when there are none.
func hostKeys(given [][]byte) ([]ssh.Signer, error) {
	if len(given) == 0 {
		key, err := newHostKey()
		return []ssh.Signer{key}, err
	}
	var out []ssh.Signer
	for _, pem := range given {
		key, err := ssh.ParsePrivateKey(pem)
		if err != nil {
			return nil, err
		}
		out = append(out, key)
	}
	return out, nil
}

func newBootID() string {
	var b [16]byte
	rand.Read(b[:])
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:])
}

var _ machine.Machine = (*Machine)(nil)

// deadline for anything a peer should have said long ago.
const patience = 5 * time.Minute
