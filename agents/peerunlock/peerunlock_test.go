package peerunlock

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"

	"popfleet/internal/shares"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRules(t *testing.T) {
	now := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	for name, c := range map[string]struct {
		m    memory
		push bool
		why  string
	}{
		"never seen":                {memory{}, false, "never saw it alive"},
		"alive":                     {memory{Alive: ago(5 * time.Second)}, false, ""},
		"silent":                    {memory{Alive: ago(time.Minute)}, true, ""},
		"silent for long":           {memory{Alive: ago(16 * time.Minute)}, false, "a person decides"},
		"seen in the future":        {memory{Alive: now.Add(time.Minute)}, false, "a clock was wrong"},
		"handed over just now":      {memory{Alive: ago(time.Minute), pushed: ago(10 * time.Second)}, false, ""},
		"handed over, and waiting":  {memory{Alive: ago(time.Minute), pushed: ago(40 * time.Second), Counted: true}, true, ""},
		"refused":                   {memory{Alive: ago(time.Minute), Refused: "wrong"}, false, "wrong"},
		"opened too often":          {memory{Alive: ago(time.Minute), Opened: []time.Time{ago(50 * time.Minute), ago(30 * time.Minute), ago(10 * time.Minute)}}, false, "3 times within the hour"},
		"opened often, and counted": {memory{Alive: ago(time.Minute), Counted: true, Opened: []time.Time{ago(50 * time.Minute), ago(30 * time.Minute), ago(time.Minute)}}, true, ""},
		"opened often, long ago":    {memory{Alive: ago(time.Minute), Opened: []time.Time{ago(90 * time.Minute), ago(80 * time.Minute), ago(70 * time.Minute)}}, true, ""},
	} {
		if push, why := DefaultRules().decide(now, c.m); push != c.push || !strings.Contains(why, c.why) {
			t.Errorf("%s: %v, %q", name, push, why)
		}
	}
}

func newKey(t testing.TB) (ssh.Signer, string) {
	t.Helper()
	_, k, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(k)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(k, "")
	if err != nil {
		t.Fatal(err)
	}
	return s, string(pem.EncodeToMemory(block))
}

// world is one ward, played: its dropbear, its heartbeats, and what its door says.
type world struct {
	t       *testing.T
	host    ssh.Signer
	login   ssh.Signer
	key     string
	share   string
	watcher *Watcher
	serving sync.WaitGroup

	mu     sync.Mutex
	silent time.Duration // of its heartbeats; <0: not heard
	shows  ssh.Signer    // the host key it shows; nil: nobody answers
	lets   ssh.PublicKey
	say    string
	code   uint32
	got    []string
	dials  int
	hears  bool // a controller does
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, silent: time.Second, say: "fleet: share kept: 1 of 2"}
	w.host, _ = newKey(t)
	w.login, w.key = newKey(t)
	w.lets = w.login.PublicKey()
	w.newShare(1)
	w.watcher = New(Deps{Controlled: w.controlled, Alive: w, Dial: w, File: w.file(), Memory: filepath.Join(filepath.Dir(w.file()), "seen.json")})
	return w
}

func (w *world) file() string {
	if w.watcher != nil {
		return w.watcher.d.File
	}
	return filepath.Join(w.t.TempDir(), "peer-unlock.json")
}

