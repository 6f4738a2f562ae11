package qemu

import (
	"fmt"
	"runtime"
	"strconv"

	"popfleet/lab/machine"
	"popfleet/lab/rescue"
)

const binary = "qemu-system-x86_64"

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
		"-device", "virtio-net-pci,netdev=net,romfile=,mac=" + c.MAC.String()}
	a = append(a, accelArgs(b.accel)...)
	a = append(a, b.diskArgs(s)...)
	if c.Firmware == "uefi" {
		a = append(a, "-drive", "if=pflash,format=raw,unit=0,readonly=on,file="+ovmfCode,
			"-drive", "if=pflash,format=raw,unit=1,file=vars.fd")
	}
	if boot.Rescue {
		a = append(a, rescueArgs(b.rescue, initrdFile)...)
	}
	return a
}

func (b *Backend) diskArgs(s state) []string {
	cache := "unsafe"
	if b.o.Durable {
		cache = "writeback"
	}
	var a []string
	for i, serial := range s.Serials {
		a = append(a, "-drive", fmt.Sprintf("if=none,id=disk%d,format=raw,file=%s,cache=%s,discard=unmap,detect-zeroes=unmap", i, diskFile(i), cache),
			"-device", fmt.Sprintf("nvme,id=nvme%[1]d,drive=disk%[1]d,serial=%[2]s,bootindex=%[3]d", i, serial, i+1))
	}
	return a
}

func rescueArgs(r rescue.Rescue, initrd string) []string {
	return []string{"-kernel", r.Kernel, "-initrd", initrd, "-append", rescueCmdline,
		"-drive", "if=none,id=rescue,format=raw,readonly=on,file.locking=off,file=" + r.Root,
		"-device", "virtio-blk-pci,drive=rescue"}
}
