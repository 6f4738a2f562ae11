// Package control is the local face every service of ours shows: GET /health, GET /status, POST /drain and POST
// /undrain on a unix socket, and the client for it. It knows nothing of what a service does.
package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"
)

// States a service reports.
const (
	Serving  = "serving"
	Draining = "draining"
	Drained  = "drained"
)

// Status is what GET /status answers. Detail is the service's own: what it serves, its peers, its lag.
type Status struct {
	Service string `json:"service"`
	Version string `json:"version"`
	State   string `json:"state"`
	Detail  any    `json:"detail,omitempty"`
}

// Service is what a daemon implements. Methods may be called from several goroutines at once and must not block for
// longer than a look at memory.
type Service interface {
	// Health returns nil when the service can do its job now.
	Health() error
	Status() Status
	// Drain begins leaving: no new work, what runs is finished. Undrain takes it back.
	Drain()
	Undrain()
}

// Health is what GET /health answers, with 200 or 503.
type Health struct {
	OK     bool   `json:"ok"`
	Reason string `json:"reason,omitempty"`
}

// Serve answers on the unix socket at path until ctx ends, and removes the socket. A stale socket file is replaced;
// one that somebody answers on is an error.
func Serve(ctx context.Context, path string, s Service) error {
	l, err := listen(path)
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: Handler(s), ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: time.Minute}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("control socket %s: %w", path, err)
	}
	return nil
}

func listen(path string) (net.Listener, error) {
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return nil, fmt.Errorf("control socket %s: another process answers on it", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("control socket %s: %w", path, err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("control socket %s: %w", path, err)
	}
	// The directory decides who reaches it; the group (fleet) must be able to connect.
	if err := os.Chmod(path, 0o660); err != nil {
		l.Close()
		return nil, fmt.Errorf("control socket %s: %w", path, err)
	}
	return l, nil
}

// Handler is the HTTP face of s.
func Handler(s Service) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		if err := s.Health(); err != nil {
			reply(w, http.StatusServiceUnavailable, Health{Reason: err.Error()})
			return
		}
		reply(w, http.StatusOK, Health{OK: true})
	})
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { reply(w, http.StatusOK, s.Status()) })
	mux.HandleFunc("POST /drain", func(w http.ResponseWriter, _ *http.Request) { s.Drain(); reply(w, http.StatusAccepted, s.Status()) })
	mux.HandleFunc("POST /undrain", func(w http.ResponseWriter, _ *http.Request) { s.Undrain(); reply(w, http.StatusAccepted, s.Status()) })
	return mux
}

func reply(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // the client went away: nobody is left to tell
}

// Client speaks to one service's socket.
type Client struct{ http *http.Client }

// Dial returns a client for the socket at path; it connects on the first call.
func Dial(path string) *Client {
	d := &net.Dialer{Timeout: 2 * time.Second}
	return &Client{&http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return d.DialContext(ctx, "unix", path)
		},
	}}}
}

// Health asks for the service's health; a service that says no is not an error of the call.
func (c *Client) Health(ctx context.Context) (Health, error) {
	var h Health
	err := c.do(ctx, http.MethodGet, "/health", &h)
	return h, err
}

// Status asks for the service's status; Detail is decoded as generic JSON.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	err := c.do(ctx, http.MethodGet, "/status", &s)
	return s, err
}

// Drain asks the service to leave and returns the state it is in.
func (c *Client) Drain(ctx context.Context) (Status, error) {
	var s Status
	err := c.do(ctx, http.MethodPost, "/drain", &s)
	return s, err
}

// Undrain asks the service to come back.
func (c *Client) Undrain(ctx context.Context) (Status, error) {
	var s Status
	err := c.do(ctx, http.MethodPost, "/undrain", &s)
	return s, err
}

const maxReplyBytes = 4 << 20

func (c *Client) do(ctx context.Context, method, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://control"+path, nil)
	if err != nil {
		return err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if err := json.NewDecoder(io.LimitReader(res.Body, maxReplyBytes)).Decode(into); err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	return nil
}
