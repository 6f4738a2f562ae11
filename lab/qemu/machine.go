package qemu

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"popfleet/lab/machine"
	"popfleet/lab/netns"
	"popfleet/lab/rescue"
)

// Machine is one QEMU guest. One goroutine owns its process; methods only tell that goroutine what to do, so a caller
// may hold locks that NextBoot or Stopped take.
type Machine struct {
	b      *Backend
	dir    string
	config machine.Config
	log    *slog.Logger
	acts   chan act
	gone   chan struct{} // closed when the goroutine ends

	mu    sync.Mutex
	on    bool // switched on, as far as methods have said or the guest has done
	state state
}

type act struct {
	kind string   // on | off | reset | shutdown | go | leave | delete
	late *process // whose processor begins to run now: "go"
	done chan error
}

var errDeleted = errors.New("machine is deleted")

// PowerOn starts the machine from what NextBoot says.
func (m *Machine) PowerOn(ctx context.Context) error { return m.power(ctx, "on", true) }

// PowerOff pulls the plug.
func (m *Machine) PowerOff(ctx context.Context) error { return m.power(ctx, "off", false) }

// Reset cuts power and switches on again.
func (m *Machine) Reset(ctx context.Context) error {
	if !m.Running() {
		return nil
	}
	return m.tell(ctx, act{kind: "reset"})
}

// Shutdown presses the ACPI button. The rescue system ignores it.
func (m *Machine) Shutdown(ctx context.Context) error {
	if !m.Running() {
		return nil
	}
	return m.tell(ctx, act{kind: "shutdown"})
}