func (w *world) newShare(number int) {
	w.t.Helper()
	g, err := shares.New("n-1", number, 2, []string{"a-1", "b-1"}, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	w.share = g.Shares[0].Line
}

func (w *world) write() {
	w.t.Helper()
	c := Config{Version: 1, Node: "a-1", Key: w.key, Wards: []Ward{{Node: "n-1", Address: "192.0.2.1:2222",
		HostKey: string(ssh.MarshalAuthorizedKey(w.host.PublicKey())), Share: w.share}}}
	data, err := json.Marshal(c)
	if err == nil {
		err = os.WriteFile(w.watcher.d.File, data, 0o600)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) controlled() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.hears
}

func (w *world) Heard(context.Context) (map[string]time.Duration, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.silent < 0 {
		return nil, errors.New("no mesh")
	}
	return map[string]time.Duration{"n-1": w.silent}, nil
}

func (w *world) DialContext(context.Context, string, string) (net.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dials++
	if w.shows == nil {
		return nil, errors.New("refused")
	}
	near, far := net.Pipe()
	host, lets := w.shows, w.lets
	server := newBuffered(far, &w.serving)
	w.serving.Go(func() { w.serve(server, host, lets) })
	return newBuffered(near, &w.serving), nil
}

// buffered takes writes at once: both ends of SSH begin by writing, and on a bare pipe would wait for each other.
type buffered struct {
	net.Conn
	out  chan []byte
	gone chan struct{}
	once sync.Once
}

func newBuffered(c net.Conn, owner *sync.WaitGroup) *buffered {
	b := &buffered{Conn: c, out: make(chan []byte, 256), gone: make(chan struct{})}
	owner.Go(func() {
		defer c.Close()
		for {
			select {
			case p := <-b.out:
				if _, err := c.Write(p); err != nil {
					return
				}
			case <-b.gone:
				for len(b.out) > 0 { // what was said before it hung up
					if _, err := c.Write(<-b.out); err != nil {
						return
					}
				}
				return
			}
		}
	})
	return b
}

func (b *buffered) Write(p []byte) (int, error) {
	select {
	case <-b.gone:
		return 0, net.ErrClosed
	case b.out <- append([]byte(nil), p...):
		return len(p), nil
	}
}

func (b *buffered) Close() error {
	b.once.Do(func() { close(b.gone) })
	return b.Conn.SetReadDeadline(time.Now())
}

func (w *world) serve(c net.Conn, host ssh.Signer, lets ssh.PublicKey) {
	defer c.Close()
	cfg := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, k ssh.PublicKey) (*ssh.Permissions, error) {
		if string(k.Marshal()) != string(lets.Marshal()) {
			return nil, errors.New("no")
		}
		return nil, nil
	}}
	cfg.AddHostKey(host)
	conn, chans, reqs, err := ssh.NewServerConn(c, cfg)
	if err != nil {
		return
	}
	defer conn.Close()
	go ssh.DiscardRequests(reqs)
	for nc := range chans {
		ch, rs, err := nc.Accept()
		if err != nil {
			return
		}
		r := <-rs
		_ = r.Reply(true, nil)
		go ssh.DiscardRequests(rs)
		line, _ := io.ReadAll(io.LimitReader(ch, 4096))
		w.mu.Lock()
		w.got = append(w.got, string(line))
		say, code := w.say, w.code
		w.mu.Unlock()
		_, _ = io.WriteString(ch.Stderr(), say+"\n")
		_, _ = ch.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{code}))
		_ = ch.Close()
	}
}

// now changes the world and lets the watcher look for a while.
func (w *world) now(d time.Duration, change func()) {
	w.mu.Lock()
	change()
	w.mu.Unlock()
	for range d / (10 * time.Second) {
		time.Sleep(10 * time.Second) // of the bubble's clock
		w.mu.Lock()
		if w.silent > 5*time.Second {
			w.silent += 10 * time.Second
		}
		w.mu.Unlock()
		w.watcher.look(w.t.Context())
	}
	w.serving.Wait()
}

func (w *world) sent() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.got)
}

func (w *world) holds() string { return w.watcher.Status()[0].Holds }

func (w *world) locked() { w.silent, w.shows = 30*time.Second, w.host }

// played runs f with a ward that was alive for a minute.
func played(t *testing.T, f func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.write()
		w.now(time.Minute, func() {})
		if w.dials != 0 {
			t.Fatalf("a ward that is alive was dialed %d times", w.dials)
		}
		f(t, w)
	})
}

func TestALockedWardGetsTheShare(t *testing.T) {
	played(t, func(t *testing.T, w *world) {
		w.now(30*time.Second, func() { w.silent = 30 * time.Second }) // it is off: nobody answers
		if w.sent() != 0 {
			t.Fatal("sent to nobody")
		}
		w.now(2*time.Minute, w.locked)
		if n := w.sent(); n < 2 || n > 5 || w.got[0] != w.share {
			t.Errorf("sent %d times in two minutes; once every 30 s is wanted: %q", n, w.got)
		}
		w.now(time.Minute, func() { w.silent, w.shows = time.Second, nil })
		n := w.sent()
		w.now(time.Minute, w.locked)
		if w.sent() == n || w.holds() != "" {
			t.Errorf("the second outage: nothing sent, %s", w.holds())
		}
	})
}

func TestAControllerThatIsThereDecides(t *testing.T) {
	played(t, func(t *testing.T, w *world) {
		w.now(2*time.Minute, func() { w.locked(); w.hears = true })
		if w.sent() != 0 || !strings.Contains(w.holds(), "a controller hears this node") {
			t.Errorf("sent %d times: %q", w.sent(), w.holds())
		}
		w.now(time.Minute, func() { w.hears = false })
		if w.sent() == 0 {
			t.Errorf("the controller is gone: %q", w.holds())
		}
	})
}

func TestAWardThatIsAwayForLongWaitsForAPerson(t *testing.T) {
	played(t, func(t *testing.T, w *world) {
		w.now(16*time.Minute, func() { w.silent = 30 * time.Second })
		w.now(time.Minute, func() { w.shows = w.host })
		if w.sent() != 0 || !strings.Contains(w.holds(), "a person decides") {
			t.Errorf("sent %d times: %q", w.sent(), w.holds())
		}
	})
}

func TestAWardOpenedOverAndOverIsHeld(t *testing.T) {
	played(t, func(t *testing.T, w *world) {
		for range 3 {
			w.now(30*time.Second, func() { w.locked(); w.say = "cryptsetup: fleet-root set up successfully" })
			w.now(time.Minute, func() { w.silent, w.shows = time.Second, nil })
		}
		n := w.sent()
		w.now(2*time.Minute, w.locked)
		if w.sent() != n || !strings.Contains(w.holds(), "3 times within the hour") {
			t.Errorf("sent %d times more: %q", w.sent()-n, w.holds())
		}
	})
}

