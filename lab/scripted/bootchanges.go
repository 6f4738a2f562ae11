package scripted

import (
	"errors"
	"slices"
	"time"
)

type bootChanges struct {
	BootID   string        `json:"boot_id,omitempty"`
	UnderWay string        `json:"under_way,omitempty"`
	Changes  []bootChange  `json:"changes,omitempty"`
	Manifest *bootManifest `json:"manifest,omitempty"`
}

type bootChange struct {
	From      bootManifest `json:"from"`
	To        string       `json:"to"`
	Packages  []string     `json:"packages"`
	UnixMilli int64        `json:"unix_milli"`
}

// declarations are what package runs of one boot said; they lie in memory.
type declarations struct {
	boot    string
	begun   *bootManifest // of the run that is going on
	changes []bootChange
}

// BeginPackageRun is dpkg's hook before a run. What changes until EndPackageRun is the run's.
func (m *Machine) BeginPackageRun() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.boot == nil || m.boot.stage != system {
		return errors.New("scripted machine: no system runs")
	}
	from := m.installed().manifest()
	m.boot.declared.begun, m.boot.declared.boot = &from, m.boot.id
	return nil
}

// EndPackageRun is the hook behind it; without a package it is a run that was killed.
func (m *Machine) EndPackageRun(packages ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.boot == nil || m.boot.declared.begun == nil {
		return
	}
	d := &m.boot.declared
	now, from := m.installed().manifest(), *d.begun
	d.begun = nil
	if len(packages) > 0 && now.Digest != from.Digest {
		d.changes = append(slices.Clone(d.changes), bootChange{from, now.Digest, packages, time.Now().UnixMilli()})
	}
}

// CarryDeclarations makes the node's words outlive a restart, as they would when its initramfs was tampered with; forged
// makes them of the boot that comes.
func (m *Machine) CarryDeclarations(forged bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.boot != nil {
		d := m.boot.declared
		m.carried, m.forged = &d, forged
	}
}

// remembered is what a boot begins with; mu is held.
func (m *Machine) remembered(boot string) declarations {
	if m.carried == nil {
		return declarations{}
	}
	d := *m.carried
	if m.forged {
		d.boot = boot
	}
	return d
}

func (d declarations) last() string {
	if len(d.changes) == 0 {
		return ""
	}
	return d.changes[len(d.changes)-1].To
}

// bootChanges tells what package runs changed, and what the node would boot from now.
func (x *exchange) bootChanges() (any, error) {
	if x.s.link != "system" {
		return nil, &remoteError{"wrong_node", "this machine does not run an installed system", ""}
	}
	x.m.mu.Lock()
	defer x.m.mu.Unlock()
	d := x.bt.declared
	out := bootChanges{BootID: d.boot, Changes: d.changes}
	switch {
	case d.begun != nil:
		out.UnderWay = "dpkg (pid 77)"
	case len(d.changes) > 0:
		now := x.m.installed().manifest()
		out.Manifest = &now
	}
	return out, nil
}

// Declared is what its agent would report of the last package run.
func (m *Machine) Declared() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.boot == nil {
		return ""
	}
	return m.boot.declared.last()
}
