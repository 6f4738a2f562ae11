package scripted

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/crypto/ssh"

	"popfleet/lab/faults"
)

// installRun is an installation in progress or done in this boot. It goes on when connections come and go; whoever is
// connected follows it.
type installRun struct {
	spec installSpec

	mu      sync.Mutex
	changed chan struct{} // closed and replaced at every change below
	events  []event       // guarded by mu: all so far, but needs
	need    *blob         // guarded by mu: what it waits for
	result  *installed    // guarded by mu
	err     error         // guarded by mu
	wiped   []string
	content *content // what it installs, from step partition on; guarded by the machine's mu
}

func (r *installRun) update(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
	close(r.changed)
	r.changed = make(chan struct{})
}

// install starts a run or joins the one in progress, and follows it to its end.
func (x *exchange) install(spec installSpec) (any, error) {
	if x.s.link != "rescue" {
		return nil, &remoteError{"not_in_rescue", "this machine does not run a rescue system", "enable rescue and reset it"}
	}
	if err := spec.check(); err != nil {
		return nil, err
	}
	x.m.mu.Lock()
	run := x.bt.install
	if run != nil && run.spec.Run != spec.Run && !run.over() {
		x.m.mu.Unlock()
		return nil, &remoteError{"install_in_progress", "another installation is in progress: " + run.spec.Run, "wait for it, or reset the machine"}
	}
	if run == nil || run.failed() || run.spec.Run != spec.Run {
		run = &installRun{spec: spec, changed: make(chan struct{})}
		x.bt.install = run
		x.m.b.spawn(func() { x.m.work(x.bt, run) })
	}
	x.m.mu.Unlock()
	return x.follow(run)
}

func (r *installRun) over() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.result != nil || r.err != nil
}

func (r *installRun) failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err != nil
}

func (s installSpec) check() error {
	bad := ""
	switch {
	case s.Version != 1:
		bad = "version must be 1"
	case s.Node == "" || s.Fleet == "" || s.Run == "":
		bad = "node, fleet and run are needed"
	case len(s.InstallKey) < 16:
		bad = "install_key is too short"
	case len(s.AuthorizedKeys) == 0:
		bad = "authorized_keys is empty"
	case len(s.Image.SHA256) != 64 || s.Image.SizeBytes <= 0:
		bad = "image is not named by digest and size"
	}
	if _, _, _, _, err := ssh.ParseAuthorizedKey([]byte(s.UserCA)); bad == "" && err != nil {
		bad = "user_ca is not a public key"
	}
	if bad != "" {
		return &remoteError{"bad_spec", "install spec: " + bad, ""}
	}
	return nil
}

// follow replays what happened and then tells what happens, and feeds the run when it needs the image.
func (x *exchange) follow(run *installRun) (any, error) {
	told := 0
	for {
		run.mu.Lock()
		news, changed := run.events[told:], run.changed
		need, result, err := run.need, run.result, run.err
		run.mu.Unlock()
		for _, e := range news {
			x.emit(e)
		}
		told += len(news)
		switch {
		case err != nil:
			return nil, err
		case result != nil:
			return result, nil
		case need != nil:
			if err := x.fetch([]blob{*need}); err != nil {
				return nil, err // the run goes on waiting for another connection
			}
			run.update(func() { run.need = nil })
			continue
		}
		select {
		case <-changed:
		case <-x.bt.ctx.Done():
			return nil, errNoPower
		}
	}
}

// work carries the installation out.
func (m *Machine) work(bt *boot, run *installRun) {
	result, err := m.installSteps(bt, run)
	if bt.ctx.Err() != nil || errors.Is(err, errNoPower) {
		return // power lost: the disks stay as they are
	}
	if err == nil {
		m.leaveAgents(bt)
	}
	run.update(func() { run.result, run.err = result, err })
}

func (m *Machine) installSteps(bt *boot, run *installRun) (*installed, error) {
	steps := []struct {
		name string
		do   func() error
	}{
		{"guards", func() error { return m.guards(run) }},
		{"partition", func() error { return m.partition(run) }},
		{"luks", func() error { return m.luks(run) }},
		{"filesystems", nil},
		{"image", func() error { return m.waitImage(bt, run) }},
		{"configure", func() error { return m.configure(run) }},
		{"bootloader", nil},
		{"finish", func() error { return m.finish(run) }},
	}
	for _, s := range steps {
		run.update(func() { run.events = append(run.events, event{Kind: "step", Step: s.name, Status: "doing"}) })
		if m.fault(faults.InstallFails, s.name) {
			return nil, &remoteError{"failed", "install step " + s.name + ": made to fail by the lab", ""}
		}
		if m.fault(faults.SpontaneousBoot, s.name) {
			m.b.spawn(func() { m.reboot(bt) })
			return nil, errNoPower
		}
		if !pause(bt.ctx, m.b.opt.Timing.Step) {
			return nil, errNoPower
		}
		if s.do != nil {
			if err := s.do(); err != nil {
				return nil, err
			}
		}
		run.update(func() { run.events = append(run.events, event{Kind: "step", Step: s.name, Status: "done"}) })
	}
	return m.report(run)
}

