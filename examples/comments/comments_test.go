package comments

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"popfleet/internal/control"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func noEnvironment(string) string { return "" }

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoad(t *testing.T) {
	// As the app playbook renders it.
	path := write(t, "app.json", `{"listen":"127.0.0.1:8080","mongo":"mongodb://127.0.0.1:27017","database":"comments","node":"fsn-1","control":"/run/fleet-app/control.sock"}`)
	c, err := Load(path, noEnvironment)
	if err != nil || c.Node != "fsn-1" || c.token != "" {
		t.Fatalf("got %+v, %v", c, err)
	}
	token := strings.Repeat("t", minTokenBytes)
	c, err = Load(path, func(name string) string { return map[string]string{EnvModeratorToken: token}[name] })
	if err != nil || c.token != token {
		t.Fatalf("token from the environment: %v", err)
	}
	file := write(t, "token", token+"\n")
	path = write(t, "app.json", `{"node":"fsn-1","moderator_token_file":"`+file+`"}`)
	if c, err = Load(path, noEnvironment); err != nil || c.token != token {
		t.Fatalf("token from a file: %v", err)
	}
}

func TestLoadRefuses(t *testing.T) {
	for _, c := range []struct {
		name, json string
		want       []string
	}{
		{"everything at once", `{"listen":":8080","mongo":"http://u:hunter22@x","database":"a b","node":"","control":"x"}`,
			[]string{`listen ":8080"`, "mongo: expected mongodb://", `database "a b"`, `node ""`, `control "x"`}},
		{"an unknown key", `{"node":"a","mogno":"x"}`, []string{`unknown field "mogno"`}},
		{"trailing data", `{"node":"a"} {}`, []string{"more than one value"}},
		{"no token file", `{"node":"a","moderator_token_file":"/nonexistent"}`, []string{"moderator_token_file: open /nonexistent"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Load(write(t, "app.json", c.json), noEnvironment)
			if err == nil {
				t.Fatal("accepted")
			}
			for _, w := range append(c.want, "app.json") {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q is not in:\n%v", w, err)
				}
			}
			if strings.Contains(err.Error(), "hunter22") {
				t.Errorf("a password is shown: %v", err)
			}
		})
	}
	_, err := Load(write(t, "app.json", `{"node":"a"}`), func(string) string { return "sesame" })
	if err == nil || strings.Contains(err.Error(), "sesame") || !strings.Contains(err.Error(), "at least 16") {
		t.Errorf("a short token: %v", err)
	}
}

// flaky is a store that fails when told to.
type flaky struct {
	mu              sync.Mutex
	err             error
	pings, prepares int
}

func (f *flaky) answer(count *int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	*count++
	return f.err
}

func (f *flaky) Ping(context.Context) error    { return f.answer(&f.pings) }
func (f *flaky) Prepare(context.Context) error { return f.answer(&f.prepares) }
func (f *flaky) asked() (pings, prepares int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.pings, f.prepares
}

func (f *flaky) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func TestWatchdog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		store := &flaky{}
		away := errors.New("away")
		store.fail(away)
		d := newWatchdog(store, slog.New(slog.DiscardHandler))
		if err := d.problem(); !errors.Is(err, errNotAsked) {
			t.Fatalf("before the first answer: %v", err)
		}
		go d.run(ctx)
		settle := func(wait time.Duration) error {
			time.Sleep(wait) // of the bubble
			synctest.Wait()
			return d.problem()
		}
		if err := settle(time.Millisecond); !errors.Is(err, away) {
			t.Fatalf("store is away: %v", err)
		}
		store.fail(nil)
		if err := settle(retryFast); err != nil {
			t.Fatalf("store came: %v", err)
		}
		store.fail(away)
		if err := settle(pingInterval); !errors.Is(err, away) {
			t.Fatalf("store left: %v", err)
		}
		_, before := store.asked()
		store.fail(nil)
		err := settle(retryFast)
		pings, prepares := store.asked()
		if err != nil || prepares == before {
			t.Fatalf("store came back: %v; asked for indexes %d times", err, prepares-before)
		}
		err = settle(5 * pingInterval)
		if now, _ := store.asked(); err != nil || now != pings+5 {
			t.Fatalf("%v; %d pings", err, now-pings)
		}
	})
}

// start runs the application until the test ends or stop is called, which returns what Run did.
func start(t *testing.T, c Config) (base string, stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	addr, done := make(chan string, 1), make(chan error, 1)
	go func() {
		done <- Run(ctx, c, slog.New(slog.NewTextHandler(t.Output(), nil)), func(a string) { addr <- a })
	}()
	stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() { _ = stop() })
	select {
	case a := <-addr:
		return "http://" + a, stop
	case err := <-done:
		done <- err
		t.Fatalf("the application ended: %v", err)
	case <-time.After(30 * time.Second):
		t.Fatal("the application did not start")
	}
	return "", nil
}

func testConfig(t *testing.T, mongo string) Config {
	t.Helper()
	c := Default()
	c.Listen, c.Mongo, c.Node = "127.0.0.1:0", mongo, "fsn-1"
	c.Control = filepath.Join(t.TempDir(), "s")
	return c
}

// browser gets pages without keeping connections, which goleak would count.
var browser = http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	res, err := browser.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

// eventually waits for a condition; patience suits a slow and busy machine.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(60 * time.Second); !cond(); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited a minute: %s", what)
		}
	}
}

func TestRunWithoutAStore(t *testing.T) {
	c := testConfig(t, "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=200") // nobody listens there
	base, stop := start(t, c)
	if code, body := get(t, base+"/healthz"); code != http.StatusServiceUnavailable || !strings.Contains(body, `"ok":false`) {
		t.Errorf("/healthz: %d %s", code, body)
	}
	if code, body := get(t, base+"/"); code != 200 || !strings.Contains(body, "fsn-1") {
		t.Errorf("/: %d %s", code, body)
	}
	client := control.Dial(c.Control)
	state := func() string {
		s, err := client.Status(t.Context())
		if err != nil {
			return ""
		}
		data, _ := json.Marshal(s.Detail)
		if !strings.Contains(string(data), `"store":"`) {
			t.Errorf("status: %s", data)
		}
		return s.State
	}
	eventually(t, "the control socket says serving", func() bool { return state() == control.Serving })
	if _, err := client.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "drained", func() bool { return state() == control.Drained })
	if h, err := client.Health(t.Context()); err != nil || h.OK || h.Reason != "draining" {
		t.Errorf("health while drained: %+v, %v", h, err)
	}
	if _, err := client.Undrain(t.Context()); err != nil || state() != control.Serving {
		t.Errorf("undrained: %v", err)
	}
	if err := stop(); err != nil {
		t.Errorf("the end: %v", err)
	}
}

func TestRunFailsWhenItsPlacesAreTaken(t *testing.T) {
	c := testConfig(t, "mongodb://127.0.0.1:1")
	base, _ := start(t, c)
	eventually(t, "the control socket is there", func() bool { _, err := os.Stat(c.Control); return err == nil })
	log := slog.New(slog.DiscardHandler)
	second := testConfig(t, "mongodb://127.0.0.1:1")
	second.Listen = strings.TrimPrefix(base, "http://")
	if err := Run(t.Context(), second, log, nil); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("port taken: %v", err)
	}
	third := testConfig(t, "mongodb://127.0.0.1:1")
	third.Control = c.Control
	if err := Run(t.Context(), third, log, nil); err == nil || !strings.Contains(err.Error(), "another process answers") {
		t.Errorf("control socket taken: %v", err)
	}
}
