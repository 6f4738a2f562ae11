package qemu

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"popfleet/internal/strictjson"
	"popfleet/lab/rescue"
)

// probeTime is what a working KVM needs to reach the first process of a guest, several times over.
const probeTime = 20 * time.Second

// probe is the remembered outcome of booting a guest under KVM.
type probe struct {
	Host  string `json:"host"` // kernel, QEMU and guest it was tried with; another host tries again
	Works bool   `json:"works"`
}

// chooseAccel takes KVM only where a guest was seen to boot under it: a /dev/kvm that opens may belong to a nested or
// emulating KVM on which Debian's kernel never reaches its first process.
func chooseAccel(ctx context.Context, o Options, r rescue.Rescue) (string, error) {
	switch o.Accel {
	case "tcg", "kvm":
		return o.Accel, nil
	case "":
	default:
		return "", fmt.Errorf("accelerator %q: expected tcg or kvm", o.Accel)
	}
	kvm, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		o.Log.Info("no kvm, machines are emulated", "error", err)
		return "tcg", nil
	}
	kvm.Close()
	works, err := kvmWorks(ctx, r, o.Log)
	if err != nil {
		return "", err
	}
	if works {
		return "kvm", nil
	}
	return "tcg", nil
}

func kvmWorks(ctx context.Context, r rescue.Rescue, log *slog.Logger) (bool, error) {
	host, err := hostKey(ctx, r)
	if err != nil {
		return false, err
	}
	memory := filepath.Join(filepath.Dir(filepath.Dir(r.Kernel)), "kvm.json")
	var p probe
	if strictjson.File(memory, &p) == nil && p.Host == host {
		return p.Works, nil
	}
	log.Info("trying whether kvm boots a guest", "at_most", probeTime)
	p = probe{Host: host, Works: bootsUnder(ctx, "kvm", r)}
	if ctx.Err() != nil {
		return false, ctx.Err() // an interrupted try proves nothing
	}
	log.Info("kvm tried", "works", p.Works)
	data, err := json.Marshal(p)
	if err != nil {
		return false, err
	}
	return p.Works, os.WriteFile(memory, data, 0o644)
}

// bootsUnder boots the rescue kernel to its first process, which says so and switches off.
func bootsUnder(ctx context.Context, accel string, r rescue.Rescue) bool {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	args := append([]string{"-nodefaults", "-no-user-config", "-display", "none", "-machine", "q35", "-m", "512", "-no-reboot",
		"-serial", "stdio", "-kernel", r.Kernel, "-initrd", r.Initrd, "-append", rescueCmdline + " lab.probe"}, accelArgs(accel)...)
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Stdout = &out
	return cmd.Run() == nil && strings.Contains(out.String(), rescueInitMark)
}

// hostKey names everything the outcome depends on.
func hostKey(ctx context.Context, r rescue.Rescue) (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", err
	}
	version, err := exec.CommandContext(ctx, binary, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("%s --version: %w", binary, err)
	}
	first, _, _ := strings.Cut(string(version), "\n")
	return strings.Join([]string{unix.ByteSliceToString(u.Release[:]), unix.ByteSliceToString(u.Version[:]), first, r.KernelRelease}, "; "), nil
}
