package transport

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"popfleet/dns/feed"
	"popfleet/internal/control"
	"popfleet/transport/certtest"
	"popfleet/transport/mesh"
)

// TestMain looks for leaks. The library lingers half a second over a connection it cut in the middle of a body, which
// is as long as goleak is patient.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}

func TestServesAndRedirects(t *testing.T) {
	s := newStation(t, certtest.NewCA(t), "fsn-1")
	res, err := s.client.Get(s.url("/"))
	if got := body(t, res, err); got != "hi" {
		t.Error(got)
	}
	res, err = s.client.Get("http://" + s.bound.Redirect.String() + "/x")
	if body(t, res, err); res.Request.URL.String() != s.url("/x") {
		t.Errorf("redirected to %s", res.Request.URL)
	}
	if h, err := s.control.Health(t.Context()); err != nil || !h.OK {
		t.Errorf("%+v %v", h, err)
	}
	s.awaitMap(t, "fsn-1=serving")
}

func TestSickApplication(t *testing.T) {
	s := newStation(t, certtest.NewCA(t), "fsn-1")
	s.awaitMap(t, "fsn-1=serving")
	s.app.sick.Store(true)
	took := s.awaitMap(t, "fsn-1=failing")
	t.Logf("dns heard of the sick application after %v", took)
	s.await(t, "failing")
	if h, err := s.control.Health(t.Context()); err != nil || h.OK || !strings.Contains(h.Reason, "500") {
		t.Errorf("%+v %v", h, err)
	}
	s.app.sick.Store(false)
	s.awaitMap(t, "fsn-1=serving")
}

func TestFull(t *testing.T) {
	s := newStation(t, certtest.NewCA(t), "fsn-1", func(c *Config, _ *Deps) { c.Limits.Requests = 1 })
	done := make(chan struct{})
	go func() {
		defer close(done)
		if res, err := s.client.Get(s.url("/slow")); err == nil {
			res.Body.Close()
		}
	}()
	<-s.app.inside
	eventually(t, "full", func() (string, bool) {
		st, err := s.control.Status(t.Context())
		got := fmt.Sprint(st.Detail.(map[string]any)["state"], err)
		return got, strings.HasPrefix(got, feed.Full)
	})
	close(s.app.release)
	<-done
	s.awaitMap(t, "fsn-1=serving")
}

func TestFeedComesBack(t *testing.T) {
	dir := t.TempDir()
	m := &maps{path: filepath.Join(dir, "late.sock")}
	stop := m.listen(t)
	s := newStation(t, certtest.NewCA(t), "fsn-1", func(c *Config, _ *Deps) { c.Feed = m.path })
	s.maps = m
	s.awaitMap(t, "fsn-1=serving")
	stop()
	m.mu.Lock()
	m.last = feed.Map{}
	m.mu.Unlock()
	m.listen(t)
	s.awaitMap(t, "fsn-1=serving")
}

// TestDrain has a slow request and a stream running when the node is asked to leave.
func TestDrain(t *testing.T) {
	s := newStation(t, certtest.NewCA(t), "fsn-1")
	slow := make(chan string, 1)
	go func() {
		res, err := s.client.Get(s.url("/slow"))
		if err != nil {
			slow <- err.Error()
			return
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		slow <- fmt.Sprintf("%s close=%v", b, res.Close)
	}()
	res, err := s.client.Get(s.url("/events"))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	events := bufio.NewReader(res.Body)
	for range 2 {
		<-s.app.inside
	}
	if st, err := s.control.Drain(t.Context()); err != nil || st.State != control.Draining {
		t.Fatal(st, err)
	}
	s.awaitMap(t, "fsn-1=draining")
	eventually(t, "listener closed", func() (string, bool) {
		c, err := net.DialTimeout("tcp", s.bound.HTTPS.String(), patience)
		if err == nil {
			c.Close()
		}
		return fmt.Sprint(err), err != nil
	})
	if st, err := s.control.Status(t.Context()); err != nil || st.State != control.Draining {
		t.Errorf("with a request and a stream running: %v %v", st, err)
	}
	close(s.app.release)
	if got := <-slow; got != "done close=true" {
		t.Errorf("the running request: %s", got)
	}
	if all, err := io.ReadAll(events); err != nil || string(all) != "data: hello\n\ndata: bye\n\n" {
		t.Errorf("the running stream: %q %v", all, err)
	}
	s.await(t, control.Drained)

	if _, err := s.control.Undrain(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "serving again", func() (string, bool) {
		res, err := s.client.Get(s.url("/"))
		if err != nil {
			return err.Error(), false
		}
		return "answer", body(t, res, err) == "hi" && !res.Close
	})
	s.awaitMap(t, "fsn-1=serving")
}

func TestDrainCutsWhatNeverEnds(t *testing.T) {
	s := newStation(t, certtest.NewCA(t), "fsn-1", func(c *Config, _ *Deps) { c.Drain = Drain{Max: Duration(50 * time.Millisecond)} })
	res, err := s.client.Get(s.url("/events"))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	<-s.app.inside
	if _, err := s.control.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.await(t, control.Drained)
	st, err := s.control.Status(t.Context())
	if err != nil || st.Detail.(map[string]any)["cut"].(map[string]any)["streams"] != 1.0 {
		t.Errorf("%+v %v", st, err)
	}
	if _, err := io.ReadAll(res.Body); err == nil {
		t.Error("the stream ended as if it were whole")
	}
}

func TestUndrainWhileStreamsRun(t *testing.T) {
	s := newStation(t, certtest.NewCA(t), "fsn-1", func(c *Config, _ *Deps) { c.Drain.Grace = 0 })
	res, err := s.client.Get(s.url("/events"))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	<-s.app.inside
	if _, err := s.control.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "listener closed", func() (string, bool) {
		c, err := net.DialTimeout("tcp", s.bound.HTTPS.String(), patience)
		if err == nil {
			c.Close()
		}
		return fmt.Sprint(err), err != nil
	})
	if _, err := s.control.Undrain(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "serving again", func() (string, bool) {
		res, err := s.client.Get(s.url("/"))
		if err != nil {
			return err.Error(), false
		}
		return "answer", body(t, res, err) == "hi"
	})
	close(s.app.release)
	if all, err := io.ReadAll(res.Body); err != nil || !strings.HasSuffix(string(all), "bye\n\n") {
		t.Errorf("the stream from before: %q %v", all, err)
	}
}

