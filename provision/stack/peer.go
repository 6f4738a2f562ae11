package stack

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
)

// ownUserOnly accepts connections of processes that run as our user, by the kernel's table of TCP sockets. A loopback
// port has no permissions of its own.
type ownUserOnly struct{ net.Listener }

func (l ownUserOnly) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if peerIsUs(conn) {
			return conn, nil
		}
		_ = conn.Close()
	}
}

func peerIsUs(conn net.Conn) bool {
	f, err := os.Open("/proc/net/tcp")
	if err != nil {
		return false
	}
	defer f.Close()
	uid, ok := socketOwner(f, conn.RemoteAddr().(*net.TCPAddr).Port, conn.LocalAddr().(*net.TCPAddr).Port)
	return ok && uid == os.Getuid()
}

// socketOwner finds the user of the socket 127.0.0.1:local → 127.0.0.1:remote in the kernel's table (proc_net_tcp(5):
// sl local_address rem_address st tx:rx tr:tm retrnsmt uid …; addresses in host byte order, hexadecimal).
func socketOwner(table io.Reader, local, remote int) (uid int, ok bool) {
	wantLocal, wantRemote := fmt.Sprintf("0100007F:%04X", local), fmt.Sprintf("0100007F:%04X", remote)
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 8 || f[1] != wantLocal || f[2] != wantRemote {
			continue
		}
		uid, err := strconv.Atoi(f[7])
		return uid, err == nil
	}
	return 0, false
}
