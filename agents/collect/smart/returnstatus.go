package smart

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sgIO is struct sg_io_hdr of scsi/sg.h on 64-bit machines.
type sgIO struct {
	interfaceID                         int32
	direction                           int32
	cmdLen, maxSenseLen                 uint8
	iovecs                              uint16
	dataLen                             uint32
	data, cmd, sense                    unsafe.Pointer
	timeoutMs, flags                    uint32
	packID                              int32
	_                                   [4]byte
	user                                unsafe.Pointer
	status, masked, message, senseWrote uint8
	hostStatus, driverStatus            uint16
	residual                            int32
	durationMs, info                    uint32
}

const (
	ioctlSGIO    = 0x2285
	sgDirNone    = -1
	senseLen     = 32
	statusPassMH = 0xc24f // LBA high and mid as the command was sent with: passed
	statusFailMH = 0x2cf4 // exchanged by the drive: a threshold is exceeded
)

// returnStatus asks for the drive's own verdict by SMART RETURN STATUS (ATA8-ACS, B0h/DAh) through ATA PASS-THROUGH(16)
// with CK_COND, so that the registers come back as sense data. nil: the drive gave none.
func returnStatus(path string) *bool {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	cmd := &[16]byte{0: 0x85, 1: 3 << 1 /* non-data */, 2: 1 << 5 /* CK_COND */, 4: 0xda, 10: 0x4f, 12: 0xc2, 14: 0xb0}
	sense := new([senseLen]byte)
	hdr := &sgIO{interfaceID: 'S', direction: sgDirNone, cmdLen: uint8(len(cmd)), maxSenseLen: senseLen,
		cmd: unsafe.Pointer(cmd), sense: unsafe.Pointer(sense), timeoutMs: 10_000}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), ioctlSGIO, uintptr(unsafe.Pointer(hdr)))
	runtime.KeepAlive(hdr)
	if errno != 0 {
		return nil
	}
	return parseStatus(sense[:min(int(hdr.senseWrote), senseLen)])
}

// parseStatus finds the ATA Status Return descriptor (SAT, code 09h) in descriptor-format sense data.
func parseStatus(sense []byte) *bool {
	if len(sense) < 8 || sense[0]&0x7f != 0x72 {
		return nil
	}
	for rest := sense[8:]; len(rest) >= 2; {
		size := 2 + int(rest[1])
		if size > len(rest) {
			return nil
		}
		if rest[0] == 0x09 && size >= 14 {
			return verdict(uint16(rest[11])<<8 | uint16(rest[9]))
		}
		rest = rest[size:]
	}
	return nil
}

func verdict(highMid uint16) *bool {
	passed := highMid == statusPassMH
	if !passed && highMid != statusFailMH {
		return nil
	}
	return &passed
}