// chosen are the disks the spec names, or all there are; mu is held.
func (m *Machine) chosen(serials []string) ([]*disk, error) {
	all := m.found()
	if len(serials) == 0 {
		return all, nil
	}
	var out []*disk
	for _, s := range serials {
		i := slices.IndexFunc(all, func(d *disk) bool { return d.Serial == s })
		if i < 0 {
			return nil, &remoteError{"wrong_disk", "no disk has the serial " + s, "the fleet file or the server changed"}
		}
		out = append(out, all[i])
	}
	return out, nil
}

func (m *Machine) guards(run *installRun) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	disks, err := m.chosen(run.spec.Serials)
	if err != nil {
		return err
	}
	for _, known := range run.spec.KnownSerials {
		if len(run.spec.Serials) == 0 && !slices.ContainsFunc(disks, func(d *disk) bool { return d.Serial == known }) {
			return &remoteError{"wrong_disk", "disk " + known + ", which the journal knows this machine to have, is not there", "name the disks in disks.serials"}
		}
	}
	for _, d := range disks {
		switch {
		case d.SizeBytes < int64(run.spec.MinGB)<<30:
			return &remoteError{"disk_too_small", fmt.Sprintf("disk %s has %d GiB, %d are needed", d.Serial, d.SizeBytes>>30, run.spec.MinGB), ""}
		case d.Foreign != "":
			return &remoteError{"wrong_disk", fmt.Sprintf("disk %s carries %s", d.Serial, d.Foreign), "name it in disks.serials only if it may be wiped"}
		case d.Marker != "" && d.Marker != run.spec.Run && d.Marker != run.spec.PrevMarker:
			return &remoteError{"wrong_disk", fmt.Sprintf("disk %s was installed by run %s", d.Serial, d.Marker), "it is not the disk the journal knows"}
		}
	}
	return nil
}

func (m *Machine) partition(run *installRun) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	disks, err := m.chosen(run.spec.Serials)
	if err != nil {
		return err
	}
	run.content = &content{}
	if i := slices.IndexFunc(disks, func(d *disk) bool { return d.Marker == run.spec.Run }); i >= 0 {
		run.content = disks[i].holds
	}
	run.content.Halves = len(disks)
	for _, d := range disks {
		if d.Marker == run.spec.Run {
			continue // wiped by this run before
		}
		*d = disk{Serial: d.Serial, SizeBytes: d.SizeBytes, Touched: true, Marker: run.spec.Run, holds: run.content}
		run.wiped = append(run.wiped, d.Serial)
		m.ledger.wiped(d.Serial)
	}
	return nil
}

func (m *Machine) luks(run *installRun) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := run.content
	if d.LUKSUUID == "" {
		d.LUKSUUID = newBootID()
	}
	d.Slots = []slot{{"install", slices.Clone(run.spec.InstallKey)}}
	return nil
}

func (m *Machine) waitImage(bt *boot, run *installRun) error {
	image := run.spec.Image
	run.update(func() { run.need = &image })
	for {
		run.mu.Lock()
		changed, fed := run.changed, run.need == nil
		run.mu.Unlock()
		if fed {
			return nil
		}
		select {
		case <-changed:
		case <-bt.ctx.Done():
			return errNoPower
		}
	}
}

func (m *Machine) configure(run *installRun) error {
	initramfs, err := newHostKey()
	if err != nil {
		return err
	}
	sys, err := newHostKey()
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	d := run.content
	d.Fleet, d.Node, d.UserCA = run.spec.Fleet, run.spec.Node, run.spec.UserCA
	d.UnlockKeys = slices.Clone(run.spec.AuthorizedKeys)
	if d.InitramfsKey == nil {
		d.InitramfsKey, d.SystemKey = initramfs, sys
	}
	d.Network = m.network()
	if run.spec.Network != nil {
		d.Network = *run.spec.Network
	}
	return nil
}

func (m *Machine) finish(run *installRun) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	run.content.Complete = true
	m.ledger.do(func() { m.ledger.installs = append(m.ledger.installs, run.spec.Run) })
	return nil
}

func (m *Machine) report(run *installRun) (*installed, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := run.content
	out := &installed{
		Run: run.spec.Run, Disks: m.wireDisks(), Wiped: append([]string{}, run.wiped...), Network: d.Network, LUKSUUID: d.LUKSUUID,
		InitramfsHostKey: keyLine(d.InitramfsKey), SystemHostKey: keyLine(d.SystemKey),
	}
	return out, nil
}

func keyLine(s ssh.Signer) string {
	line := ssh.MarshalAuthorizedKey(s.PublicKey())
	return string(line[:len(line)-1])
}
