package netns

import (
	"context"
	"fmt"
	"io"
	"net"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Dial opens a TCP or UDP connection from inside the namespace. The address must be a literal one: there is no
// resolver inside. The context bounds it, as [net.Dialer] does.
func (n *Namespace) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	var conn net.Conn
	err := n.inside(func() (err error) {
		// KeepAlive as usual; one literal address, so the socket is made by this very thread
		conn, err = new(net.Dialer).DialContext(ctx, network, addr)
		return err
	})
	return conn, err
}

// DialContext is Dial under the name that dialers have.
func (n *Namespace) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	return n.Dial(ctx, network, addr)
}

// Listen listens inside the namespace on a literal address.
func (n *Namespace) Listen(ctx context.Context, network, addr string) (net.Listener, error) {
	var l net.Listener
	err := n.inside(func() (err error) {
		l, err = new(net.ListenConfig).Listen(ctx, network, addr)
		return err
	})
	return l, err
}

// ListenPacket opens a packet socket inside the namespace. A non-empty device binds it to that interface.
func (n *Namespace) ListenPacket(ctx context.Context, network, addr, device string) (net.PacketConn, error) {
	var lc net.ListenConfig
	if device != "" {
		lc.Control = func(_, _ string, c syscall.RawConn) error { return bindTo(c, device) }
	}
	var p net.PacketConn
	err := n.inside(func() (err error) {
		p, err = lc.ListenPacket(ctx, network, addr)
		return err
	})
	return p, err
}

func bindTo(c syscall.RawConn, device string) error {
	var inner error
	err := c.Control(func(fd uintptr) {
		if inner = unix.BindToDevice(int(fd), device); inner == nil {
			inner = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1)
		}
	})
	if err != nil {
		return err
	}
	return inner
}

// Start starts a command inside the namespace. Don't set SysProcAttr.Pdeathsig: the thread that starts it ends at once.
func (n *Namespace) Start(cmd *exec.Cmd) error { return n.inside(cmd.Start) }

// Exec runs a command inside the namespace to its end.
func (n *Namespace) Exec(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer, argv ...string) error {
	if len(argv) == 0 {
		return fmt.Errorf("network namespace %s: no command", n.name)
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, stderr
	if err := n.Start(cmd); err != nil {
		return err
	}
	return cmd.Wait()
}

// inside calls f on a thread of the namespace. The thread is never unlocked: the runtime ends it with its goroutine, so
// no other goroutine can come to run in the wrong namespace.
func (n *Namespace) inside(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		done <- n.enterAnd(f)
	}()
	return <-done
}

func (n *Namespace) enterAnd(f func() error) error {
	fd, err := unix.Open(path(n.name), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("network namespace %s: %w", n.name, err)
	}
	err = unix.Setns(fd, unix.CLONE_NEWNET)
	unix.Close(fd)
	if err != nil {
		return fmt.Errorf("enter network namespace %s: %w", n.name, err)
	}
	return f()
}
