package hetznerrobot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"popfleet/inventory"
	"popfleet/provision/provider"
)

const (
	fleetKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJjx2vSXzPz5vqgM5q4WmpCYmN0zkqQaO9M8wEyXmqGf fleet"
	otherKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl other"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, goleak.Cleanup(report)) }

func report(code int) {
	fmt.Printf("%d requests held against the description\n", exchanges.Load())
	os.Exit(code)
}

// world is a fake and a driver that talks to it.
type world struct {
	*fake
	d    *Driver
	ctx  context.Context
	said *[]string
}

func (w world) heard(text string) bool {
	return strings.Contains(strings.Join(*w.said, "\n"), text)
}

// in runs f on a clock of its own, with server 321 as node fsn-1.
func in(t *testing.T, f func(t *testing.T, w world)) {
	t.Helper()
	inWith(t, func(*Options) {}, f)
}

func inWith(t *testing.T, set func(*Options), f func(t *testing.T, w world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		fake := newFake(t)
		fake.add(321)
		o := Options{User: inventory.SecretText("ws-user"), Password: inventory.SecretText("secret-password"), Transport: fake,
			Servers: map[string]string{"fsn-1": "321"}, Keys: []string{fleetKey}}
		set(&o)
		d, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		var mu sync.Mutex
		var said []string
		ctx := provider.WithWaiting(t.Context(), func(text string) {
			mu.Lock()
			defer mu.Unlock()
			said = append(said, text)
		})
		f(t, world{fake, d, ctx, &said})
		for _, line := range said {
			if strings.Contains(line, "secret-password") {
				t.Errorf("the password was said: %s", line)
			}
		}
	})
}

func wantKind(t *testing.T, err, kind error) {
	t.Helper()
	var ours *provider.Error
	if !errors.Is(err, kind) || !errors.As(err, &ours) {
		t.Fatalf("error %v, want a provider.Error of kind %v", err, kind)
	}
	if strings.Contains(err.Error(), "secret-password") {
		t.Errorf("the password is in an error: %v", err)
	}
}

