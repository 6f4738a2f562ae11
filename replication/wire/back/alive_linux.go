package back

import (
	"net"
	"syscall"
)

// alive looks, without waiting, whether the other side has closed a connection on which nothing is expected. Bytes that
// nobody asked for make it useless too.
func alive(c net.Conn) bool {
	t, is := c.(*net.TCPConn)
	if !is {
		return true
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return false
	}
	quiet := false
	err = raw.Control(func(fd uintptr) {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		quiet = err == syscall.EAGAIN || err == syscall.EINTR
	})
	return err == nil && quiet
}
