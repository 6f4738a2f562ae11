package qemu

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"runtime"
	"slices"
	"strconv"

	"popfleet/lab/machine"
	"popfleet/lab/rescue"
)

const binary = "qemu-system-x86_64"

// Kinds of disks, as in machine.Config.
const (
	diskNVMe = "nvme"
	diskSATA = "sata"
)

// Files of a machine's folder, which is QEMU's working directory: paths of unix sockets have to be short.
const (
	consoleFile = "console.log"
	consoleSock = "console.sock"
	qmpSock     = "qmp.sock"
	pidFile     = "qemu.pid"
	initrdFile  = "initrd"
)

// rescueCmdline: eth0 as rescue systems name it; no mitigations, for speed only.
const rescueCmdline = "console=ttyS0 net.ifnames=0 loglevel=4 mitigations=off random.trust_cpu=on panic=30 nokaslr no_timer_check tsc=reliable"

// cpu is what an accelerator presents.
func cpu(accel string) string {
	if accel == "kvm" {
		return "host"
	}
	return "max"
}

func accelArgs(accel string) []string {
	if accel == "kvm" {
		return []string{"-accel", "kvm", "-cpu", cpu(accel)}
	}
	return []string{"-accel", "tcg,thread=multi,tb-size=512", "-cpu", cpu(accel)}
}

// args is QEMU's command line for one boot of a machine.
func (b *Backend) args(c machine.Config, s state, boot machine.Boot) []string {
	mem := c.MemoryMB
	if mem == 0 {
		mem = defaultMemoryMB
	}
	a := []string{"-name", "lab-" + c.Name + ",debug-threads=on", "-nodefaults", "-no-user-config", "-display", "none",
		"-machine", "q35,graphics=off", // SeaBIOS and GRUB then speak on the serial line
		"-smp", strconv.Itoa(min(max(c.CPUs, 1), runtime.NumCPU())), "-m", strconv.Itoa(mem),
		"-no-reboot", "-rtc", "base=utc,clock=host", "-pidfile", pidFile,
		"-qmp", "unix:" + qmpSock + ",server=on,wait=off",
		"-chardev", "socket,id=console,path=" + consoleSock + ",server=on,wait=off,logfile=" + consoleFile + ",logappend=on",
		"-serial", "chardev:console",
		"-device", "virtio-rng-pci",
		"-netdev", "tap,id=net,ifname=" + s.Tap + ",script=no,downscript=no",
		"-device", nic(c) + ",netdev=net,romfile=,mac=" + c.MAC.String()}
	a = append(a, accelArgs(b.accel)...)
	a = append(a, b.diskArgs(c, s, boot)...)
	if c.Firmware == "uefi" {
		a = append(a, "-drive", "if=pflash,format=raw,unit=0,readonly=on,file="+ovmfCode,
			"-drive", "if=pflash,format=raw,unit=1,file=vars.fd")
	}
	if boot.Hangs || boot.Late > 0 {
		a = append(a, "-S") // has power, and no processor runs
	}
	if boot.Rescue {
		a = append(a, rescueArgs(b.rescueFor(c), initrdFile)...)
	}
	return a
}

func nic(c machine.Config) string {
	if c.Bare {
		return "e1000e"
	}
	return "virtio-net-pci"
}

// diskArgs plugs the disks in that this boot has, in the order in which firmware and kernel find them.
func (b *Backend) diskArgs(c machine.Config, s state, boot machine.Boot) []string {
	cache := "unsafe"
	if b.o.Durable {
		cache = "writeback"
	}
	var a []string
	if c.DiskKind == diskSATA && !c.Bare {
		a = append(a, "-device", "virtio-scsi-pci,id=scsi")
	}
	for at, i := range plugged(len(s.Serials), boot) {
		a = append(a, "-drive", fmt.Sprintf("if=none,id=disk%d,format=raw,file=%s,cache=%s,discard=unmap,detect-zeroes=unmap", i, diskFile(i), cache),
			"-device", diskDevice(c, i, s.Serials[i], at))
	}
	return a
}

// plugged lists the disks of a boot, by number, in their order.
func plugged(disks int, boot machine.Boot) []int {
	var out []int
	for i := range disks {
		if !slices.Contains(boot.MissingDisks, i) {
			out = append(out, i)
		}
	}
	if boot.SwapDisks {
		slices.Reverse(out)
	}
	return out
}

// diskDevice is what the guest sees of disk i, found as the at-th. Unless the machine is a bare one, a SATA disk is played
// by a SCSI one, because Debian's cloud kernel, which the lab boots for its speed, has no AHCI: it is sda all the same,
// with a serial in its VPD and a WWN.
func diskDevice(c machine.Config, i int, serial string, at int) string {
	sata := fmt.Sprintf("drive=disk%d,serial=%s,wwn=0x%s,rotation_rate=1,bootindex=%d", i, serial, wwn(serial), at+1)
	switch {
	case c.DiskKind != diskSATA:
		return fmt.Sprintf("nvme,id=nvme%[1]d,drive=disk%[1]d,serial=%[2]s,bootindex=%[3]d", i, serial, at+1)
	case c.Bare:
		return fmt.Sprintf("ide-hd,bus=ide.%d,model=LAB SSD,%s", at, sata) // q35's own controller
	}
	return "scsi-hd,bus=scsi.0,vendor=ATA,product=LAB SSD," + sata
}

// wwn is a name in IEEE's format 5 that belongs to the serial.
func wwn(serial string) string {
	sum := sha256.Sum256([]byte(serial))
	return "5000c50" + hex.EncodeToString(sum[:])[:9]
}

func rescueArgs(r rescue.Rescue, initrd string) []string {
	return []string{"-kernel", r.Kernel, "-initrd", initrd, "-append", rescueCmdline,
		"-drive", "if=none,id=rescue,format=raw,readonly=on,file.locking=off,file=" + r.Root,
		"-device", "virtio-blk-pci,drive=rescue"}
}
