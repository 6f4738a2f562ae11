package hetznerrobot

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"popfleet/provision/provider"
)

func TestRestart(t *testing.T) {
	down := fault{cut: &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}}
	for _, c := range []struct {
		name    string
		set     func(w world)
		r       provider.Restart
		presses string
		kind    error
		text    string
	}{
		{name: "gentle", presses: "sw"},
		{name: "harder", r: provider.Restart{Try: 1}, presses: "hw"},
		{name: "the hardest again", r: provider.Restart{Try: 3}, presses: "hw"},
		{name: "enough", r: provider.Restart{Try: 4}, kind: provider.ErrCantRestart, text: "4 restarts had no effect"},
		{name: "only hw", set: func(w world) { w.boxes[321].types = []string{"hw"} }, presses: "hw"},
		{name: "only a person", set: func(w world) { w.boxes[321].types = []string{"man"} }, kind: provider.ErrCantRestart},
		{name: "nothing", set: func(w world) { w.boxes[321].types = nil }, kind: provider.ErrCantRestart},
		{name: "a technician is there", set: func(w world) { w.boxes[321].manual = true }, kind: provider.ErrCantRestart, presses: "sw", text: "technician"},
		{name: "off", set: func(w world) { w.boxes[321].power = "stopped" }, presses: "hw"},
		{name: "reply lost", set: func(w world) { w.once("POST /reset", fault{cut: io.EOF, after: true}) }, presses: "sw"},
		{name: "500 without a word", set: func(w world) { w.once("POST /reset", fault{status: 500, after: true}) }, presses: "sw"},
		{name: "refused for certain, then works", set: func(w world) { w.once("POST /reset", fault{status: 500, code: "RESET_FAILED"}) }, presses: "sw sw"},
		{name: "was never sent, then works", set: func(w world) { w.once("POST /reset", down) }, presses: "sw sw"},
		{name: "robot is down", set: func(w world) { w.times(-1, "POST /reset", down) }, kind: provider.ErrBudget},
		{name: "sw is not for it", set: func(w world) { w.once("POST /reset", fault{status: 400, code: "INVALID_INPUT"}) }, presses: "sw hw"},
		{name: "no such server", set: func(w world) { delete(w.boxes, 321) }, kind: provider.ErrNotFound},
		{name: "asked", r: provider.Restart{Ask: func(context.Context) error { return nil }}},
		{name: "asked in vain", r: provider.Restart{Ask: func(context.Context) error { return errors.New("cut") }}, presses: "sw"},
		{name: "asked before", r: provider.Restart{Ask: func(context.Context) error { return nil }, Try: 1}, presses: "sw"},
		{name: "asked, and no reset", set: func(w world) { w.boxes[321].types = nil }, r: provider.Restart{Ask: func(context.Context) error { return nil }}},
	} {
		for name, act := range map[string]func(w world) error{
			"reset":     func(w world) error { return w.d.Reset(w.ctx, "321", c.r) },
			"boot disk": func(w world) error { return w.d.BootDisk(w.ctx, "321", c.r) },
		} {
			t.Run(c.name+"/"+name, func(t *testing.T) {
				in(t, func(t *testing.T, w world) {
					if c.set != nil {
						c.set(w)
					}
					err := act(w)
					switch {
					case c.kind != nil:
						wantKind(t, err, c.kind)
						if !strings.Contains(err.Error(), c.text) {
							t.Errorf("error %v does not say %q", err, c.text)
						}
					case err != nil:
						t.Fatal(err)
					}
					if got := strings.Join(w.pressed(), " "); c.kind != provider.ErrBudget && got != c.presses {
						t.Errorf("pressed %q, want %q", got, c.presses)
					}
				})
			})
		}
	}
}

func TestBootDiskTakesRescueBack(t *testing.T) {
	in(t, func(t *testing.T, w world) {
		b := w.boxes[321]
		b.armed, b.allowed = "linux", []string{mustMD5(fleetKey)}
		w.once("DELETE /boot", fault{cut: io.EOF, after: true})
		if err := w.d.BootDisk(w.ctx, "321", provider.Restart{}); err != nil {
			t.Fatal(err)
		}
		if b.armed != "" || b.next != nil || b.presses != 1 {
			t.Errorf("box %+v", b)
		}
		b.noBoot = true
		if err := w.d.BootDisk(w.ctx, "321", provider.Restart{}); err != nil {
			t.Errorf("without a boot configuration: %v", err)
		}
	})
}

func TestResetLeavesRescueArmed(t *testing.T) {
	in(t, func(t *testing.T, w world) {
		b := w.boxes[321]
		b.armed = "linux"
		if err := w.d.Reset(w.ctx, "321", provider.Restart{}); err != nil {
			t.Fatal(err)
		}
		if w.count("DELETE") != 0 || b.next == nil {
			t.Error("rescue was taken back")
		}
	})
}

