// Package socks is the door into the lab's network: a SOCKS5 server (RFC 1928, CONNECT only, with or without user name
// and password) whose connections go to machines by their addresses. It resolves no names and binds nothing. A machine
// that refuses, or that is not there, gets the reply code that says so.
package socks

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// Dial opens a connection inside the lab; the context bounds it.
type Dial func(ctx context.Context, to netip.AddrPort) (net.Conn, error)

// Server accepts SOCKS5 connections.
type Server struct {
	Dial Dial
	Log  *slog.Logger
}

const (
	handshakeTimeout = 30 * time.Second
	dialTimeout      = 2 * time.Minute
)

// Serve answers on l until ctx ends, then breaks what is open and waits for it.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	var work sync.WaitGroup
	defer work.Wait()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for {
		c, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("socks: accept: %w", err)
		}
		work.Go(func() {
			if err := s.serve(ctx, c); err != nil {
				s.Log.Debug("socks connection", "error", err)
			}
		})
	}
}

func (s *Server) serve(ctx context.Context, c net.Conn) error {
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	if err := c.SetDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return err
	}
	to, code, err := handshake(c)
	if err != nil {
		if code != 0 {
			_, _ = c.Write(answer(code)) // the client may be gone
		}
		return err
	}
	if err := c.SetDeadline(time.Time{}); err != nil {
		return err
	}
	dctx, cancel := context.WithTimeout(ctx, dialTimeout)
	inside, err := s.Dial(dctx, to)
	cancel()
	if err != nil {
		_, _ = c.Write(answer(codeOf(err))) // the client may be gone
		return fmt.Errorf("%s: %w", to, err)
	}
	defer inside.Close()
	if _, err := c.Write(answer(0)); err != nil {
		return err
	}
	Relay(ctx, c, inside)
	return nil
}

// Relay copies both ways until one side fails or both have ended. A broken machine breaks the client's connection.
func Relay(ctx context.Context, client, inside net.Conn) {
	stop := context.AfterFunc(ctx, func() { inside.Close() })
	defer stop()
	var work sync.WaitGroup
	pump := func(to, from net.Conn) {
		_, err := io.Copy(to, from)
		if err != nil {
			if t, ok := client.(*net.TCPConn); ok {
				_ = t.SetLinger(0) // a reset, not an end: only a nicety
			}
			client.Close()
			inside.Close()
			return
		}
		if w, ok := to.(interface{ CloseWrite() error }); ok {
			_ = w.CloseWrite() // it may be gone already
		} else {
			to.Close()
		}
	}
	work.Go(func() { pump(inside, client) })
	work.Go(func() { pump(client, inside) })
	work.Wait()
}

// Reply codes of RFC 1928 §6.
const (
	generalFailure   = 1
	hostUnreachable  = 4
	refused          = 5
	ttlExpired       = 6
	commandUnknown   = 7
	addressUnknown   = 8
	noAcceptableAuth = 0xff
)

func codeOf(err error) byte {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return refused
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return hostUnreachable
	case errors.Is(err, syscall.ETIMEDOUT), errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return ttlExpired
	}
	return generalFailure
}

func answer(code byte) []byte { return []byte{5, code, 0, 1, 0, 0, 0, 0, 0, 0} }

// handshake reads the greeting, any user name, and the request. A code other than 0 is to be answered to the client.
func handshake(c io.ReadWriter) (to netip.AddrPort, code byte, err error) {
	if err := greet(c); err != nil {
		return to, 0, err
	}
	head := make([]byte, 4)
	if _, err := io.ReadFull(c, head); err != nil {
		return to, 0, fmt.Errorf("request: %w", err)
	}
	if head[0] != 5 || head[1] != 1 {
		return to, commandUnknown, fmt.Errorf("command %d: only CONNECT is served", head[1])
	}
	a, err := readAddr(c, head[3])
	if err != nil {
		return to, addressUnknown, err
	}
	port := make([]byte, 2)
	if _, err := io.ReadFull(c, port); err != nil {
		return to, 0, fmt.Errorf("port: %w", err)
	}
	return netip.AddrPortFrom(a, binary.BigEndian.Uint16(port)), 0, nil
}

func greet(c io.ReadWriter) error {
	methods, err := readList(c, 5)
	if err != nil {
		return fmt.Errorf("greeting: %w", err)
	}
	choice := byte(noAcceptableAuth)
	for _, m := range methods {
		if m == 0 || m == 2 && choice != 0 {
			choice = m
		}
	}
	if _, err := c.Write([]byte{5, choice}); err != nil {
		return err
	}
	if choice == noAcceptableAuth {
		return errors.New("no known authentication method offered")
	}
	if choice == 2 {
		return password(c)
	}
	return nil
}

// password takes any user name and password (RFC 1929): the door is on loopback.
func password(c io.ReadWriter) error {
	if _, err := readList(c, 1); err != nil {
		return fmt.Errorf("user name: %w", err)
	}
	n := make([]byte, 1)
	if _, err := io.ReadFull(c, n); err != nil {
		return fmt.Errorf("password: %w", err)
	}
	if _, err := io.ReadFull(c, make([]byte, n[0])); err != nil {
		return fmt.Errorf("password: %w", err)
	}
	_, err := c.Write([]byte{1, 0})
	return err
}

// readList reads a version byte, a count, and as many bytes.
func readList(r io.Reader, version byte) ([]byte, error) {
	head := make([]byte, 2)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, err
	}
	if head[0] != version {
		return nil, fmt.Errorf("version %d, expected %d", head[0], version)
	}
	list := make([]byte, head[1])
	_, err := io.ReadFull(r, list)
	return list, err
}

func readAddr(r io.Reader, kind byte) (netip.Addr, error) {
	size := map[byte]int{1: 4, 4: 16}[kind]
	if kind == 3 {
		n := make([]byte, 1)
		if _, err := io.ReadFull(r, n); err != nil {
			return netip.Addr{}, err
		}
		size = int(n[0])
	}
	if size == 0 {
		return netip.Addr{}, fmt.Errorf("address type %d is unknown", kind)
	}
	raw := make([]byte, size)
	if _, err := io.ReadFull(r, raw); err != nil {
		return netip.Addr{}, err
	}
	if kind == 3 { // a literal address as a name is fine; the lab has no names
		return netip.ParseAddr(string(raw))
	}
	a, _ := netip.AddrFromSlice(raw) // 4 or 16 bytes: always right
	return a.Unmap(), nil
}
