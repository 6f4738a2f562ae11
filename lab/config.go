// Package lab is three clouds on one machine: the APIs of Hetzner Cloud (lab/hcloud), Hetzner Robot (lab/robot) and OVH
// (lab/ovh) in front of machines that really boot (lab/qemu) or are played (lab/scripted), a SOCKS5 door to reach them,
// and faults on demand.
//
// [Run] is the daemon behind fleet-lab. It serves on loopback only, never reaches beyond the machine it runs on, and
// never imports provision or agents: a simulator that shares code with what it tests proves nothing. When it stops, the
// QEMU machines go on; the next Run finds them again by its state folder. `fleet-lab down` removes everything.
package lab

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"popfleet/lab/netns"
	"popfleet/lab/rack"
)

// Config is what a lab is made of. Default is complete and valid.
type Config struct {
	API      string // HTTP listener of Hetzner Cloud's API
	RobotAPI string // of Hetzner Robot's, if the lab has machines there
	OVHAPI   string // of OVH's, likewise
	Socks    string // SOCKS5 listener
	Forward  string // TCP listener that leads to port 443 of the machines that answer there, in turn; "" is none
	Dir      string // state, machines, logs, control socket
	Token    string // the one API token; passwords and secrets of the other providers are made from it
	Scripted bool   // played machines instead of QEMU: no root, no images

	Robot    int    // dedicated machines at Hetzner Robot
	OVH      int    // and at OVH
	Firmware string // of dedicated machines: bios, uefi, mixed; "" is BIOS at Robot and UEFI at OVH
	Disks    int    // of dedicated machines
	Bare     bool   // devices of dedicated machines as in real ones: AHCI, Intel NIC

	Namespace string  // network namespace of QEMU machines
	CacheDir  string  // of the rescue system; "" is the user's cache
	Accel     string  // tcg, kvm; "" probes
	Durable   bool    // flush the guests' disks
	CPUs      int     // of every machine, whatever its type promises
	MemoryMB  int     // likewise
	DiskGB    int     // likewise, but never more than the type's
	Speed     float64 // of API actions: 1 is the provider's pace, 10 is ten times as fast
}

// DefaultDir is where the lab of a host lives; it needs root, as QEMU machines do.
const DefaultDir = "/var/lib/fleet-lab"

// Default is a QEMU lab that a small machine can carry.
func Default() Config {
	return Config{
		API: "127.0.0.1:8080", RobotAPI: "127.0.0.1:8081", OVHAPI: "127.0.0.1:8082", Socks: "127.0.0.1:1080", Forward: "127.0.0.1:8443", Dir: DefaultDir, Token: "lab-token",
		Disks: 2, Namespace: netns.DefaultName, CPUs: 1, MemoryMB: 1024, DiskGB: 10, Speed: 1,
	}
}

// Validate reports all problems at once.
func (c Config) Validate() error {
	var errs []error
	if c.API == "" || c.Socks == "" {
		errs = append(errs, errors.New("api and socks listeners are needed"))
	}
	if !filepath.IsAbs(c.Dir) {
		errs = append(errs, fmt.Errorf("dir %q: expected an absolute path", c.Dir))
	}
	if c.Token == "" {
		errs = append(errs, errors.New("token is empty"))
	}
	if c.CPUs < 1 || c.MemoryMB < 256 || c.DiskGB < 4 {
		errs = append(errs, fmt.Errorf("machines of %d CPUs, %d MB and %d GB: too small to boot", c.CPUs, c.MemoryMB, c.DiskGB))
	}
	if c.Robot < 0 || c.OVH < 0 || c.Robot > rack.Most || c.OVH > rack.Most {
		errs = append(errs, fmt.Errorf("%d and %d dedicated machines: expected up to %d of each", c.Robot, c.OVH, rack.Most))
	}
	if c.Robot > 0 && c.RobotAPI == "" || c.OVH > 0 && c.OVHAPI == "" {
		errs = append(errs, errors.New("dedicated machines need their provider's listener"))
	}
	if !slices.Contains([]string{"", rack.BIOS, rack.UEFI, rack.Mixed}, c.Firmware) {
		errs = append(errs, fmt.Errorf("firmware %q: expected bios, uefi or mixed", c.Firmware))
	}
	if c.Disks < 1 || c.Disks > 2 {
		errs = append(errs, fmt.Errorf("%d disks: expected 1 or 2", c.Disks))
	}
	if c.Speed <= 0 {
		errs = append(errs, fmt.Errorf("speed %v: expected more than 0", c.Speed))
	}
	return errors.Join(errs...)
}

// Socket is the control socket's path.
func (c Config) Socket() string { return filepath.Join(c.Dir, "control.sock") }

// LogPath is where a daemonized lab writes.
func (c Config) LogPath() string { return filepath.Join(c.Dir, "lab.log") }

func (c Config) machineDir() string               { return filepath.Join(c.Dir, "machines") }
func (c Config) statePath(provider string) string { return filepath.Join(c.Dir, provider+".json") }

// Deps is what the daemon is given besides its configuration.
type Deps struct {
	Log *slog.Logger
	// Ready is called once, when everything listens.
	Ready func(Status)
	// Progress tells people what takes long: building the rescue system.
	Progress func(step string, took time.Duration)
	Version  string
}