func TestSetReverse(t *testing.T) {
	ours, theirs := netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("203.0.113.9")
	v6 := netip.MustParseAddr("2001:db8:141::2")
	const standard = "static.7.2.0.192.clients.your-server.de"
	for _, c := range []struct {
		name   string
		addr   netip.Addr
		before string
		to     string
		want   string // "" none
		calls  string // of writing
		fault  func(w world)
		kind   error
	}{
		{name: "new", addr: ours, to: "a.example", want: "a.example", calls: "PUT"},
		{name: "new v6", addr: v6, to: "a.example", want: "a.example", calls: "PUT"},
		{name: "changed", addr: ours, before: "b.example", to: "a.example", want: "a.example", calls: "POST"},
		{name: "instead of the default", addr: ours, before: standard, to: "a.example", want: "a.example", calls: "POST"},
		{name: "as it is", addr: ours, before: "A.example", to: "a.example.", want: "A.example"},
		{name: "back", addr: ours, before: "b.example", to: "", want: "", calls: "DELETE"},
		{name: "back already", addr: ours, to: ""},
		{name: "default already", addr: ours, before: standard, to: "", want: standard},
		{name: "reply of the create lost", addr: ours, to: "a.example", want: "a.example", calls: "PUT PUT POST",
			fault: func(w world) { w.once("PUT", fault{cut: io.EOF, after: true}) }},
		{name: "reply of the delete lost", addr: ours, before: "b.example", to: "", calls: "DELETE DELETE",
			fault: func(w world) { w.once("DELETE", fault{cut: io.EOF, after: true}) }},
		{name: "not ours", addr: theirs, to: "a.example", kind: provider.ErrNotFound},
		{name: "not ours, back", addr: theirs, to: "", kind: provider.ErrNotFound},
	} {
		t.Run(c.name, func(t *testing.T) {
			in(t, func(t *testing.T, w world) {
				if c.before != "" {
					w.rdns[c.addr.String()] = c.before
				}
				if c.fault != nil {
					c.fault(w)
				}
				err := w.d.SetReverse(w.ctx, "321", c.addr, c.to)
				if c.kind != nil {
					wantKind(t, err, c.kind)
					return
				}
				if err != nil || w.rdns[c.addr.String()] != c.want {
					t.Fatalf("%v, %q", err, w.rdns[c.addr.String()])
				}
				var wrote []string
				for _, call := range w.calls {
					if method, _, _ := strings.Cut(call, " "); method != "GET" {
						wrote = append(wrote, method)
					}
				}
				if got := strings.Join(wrote, " "); got != c.calls {
					t.Errorf("calls %q, want %q", got, c.calls)
				}
				name, err := w.d.Reverse(w.ctx, "321", c.addr)
				if want := strings.TrimSuffix(c.to, "."); err != nil || !strings.EqualFold(name, want) {
					t.Errorf("reads %q, %v", name, err)
				}
			})
		})
	}
}

func TestActivity(t *testing.T) {
	since := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	ours, other := []string{mustMD5(fleetKey)}, []string{mustMD5(otherKey)}
	for _, c := range []struct {
		name string
		set  func(b *box)
		want string // what, with ! where risky
	}{
		{name: "nothing"},
		{name: "rescue before", set: func(b *box) { b.last = &started{at: since.Add(-time.Hour), os: "linux"} }},
		{name: "rescue after", set: func(b *box) { b.last = &started{at: since.Add(time.Hour), os: "linux"} }, want: "rescue started at 2026-11-22 14:00:00!"},
		{name: "in that second", set: func(b *box) { b.last = &started{at: since, os: "linux"} }, want: "rescue started at 2026-11-22 13:00:00!"},
		{name: "vkvm after", set: func(b *box) { b.last = &started{at: since.Add(time.Hour), os: "vkvm"} }, want: "vkvm started at 2026-11-22 14:00:00!"},
		{name: "armed for us", set: func(b *box) { b.armed, b.allowed = "linux", ours }, want: "rescue active"},
		{name: "armed for another", set: func(b *box) { b.armed, b.allowed = "linux", other }, want: "rescue active!"},
		{name: "armed for us and another", set: func(b *box) { b.armed, b.allowed = "linux", append(ours[:1:1], other...) }, want: "rescue active!"},
		{name: "armed with a password", set: func(b *box) { b.armed = "linux" }, want: "rescue active!"},
		{name: "vkvm armed", set: func(b *box) { b.armed, b.allowed = "vkvm", ours }, want: "vkvm active!"},
		{name: "installation armed", set: func(b *box) { b.install = "linux" }, want: "linux installation active!"},
		{name: "vnc armed", set: func(b *box) { b.install = "vnc" }, want: "vnc installation active!"},
		{name: "both", set: func(b *box) { b.last, b.armed = &started{at: since.Add(time.Hour), os: "linux"}, "linux" },
			want: "rescue started at 2026-11-22 14:00:00! rescue active!"},
	} {
		t.Run(c.name, func(t *testing.T) {
			in(t, func(t *testing.T, w world) {
				if c.set != nil {
					c.set(w.boxes[321])
				}
				list, err := w.d.Activity(w.ctx, "321", since)
				if err != nil {
					t.Fatal(err)
				}
				var got []string
				for _, a := range list {
					text := a.What
					if a.Risky {
						text += "!"
					}
					got = append(got, text)
				}
				if text := strings.Join(got, " "); text != c.want {
					t.Errorf("%q, want %q", text, c.want)
				}
			})
		})
	}
}

func TestActivityTellsOfAManualReset(t *testing.T) {
	in(t, func(t *testing.T, w world) {
		since := time.Now()
		w.boxes[321].manual = true
		wantKind(t, w.d.Reset(w.ctx, "321", provider.Restart{}), provider.ErrCantRestart)
		list, err := w.d.Activity(w.ctx, "321", since)
		if err != nil || len(list) != 1 || !list[0].Risky || !strings.Contains(list[0].What, "manual reset") {
			t.Fatalf("%+v, %v", list, err)
		}
		w.boxes[321].manual = false
		if err := w.d.Reset(w.ctx, "321", provider.Restart{}); err != nil {
			t.Fatal(err)
		}
		if list, err = w.d.Activity(w.ctx, "321", since); err != nil || len(list) != 0 {
			t.Fatalf("%+v, %v", list, err)
		}
	})
}

func TestActivityOfAnUnknownServerIsAnError(t *testing.T) {
	in(t, func(t *testing.T, w world) {
		_, err := w.d.Activity(w.ctx, "400", time.Now())
		wantKind(t, err, provider.ErrNotFound)
	})
}
