package wire

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func pair(d time.Duration) (net.Conn, net.Conn) { return Pipe(d, addr("a"), addr("b")) }

type addr string

func (a addr) Network() string { return "lab" }
func (a addr) String() string  { return string(a) }

func TestDelayIsOneWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pair(100 * time.Millisecond)
		began := time.Now()
		if _, err := a.Write([]byte("ping")); err != nil {
			t.Fatal(err)
		}
		if time.Since(began) != 0 {
			t.Error("writing waited for the peer")
		}
		buf := make([]byte, 10)
		n, err := b.Read(buf)
		if err != nil || string(buf[:n]) != "ping" || time.Since(began) != 100*time.Millisecond {
			t.Errorf("read %q, %v after %s", buf[:n], err, time.Since(began))
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Read(buf); err != io.EOF || time.Since(began) != 200*time.Millisecond {
			t.Errorf("the end came as %v after %s", err, time.Since(began))
		}
	})
}

func TestLargeTransferKeepsEveryByte(t *testing.T) {
	a, b := pair(0)
	want := make([]byte, 3*windowBytes+17)
	rand.Read(want)
	var work sync.WaitGroup
	work.Go(func() {
		if _, err := a.Write(want); err != nil {
			t.Error(err)
		}
		_ = a.Close()
	})
	got, err := io.ReadAll(b)
	work.Wait()
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d of %d bytes, %v", len(got), len(want), err)
	}
}

func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := pair(0)
		if err := a.SetDeadline(time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read: %v", err)
		}
		if _, err := a.Write(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("write: %v", err)
		}
	})
}

func TestCutAndClose(t *testing.T) {
	a, b := pair(0)
	Cut(a)
	if _, err := b.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read after a cut: %v", err)
	}
	c, d := pair(0)
	_ = c.Close()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read on a closed end: %v", err)
	}
	if _, err := d.Write([]byte("x")); err == nil {
		t.Error("writing to a closed peer succeeded")
	}
}
