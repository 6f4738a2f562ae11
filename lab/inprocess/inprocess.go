// Package inprocess starts a whole lab inside a test: the APIs of Hetzner Cloud, Hetzner Robot and OVH in front of
// scripted machines, and the SOCKS5 door to reach them, all on loopback with ports of their own. It needs no root and
// ends with the test.
package inprocess

import (
	"cmp"
	"context"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"popfleet/lab/faults"
	"popfleet/lab/hcloud"
	"popfleet/lab/impostor"
	"popfleet/lab/machine"
	"popfleet/lab/ovh"
	"popfleet/lab/rack"
	"popfleet/lab/reach"
	"popfleet/lab/robot"
	"popfleet/lab/scripted"
)

// Options shapes the lab; the zero value is a lab of Hetzner Cloud alone in which everything is quick.
type Options struct {
	Timing     scripted.Timing
	ActionTime func(command string) time.Duration // default: every action takes 2 ms
	StatePath  string                             // default: in memory; the other providers' is named after it
	// RatePerHour is the API's budget; default: far more than a test uses.
	RatePerHour   int
	RescueExpires time.Duration
	// Wrap puts a middleware around an API, such as speccheck's; WrapRobot and WrapOVH around the others.
	Wrap, WrapRobot, WrapOVH func(http.Handler) http.Handler

	Robot, OVH int           // dedicated machines; with none the provider is not there
	Dedicated  rack.Hardware // what they are built of; DiskGB is 512 unless it says
	// RobotDelay and OVHDelay are how long things take there; default: nothing, and 2 ms.
	RobotDelay, OVHDelay func(what string) time.Duration
	// RobotRates are request limits per hour by class; default: far more than a test uses.
	RobotRates map[string]int
	Log        *slog.Logger
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

	RobotURL string // HROBOT_ENDPOINT
	Robot    *robot.Robot
	OVHURL   string // OVH_ENDPOINT
	OVH      *ovh.OVH
}

// Credentials of the dedicated machines' accounts.
const (
	RobotUser     = "lab-robot"
	RobotPassword = "lab-robot-password"

	OVHApplicationKey    = "lab-ovh"
	OVHApplicationSecret = "lab-ovh-secret"
	OVHConsumerKey       = "lab-ovh-consumer"
)

const token = "lab-token"

// Start runs a lab until the test ends.
func Start(t testing.TB, o Options) *Lab {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l, stop, err := start(ctx, o.filled())
	t.Cleanup(func() { cancel(); stop() })
	if err != nil {
		t.Fatalf("start lab: %v", err)
	}
	return l
}

func (o Options) filled() Options {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.ActionTime == nil {
		o.ActionTime = hcloud.Every(2 * time.Millisecond)
	}
	if o.OVHDelay == nil {
		o.OVHDelay = ovh.Every(2 * time.Millisecond)
	}
	o.RatePerHour = cmp.Or(o.RatePerHour, plenty)
	o.Dedicated.DiskGB = cmp.Or(o.Dedicated.DiskGB, 512)
	o.Dedicated.MemoryMB = cmp.Or(o.Dedicated.MemoryMB, 64<<10)
	o.Dedicated.CPUs = cmp.Or(o.Dedicated.CPUs, 8)
	if o.RobotRates == nil {
		o.RobotRates = robot.Limits()
		for class := range o.RobotRates {
			o.RobotRates[class] = plenty
		}
	}
	return o
}

const plenty = 1 << 30

// Machine finds the machine of the server with this name or id, else the newest machine that was made under this name:
// a deleted server's, whose ledger is still of interest.
func (l *Lab) Machine(t testing.TB, name string) *scripted.Machine {
	t.Helper()
	for _, i := range l.Servers() {
		if m, ok := i.Machine.(*scripted.Machine); ok && (i.Name == name || i.ID == name) {
			return m
		}
	}
	m, ok := l.Machines.Labelled(name)
	if !ok {
		t.Fatalf("lab: no machine was ever made for server %s", name)
	}
	return m
}

// Servers are the machines of all providers.
func (l *Lab) Servers() []machine.Info {
	out := l.Cloud.Servers()
	if l.Robot != nil {
		out = append(out, l.Robot.Servers()...)
	}
	if l.OVH != nil {
		out = append(out, l.OVH.Servers()...)
	}
	return out
}

// Env is what a fleet process needs to work in this lab.
func (l *Lab) Env() []string {
	out := []string{"HCLOUD_ENDPOINT=" + l.URL, "HCLOUD_TOKEN=" + l.Token, "FLEET_PROXY=" + l.SocksURL}
	if l.Robot != nil {
		out = append(out, "HROBOT_ENDPOINT="+l.RobotURL, "HROBOT_USER="+RobotUser, "HROBOT_PASSWORD="+RobotPassword)
	}
	if l.OVH != nil {
		out = append(out, "OVH_ENDPOINT="+l.OVHURL, "OVH_APPLICATION_KEY="+OVHApplicationKey,
			"OVH_APPLICATION_SECRET="+OVHApplicationSecret, "OVH_CONSUMER_KEY="+OVHConsumerKey)
	}
	return out
}