func TestNewRefusesWhatCannotWork(t *testing.T) {
	good := Options{User: inventory.SecretText("u"), Password: inventory.SecretText("p")}
	for name, set := range map[string]func(*Options){
		"no user":     func(o *Options) { o.User = nil },
		"no password": func(o *Options) { o.Password = inventory.SecretText("") },
		"no scheme":   func(o *Options) { o.Endpoint = "robot" },
		"login in it": func(o *Options) { o.Endpoint = "https://u:p@robot" },
		"no number":   func(o *Options) { o.Servers = map[string]string{"a": "ns123.eu"} },
		"no key":      func(o *Options) { o.Keys = []string{"ssh-ed25519"} },
	} {
		o := good
		set(&o)
		if _, err := New(o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := New(good); err != nil {
		t.Error(err)
	}
}

func TestServersTakesOneCallForAll(t *testing.T) {
	in(t, func(t *testing.T, w world) {
		w.add(322)
		w.add(999)
		w.d.opts.Servers["nbg-1"], w.d.opts.Servers["gone-1"] = "322", "400"
		got, err := w.d.Servers(w.ctx, "demo")
		if err != nil || len(got) != 2 || got["fsn-1"].ID != "321" || got["nbg-1"].Node != "nbg-1" {
			t.Fatalf("servers %+v, %v", got, err)
		}
		s := got["fsn-1"]
		if s.Addr4.String() != "192.0.2.71" || s.Addr6.String() != "2001:db8:141::2" || s.Type != "EX44" || s.Location != "FSN1-DC7" || s.Trouble != "" {
			t.Errorf("server %+v", s)
		}
		if n := w.count(""); n != 1 {
			t.Errorf("%d calls", n)
		}
	})
}

func TestAnAccountWithoutServersHasNone(t *testing.T) {
	in(t, func(t *testing.T, w world) {
		delete(w.boxes, 321)
		if got, err := w.d.Servers(w.ctx, "demo"); err != nil || len(got) != 0 {
			t.Fatalf("servers %v, %v", got, err)
		}
		if _, ok, err := w.d.Describe(w.ctx, "demo", "fsn-1"); ok || err != nil {
			t.Fatalf("describe: %t, %v", ok, err)
		}
	})
}

func TestManyNodesShareOneList(t *testing.T) {
	in(t, func(t *testing.T, w world) {
		const nodes = 50
		for i := range nodes {
			w.add(1000 + i)
			w.d.opts.Servers[fmt.Sprintf("n-%d", i)] = fmt.Sprint(1000 + i)
		}
		var wg sync.WaitGroup
		for i := range nodes {
			wg.Go(func() {
				if _, ok, err := w.d.Describe(w.ctx, "demo", fmt.Sprintf("n-%d", i)); !ok || err != nil {
					t.Errorf("describe: %t, %v", ok, err)
				}
			})
		}
		wg.Wait()
		if n := w.count("GET /server"); n != 1 {
			t.Errorf("%d reads of the list for %d nodes", n, nodes)
		}
	})
}

func TestDescribeSaysOffAndTrouble(t *testing.T) {
	in(t, func(t *testing.T, w world) {
		w.boxes[321].power, w.boxes[321].cancelled = "stopped", true
		s, ok, err := w.d.Describe(w.ctx, "demo", "fsn-1")
		if err != nil || !ok || !s.Off || !strings.Contains(s.Trouble, "cancelled, paid until 2026-12-31") {
			t.Fatalf("%+v %t %v", s, ok, err)
		}
		if _, ok, err := w.d.Describe(w.ctx, "demo", "nbg-9"); ok || err != nil {
			t.Errorf("a node that the fleet file does not place: %t, %v", ok, err)
		}
	})
}

func TestEnsure(t *testing.T) {
	for _, c := range []struct {
		name, server string
		set          func(*box)
		kind         error // nil with ok false: any error
		ok           bool
	}{
		{name: "ready", server: "321", ok: true},
		{name: "not named", server: "", kind: provider.ErrNotAdopted},
		{name: "unknown", server: "400", kind: provider.ErrNotFound},
		{name: "no number", server: "fsn"},
		{name: "leading zero", server: "0321"},
		{name: "in process", server: "321", set: func(b *box) { b.status = "in process" }},
		{name: "cancelled", server: "321", set: func(b *box) { b.cancelled = true }, kind: provider.ErrExpired},
	} {
		t.Run(c.name, func(t *testing.T) {
			in(t, func(t *testing.T, w world) {
				if c.set != nil {
					c.set(w.boxes[321])
				}
				s, err := w.d.Ensure(w.ctx, provider.Wanted{Fleet: "demo", Node: "fsn-1", Server: c.server})
				switch {
				case c.ok && (err != nil || s.Name != "demo-fsn-1" || s.ID != "321"):
					t.Fatalf("%+v, %v", s, err)
				case c.kind != nil:
					wantKind(t, err, c.kind)
				case !c.ok && err == nil:
					t.Fatal("accepted")
				}
				if !c.ok && w.boxes[321].name != "old" {
					t.Error("renamed all the same")
				}
			})
		})
	}
}

func TestEnsureRenamesOnce(t *testing.T) {
	in(t, func(t *testing.T, w world) {
		w.once("POST /server/321", fault{cut: io.ErrUnexpectedEOF, after: true})
		for range 3 {
			if _, err := w.d.Ensure(w.ctx, provider.Wanted{Fleet: "demo", Node: "fsn-1", Server: "321"}); err != nil {
				t.Fatal(err)
			}
		}
		if n := w.count("POST /server/321"); n != 2 || w.boxes[321].name != "demo-fsn-1" {
			t.Errorf("named %d times, %q", n, w.boxes[321].name)
		}
	})
}

func TestReleaseSaysWhatIsLeftToDo(t *testing.T) {
	in(t, func(t *testing.T, w world) {
		steps, err := w.d.Release(w.ctx, "321")
		text := strings.Join(steps, "\n")
		if err != nil || !strings.Contains(text, "goes on costing") || !strings.Contains(text, "321") || !strings.Contains(text, "https://robot.hetzner.com") {
			t.Fatalf("%q, %v", steps, err)
		}
		time.Sleep(time.Second) // on the test's own clock: what was read at this very instant counts as new
		w.boxes[321].cancelled = true
		if steps, err = w.d.Release(w.ctx, "321"); err != nil || len(steps) != 1 || !strings.Contains(steps[0], "paid until") {
			t.Fatalf("%q, %v", steps, err)
		}
		if steps, err = w.d.Release(w.ctx, "400"); err != nil || len(steps) != 1 {
			t.Fatalf("%q, %v", steps, err)
		}
		if n := w.count("GET /server"); n != w.count("") {
			t.Error("something else than reading was done")
		}
	})
}

func TestReadsAreRetriedInsideTheBudget(t *testing.T) {
	for name, bad := range map[string]fault{
		"500":         {status: 500, code: "INTERNAL_ERROR"},
		"502":         {status: 502},
		"503":         {status: 503},
		"429":         {status: 429},
		"cut":         {cut: io.ErrUnexpectedEOF},
		"reset":       {cut: syscall.ECONNRESET},
		"refused":     {cut: &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}},
		"unreachable": {cut: &net.OpError{Op: "dial", Err: errors.New("no route")}},
		"no answer":   {hang: true},
		"no json":     {body: "<html>"},
		"other shape": {body: `{"server":[]}`},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T, w world) {
				w.times(2, "GET /server", bad)
				if got, err := w.d.Servers(w.ctx, "demo"); err != nil || len(got) != 1 {
					t.Fatalf("%v, %v", got, err)
				}
				if n := w.count("GET /server"); n != 3 || len(*w.said) == 0 {
					t.Errorf("%d calls, said %q", n, *w.said)
				}
			})
		})
		t.Run(name+" for ever", func(t *testing.T) {
			if name == "429" {
				t.Skip("a limit is waited out: see the tests of limits")
			}
			in(t, func(t *testing.T, w world) {
				w.times(-1, "GET /server", bad)
				start := time.Now()
				_, err := w.d.Servers(w.ctx, "demo")
				wantKind(t, err, provider.ErrBudget)
				if spent := time.Since(start); spent > 3*time.Minute {
					t.Errorf("gave up after %s", spent)
				}
			})
		})
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	in(t, func(t *testing.T, w world) {
		w.once("GET /server", fault{status: 302})
		if _, err := w.d.Servers(w.ctx, "demo"); err == nil {
			t.Fatal("followed")
		}
		if n := w.count(""); n != 1 {
			t.Errorf("%d calls", n)
		}
	})
}

func TestCallerWhoGivesUpIsHeard(t *testing.T) {
	in(t, func(t *testing.T, w world) {
		w.times(-1, "GET /server", fault{hang: true})
		ctx, cancel := context.WithTimeout(w.ctx, 5*time.Second)
		defer cancel()
		start := time.Now()
		_, err := w.d.Servers(ctx, "demo")
		wantKind(t, err, provider.ErrTimeout)
		if spent := time.Since(start); spent != 5*time.Second {
			t.Errorf("after %s", spent)
		}
	})
}