func TestARefusedShareIsSentOnce(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*world)
		sent   int
		why    string
	}{
		"wrong":    {func(w *world) { w.say, w.code = "fleet: wrong share: that of peer a-1", 65 }, 1, "wrong share"},
		"stale":    {func(w *world) { w.say, w.code = "fleet: stale share: generation 1", 65 }, 1, "stale share"},
		"dead":     {func(w *world) { w.say, w.code = "fleet: dead shares: generation 1", 65 }, 1, "dead shares"},
		"strange":  {func(w *world) { w.say, w.code = "sh: fleet-door: not found", 127 }, 1, "not found"},
		"key":      {func(w *world) { w.shows, _ = newKey(w.t) }, 0, "another host key"},
		"no login": {func(w *world) { other, _ := newKey(w.t); w.lets = other.PublicKey() }, 0, "does not let this node in"},
	} {
		played(t, func(t *testing.T, w *world) {
			w.now(3*time.Minute, func() { w.locked(); c.change(w) })
			if w.sent() != c.sent || !strings.Contains(w.holds(), c.why) {
				t.Errorf("%s: sent %d times: %q", name, w.sent(), w.holds())
			}
			dials := w.dials
			// A run that comes after it knows; a share of another generation is another chance.
			again := New(w.watcher.d)
			again.recall()
			w.watcher = again
			w.now(time.Minute, func() {})
			if w.dials != dials {
				t.Errorf("%s: dialed again after a restart", name)
			}
			w.newShare(2)
			w.write()
			w.now(time.Minute, func() { w.say, w.code, w.shows, w.lets = "fleet: share kept: 1 of 2", 0, w.host, w.login.PublicKey() })
			if w.sent() <= c.sent || w.got[len(w.got)-1] != w.share {
				t.Errorf("%s: the next generation: sent %d times: %q", name, w.sent(), w.holds())
			}
		})
	}
}

func TestAskedToWaitItComesBack(t *testing.T) {
	played(t, func(t *testing.T, w *world) {
		w.now(time.Minute, func() { w.locked(); w.say, w.code = "fleet: busy: another unlocker is here", 75 })
		if w.sent() < 5 || w.holds() != "" {
			t.Errorf("sent %d times: %q", w.sent(), w.holds())
		}
	})
}

// TestARestartedPeerRemembers: what it saw before counts, and without it the share stays.
func TestARestartedPeerRemembers(t *testing.T) {
	played(t, func(t *testing.T, w *world) {
		deps := w.watcher.d
		w.watcher = New(deps)
		w.watcher.recall()
		w.now(time.Minute, func() { w.shows, w.silent = w.host, -1 }) // deaf: the mesh is not up
		if w.sent() == 0 {
			t.Error("it forgot")
		}
		if err := os.WriteFile(deps.Memory, []byte("{garbage"), 0o600); err != nil {
			t.Fatal(err)
		}
		n := w.sent()
		w.watcher = New(deps)
		w.watcher.recall()
		w.now(time.Minute, func() {})
		if w.sent() != n || !strings.Contains(w.holds(), "never saw it alive") {
			t.Errorf("sent %d times more: %q", w.sent()-n, w.holds())
		}
	})
}

func TestABrokenFileLeavesTheOldWards(t *testing.T) {
	played(t, func(t *testing.T, w *world) {
		if err := os.WriteFile(w.watcher.d.File, []byte(`{"version": 1, "wards": [`), 0o600); err != nil {
			t.Fatal(err)
		}
		w.now(time.Minute, w.locked)
		if w.sent() == 0 {
			t.Error("nothing sent")
		}
		if err := os.Remove(w.watcher.d.File); err != nil {
			t.Fatal(err)
		}
		n := w.sent()
		w.now(time.Minute, w.locked)
		if w.sent() != n || len(w.watcher.Status()) != 0 {
			t.Error("wards that were taken away are still served")
		}
	})
}

func FuzzConfig(f *testing.F) {
	_, key := newKey(f)
	g, err := shares.New("n-1", 1, 2, []string{"a-1", "b-1"}, nil)
	if err != nil {
		f.Fatal(err)
	}
	host, _ := newKey(f)
	good, err := json.Marshal(Config{Version: 1, Node: "a-1", Key: key, Wards: []Ward{{"n-1", "192.0.2.1:2222", string(ssh.MarshalAuthorizedKey(host.PublicKey())), g.Shares[0].Line}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"version":1,"wards":[{}]}`))
	path := filepath.Join(f.TempDir(), "c.json")
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := Load(path)
		if err != nil {
			return
		}
		for _, w := range c.Wards {
			if _, err := w.pin(); err != nil || w.generation() < 1 {
				t.Errorf("%+v is taken", w.Node)
			}
		}
	})
}