// TestStopFinishesRequests is SIGTERM: the request ends whole, the stream is cut early.
func TestStopFinishesRequests(t *testing.T) {
	s := newStation(t, certtest.NewCA(t), "fsn-1")
	slow, streams := make(chan string, 1), make(chan error, 1)
	go func() {
		res, err := s.client.Get(s.url("/slow"))
		if err != nil {
			slow <- err.Error()
			return
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		slow <- string(b)
	}()
	go func() {
		res, err := s.client.Get(s.url("/events"))
		if err == nil {
			_, err = io.ReadAll(res.Body)
			res.Body.Close()
		}
		streams <- err
	}()
	for range 2 {
		<-s.app.inside
	}
	stopped := make(chan struct{})
	go func() { defer close(stopped); s.stop() }()
	if err := <-streams; err == nil {
		t.Error("the stream ended as if it were whole")
	}
	s.awaitMap(t, "fsn-1=draining")
	close(s.app.release)
	if got := <-slow; got != "done" {
		t.Error(got)
	}
	<-stopped
}

func TestTwoStationsTellTheirDNS(t *testing.T) {
	ca := certtest.NewCA(t)
	names := []string{"fsn-1", "fsn-2"}
	meshes, stations := make([]net.Listener, 2), make([]*station, 2)
	for i := range names {
		var err error
		if meshes[i], err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	}
	for i, name := range names {
		stations[i] = newStation(t, ca, name, func(c *Config, d *Deps) {
			d.MeshListener = meshes[i]
			c.Peers = []mesh.Peer{{Node: names[1-i], PoP: "fsn", Address: meshes[1-i].Addr().String()}}
			c.Addresses = []netip.Addr{netip.MustParseAddr(fmt.Sprintf("198.18.0.1%d", i))}
		})
	}
	stations[0].awaitMap(t, "fsn-1=serving fsn-2=serving")
	stations[1].awaitMap(t, "fsn-2=serving fsn-1=serving")
	if _, err := stations[1].control.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	took := stations[0].awaitMap(t, "fsn-1=serving fsn-2=draining")
	t.Logf("the other node's dns heard of the drain after %v", took)
	stations[1].stop()
	took = stations[0].awaitMap(t, "fsn-1=serving fsn-2=dead")
	t.Logf("dead after %v", took)
	st, err := stations[0].control.Status(t.Context())
	if err != nil || !strings.Contains(fmt.Sprint(st.Detail), "fsn-2") {
		t.Errorf("%+v %v", st, err)
	}
}

func TestConfigSaysAllProblems(t *testing.T) {
	path := filepath.Join(t.TempDir(), "transport.json")
	text := `{"fleet":"","node":"fsn-1","pop":"FSN","addresses":["0.0.0.0"],"listen":"443","app":"https://x/y","peers":[{"node":"fsn-1","pop":"fsn","address":"x"}],"names":["Demo.Test."],"tls":{"cert":"a"},"control":"","drain":{"grace":"-1s"}}`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Load(path)
	for _, want := range []string{"transport.json", "fleet is empty", `pop "FSN"`, "0.0.0.0", `listen "443"`, `app "https://x/y"`, "twice", `address "x"`, `name "Demo.Test."`, "tls: cert, key and ca", "control is empty", "drain times"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in: %v", want, err)
		}
	}
}

func TestPortTakenIsSaid(t *testing.T) {
	ca := certtest.NewCA(t)
	s := newStation(t, ca, "fsn-1")
	cfg := s.cfg
	cfg.Listen, cfg.Control = s.bound.HTTPS.String(), cfg.Control+"2"
	if err := Run(t.Context(), cfg, Deps{Log: slog.New(slog.DiscardHandler)}); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("error %v", err)
	}
}
