// Package inprocess starts a whole lab inside a test: the Hetzner Cloud API in front of scripted machines, and the
// SOCKS5 door to reach them, all on loopback with ports of their own. It needs no root and ends with the test.
package inprocess

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"popfleet/lab/faults"
	"popfleet/lab/hcloud"
	"popfleet/lab/impostor"
	"popfleet/lab/reach"
	"popfleet/lab/scripted"
	"popfleet/lab/socks"
)

// Options shapes the lab; the zero value is a lab in which everything is quick.
type Options struct {
	Timing     scripted.Timing
	ActionTime func(command string) time.Duration // default: every action takes 2 ms
	StatePath  string                             // default: in memory
	// RatePerHour is the API's budget; default: far more than a test uses.
	RatePerHour   int
	RescueExpires time.Duration
	// Wrap puts a middleware around the API, such as speccheck's.
	Wrap func(http.Handler) http.Handler
	Log  *slog.Logger
}

// Lab is a running lab.
type Lab struct {
	URL      string // HCLOUD_ENDPOINT
	Token    string // HCLOUD_TOKEN
	SocksURL string // FLEET_PROXY
	Cloud    *hcloud.Cloud
	Machines *scripted.Backend
	Faults   *faults.Set
	Impostor *impostor.Impostor // answers wherever an impostor fault strikes
	Net      *reach.Net
}

// Start runs a lab until the test ends.
func Start(t testing.TB, o Options) *Lab {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l, stop, err := start(ctx, o)
	if err != nil {
		cancel()
		t.Fatalf("start lab: %v", err)
	}
	t.Cleanup(func() { cancel(); stop() })
	return l
}

const token = "lab-token"

func start(ctx context.Context, o Options) (*Lab, func(), error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.ActionTime == nil {
		o.ActionTime = hcloud.Every(2 * time.Millisecond)
	}
	if o.RatePerHour == 0 {
		o.RatePerHour = 1 << 30
	}
	set := &faults.Set{}
	backend := scripted.New(ctx, scripted.Options{Timing: o.Timing, Faults: set, Log: o.Log})
	cloud, err := hcloud.New(ctx, hcloud.Options{
		Token: token, Backend: backend, Faults: set, StatePath: o.StatePath, ActionTime: o.ActionTime,
		RatePerHour: o.RatePerHour, RescueExpires: o.RescueExpires, Log: o.Log,
	})
	if err != nil {
		return nil, nil, err
	}
	imp, err := impostor.New()
	if err != nil {
		return nil, nil, err
	}
	outside := reach.New(reach.Servers(cloud.Servers), set, imp)
	door, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		s := &socks.Server{Dial: outside.DialAddr, Log: o.Log}
		if err := s.Serve(ctx, door); err != nil {
			o.Log.Error("lab socks server", "error", err)
		}
	}()
	h := cloud.Handler()
	if o.Wrap != nil {
		h = o.Wrap(h)
	}
	api := httptest.NewServer(h)
	stop := func() {
		api.CloseClientConnections()
		api.Close()
		outside.Close()
		backend.Close()
		cloud.Close()
		<-served
	}
	return &Lab{
		URL: api.URL + "/v1", Token: token, SocksURL: "socks5://" + door.Addr().String(),
		Cloud: cloud, Machines: backend, Faults: set, Impostor: imp, Net: outside,
	}, stop, nil
}

// Machine finds the newest machine with this server name, living ones first.
func (l *Lab) Machine(t testing.TB, name string) *scripted.Machine {
	t.Helper()
	m, ok := l.Machines.Labelled(name)
	if !ok {
		t.Fatalf("lab: no machine was ever made for server %s", name)
	}
	return m
}

// Env is what a fleet process needs to work in this lab.
func (l *Lab) Env() []string {
	return []string{"HCLOUD_ENDPOINT=" + l.URL, "HCLOUD_TOKEN=" + l.Token, "FLEET_PROXY=" + l.SocksURL}
}