// Delete switches the machine off and removes everything of it.
func (m *Machine) Delete(ctx context.Context) error {
	done := make(chan error, 1)
	err := m.tell(ctx, act{kind: "delete", done: done})
	if errors.Is(err, errDeleted) {
		return nil
	}
	if err != nil {
		return err
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Running says whether it is switched on.
func (m *Machine) Running() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.on
}

// Serials of its disks, in order.
func (m *Machine) Serials() []string { return slices.Clone(m.state.Serials) }

// Console is the path of the serial console's log.
func (m *Machine) Console() string { return filepath.Join(m.dir, consoleFile) }

// Dial connects from the lab's gateway to a TCP port of the machine.
func (m *Machine) Dial(ctx context.Context, port uint16) (net.Conn, error) {
	return m.b.o.Namespace.Dial(ctx, "tcp4", netip.AddrPortFrom(m.config.Address, port).String())
}

func (m *Machine) power(ctx context.Context, kind string, on bool) error {
	m.mu.Lock()
	was := m.on
	m.on = on
	m.mu.Unlock()
	if was == on {
		return nil
	}
	err := m.tell(ctx, act{kind: kind})
	if err != nil {
		m.mu.Lock()
		m.on = was && !errors.Is(err, errDeleted)
		m.mu.Unlock()
	}
	return err
}

func (m *Machine) tell(ctx context.Context, a act) error {
	select {
	case m.acts <- a:
		return nil
	case <-m.gone:
		return errDeleted
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (m *Machine) leave() {
	if m.tell(context.Background(), act{kind: "leave"}) == nil {
		<-m.gone
	}
}

// run owns the process p, nil when the machine is off.
func (m *Machine) run(p *process) {
	defer close(m.gone)
	for {
		var ended <-chan struct{}
		if p != nil {
			ended = p.qmp.done
		}
		select {
		case <-ended:
			p = m.ended(p)
		case a := <-m.acts:
			switch a.kind {
			case "leave":
				if p != nil {
					p.leave()
				}
				return
			case "delete":
				a.done <- m.remove(p)
				return
			}
			p = m.act(p, a)
		}
	}
}

func (m *Machine) act(p *process, a act) *process {
	switch a.kind {
	case "on":
		if p == nil {
			return m.start()
		}
	case "off":
		m.stop(p)
		m.want(false)
		return nil
	case "reset":
		if p != nil {
			m.stop(p)
			return m.start()
		}
	case "go":
		if p != nil && p == a.late {
			if _, err := p.qmp.call(context.Background(), "cont", nil); err != nil {
				m.log.Warn("late start", "error", err)
			}
		}
	case "shutdown":
		if p != nil {
			if _, err := p.qmp.call(context.Background(), "system_powerdown", nil); err != nil {
				m.log.Warn("acpi button", "error", err)
			}
		}
	}
	return p
}

// ended decides what follows the end of a process that we did not end: a reboot starts it again, all else is off.
func (m *Machine) ended(p *process) *process {
	p.wait()
	reason := p.qmp.reason()
	m.log.Info("guest ended", "reason", reason)
	if reason == "guest-reset" && m.Running() {
		return m.start()
	}
	m.off()
	return nil
}

func (m *Machine) off() {
	m.mu.Lock()
	m.on = false
	m.mu.Unlock()
	m.want(false)
	if m.config.Stopped != nil {
		m.config.Stopped()
	}
}

func (m *Machine) stop(p *process) {
	if p == nil {
		return
	}
	if err := p.kill(); err != nil {
		m.log.Error("pull the plug", "error", err)
	}
}

// start asks what to boot and boots it. A machine that can't start is off; why is on its console.
func (m *Machine) start() *process {
	var boot machine.Boot
	if m.config.NextBoot != nil {
		boot = m.config.NextBoot()
	}
	what := "disk"
	if boot.Rescue {
		what = "rescue"
	}
	m.note(powerOnMark + what + flaws(boot))
	m.want(true)
	p, err := m.startBoot(boot)
	if err != nil {
		m.log.Error("start machine", "error", err)
		m.note(err.Error())
		m.off()
		return nil
	}
	m.log.Info("machine started", "boot", what, "pid", p.pid)
	return p
}

// flaws are what is wrong with a boot, in words for the console.
func flaws(b machine.Boot) string {
	var s string
	for _, i := range b.MissingDisks {
		s += fmt.Sprintf(", without disk %d", i)
	}
	if b.SwapDisks {
		s += ", disks swapped"
	}
	switch {
	case b.Hangs:
		s += ", hangs"
	case b.Late > 0:
		s += fmt.Sprintf(", %s late", b.Late)
	}
	return s
}

func (m *Machine) startBoot(boot machine.Boot) (*process, error) {
	if boot.Rescue {
		if err := m.writeInitrd(boot); err != nil {
			return nil, err
		}
	}
	p, err := startQEMU(context.Background(), m.b.o.Namespace, m.dir, m.b.args(m.config, m.state, boot))
	if err == nil && boot.Late > 0 && !boot.Hangs {
		// tell gives up when the machine is gone; a start in between makes another process
		time.AfterFunc(boot.Late, func() { _ = m.tell(context.Background(), act{kind: "go", late: p}) })
	}
	return p, err
}

func (m *Machine) writeInitrd(boot machine.Boot) error {
	data, err := os.ReadFile(m.b.rescueFor(m.config).Initrd)
	if err != nil {
		return err
	}
	c := m.config
	own := rescue.BootData{MAC: c.MAC, Address4: netip.PrefixFrom(c.Address, bits4(c)), Gateway4: gateway4(c), Prefix6: c.Prefix6,
		Gateway6: netns.Gateway6, AuthorizedKeys: boot.AuthorizedKeys, HostKeys: boot.HostKeys, Hostname: c.RescueName}
	return os.WriteFile(filepath.Join(m.dir, initrdFile), append(data, own.CPIO()...), 0o600)
}

// want writes down what a lab process that comes after us should make of the machine.
func (m *Machine) want(on bool) {
	m.mu.Lock()
	m.state.On = on
	s := m.state
	m.mu.Unlock()
	if err := s.save(m.dir); err != nil {
		m.log.Error("save machine state", "error", err)
	}
}

// note writes a line of ours into the console log.
func (m *Machine) note(line string) {
	f, err := os.OpenFile(m.Console(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		m.log.Error("write console log", "error", err)
		return
	}
	defer f.Close()
	fmt.Fprintf(f, "\n--- lab %s: %s\n", time.Now().UTC().Format(time.RFC3339), line)
}

func (m *Machine) remove(p *process) error {
	m.stop(p)
	m.mu.Lock()
	m.on = false
	m.mu.Unlock()
	m.b.mu.Lock()
	delete(m.b.machines, m.config.Name)
	m.b.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return errors.Join(m.b.o.Namespace.DeleteTap(ctx, m.state.Tap), os.RemoveAll(m.dir))
}
