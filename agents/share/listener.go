package share

import (
	"net"
	"os"
	"sync"
	"syscall"
)

// bounded turns away connections beyond a number: the port is open to strangers.
type bounded struct {
	net.Listener
	room chan struct{}
}

func newBounded(l net.Listener, most int) *bounded {
	return &bounded{Listener: l, room: make(chan struct{}, most)}
}

func (b *bounded) Accept() (net.Conn, error) {
	for {
		c, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case b.room <- struct{}{}:
			return &roomed{Conn: c, leave: sync.OnceFunc(func() { <-b.room })}, nil
		default:
			_ = c.Close() // it is turned away
		}
	}
}

type roomed struct {
	net.Conn
	leave func()
}

func (r *roomed) Close() error {
	r.leave()
	return r.Conn.Close()
}

// unlinked says that the file has no name any more: whoever wrote it gave it up.
func unlinked(f *os.File) bool {
	info, err := f.Stat()
	if err != nil {
		return true
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && st.Nlink == 0
}
