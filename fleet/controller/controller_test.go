package controller_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"popfleet/agents"
	"popfleet/fleet/controller"
	"popfleet/fleet/controller/client"
	"popfleet/internal/dial"
	"popfleet/internal/journal"
	"popfleet/internal/mtls"
	"popfleet/internal/mtls/mtlstest"
	"popfleet/inventory"
	"popfleet/inventory/vault"
	"popfleet/provision/lifecycle"
	"popfleet/provision/remote"
)

// room is a running controller with an authority for its callers.
type room struct {
	t         *testing.T
	authority *mtlstest.Authority
	addr      string
	stop      func()
}

const fleetName = "demo"

func demoFleet() *inventory.Fleet {
	f := inventory.Default()
	f.Name, f.Domain = fleetName, "demo.test"
	f.Controllers = []inventory.Controller{{Name: "ctl", Address: netip.MustParseAddrPort("198.18.0.1:8440")}}
	f.PoPs = []inventory.PoP{
		{Name: "fsn", Nodes: []inventory.Node{{Name: "fsn-1"}, {Name: "fsn-2"}}},
		{Name: "gra", Nodes: []inventory.Node{{Name: "gra-1"}}},
	}
	return f
}

// start runs a controller over dir, which lasts from one start to the next.
func start(t *testing.T, dir string, authority *mtlstest.Authority) *room {
	t.Helper()
	v := openVault(t, dir)
	j, err := journal.Open(filepath.Join(dir, "journal.db"))
	if err != nil {
		t.Fatal(err)
	}
	identity := authority.Identity(mtls.Name{Fleet: fleetName, Service: "controller", Node: "ctl"})
	listening := make(chan net.Addr, 1)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- controller.Run(ctx, controller.Config{Listen: "127.0.0.1:0", Dir: dir}, controller.Deps{
			Fleet:     func() (*inventory.Fleet, error) { return demoFleet(), nil },
			Identity:  func() (*mtls.Identity, error) { return identity, nil },
			Lifecycle: lifecycle.Deps{Fleet: fleetName, Keys: v, Memory: v, Boots: v, Journal: j, Dial: dial.Direct()},
			Look:      func(context.Context, string) remote.Door { return remote.Door{} },
			Listening: func(a net.Addr) { listening <- a },
		})
	}()
	r := &room{t: t, authority: authority}
	stopped := false
	r.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		j.Close()
	}
	t.Cleanup(r.stop)
	select {
	case a := <-listening:
		r.addr = a.String()
	case err := <-done:
		done <- err
		t.Fatal("the controller did not start: ", err)
	case <-time.After(30 * time.Second):
		t.Fatal("the controller does not listen")
	}
	return r
}

func openVault(t *testing.T, dir string) *vault.Vault {
	t.Helper()
	secrets, pass := filepath.Join(dir, "secrets"), inventory.SecretText("correct horse battery")
	if vault.Exists(secrets) {
		v, err := vault.Open(secrets, pass)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	v, err := vault.Create(secrets, pass, vault.Options{Fleet: fleetName, WorkFactor: 10})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func (r *room) as(service, node string) *mtls.Identity {
	return r.authority.Identity(mtls.Name{Fleet: fleetName, Service: service, Node: node})
}

func (r *room) status() controller.Status {
	r.t.Helper()
	s, err := client.New(dial.Direct(), r.as("operator", "ada"), fleetName, r.addr).Status(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

// post sends a body as an agent does, and returns code and answer.
func (r *room) post(id *mtls.Identity, encoding string, body []byte) (int, string) {
	r.t.Helper()
	c := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		TLSClientConfig: id.Client(mtls.Name{Fleet: fleetName, Service: "controller", Node: "ctl"})}}
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodPost, "https://"+r.addr+"/v1/reports", bytes.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Content-Encoding", encoding)
	res, err := c.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return res.StatusCode, string(text)
}

func packed(t *testing.T, v any) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if err := json.NewEncoder(z).Encode(v); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func report(node, boot string, seq uint64) agents.Report {
	rtt := 0.4
	r := agents.Report{V: 1, Node: node, BootID: boot, Seq: seq, Time: time.Now(), Release: "sha256:" + strings.Repeat("ab", 32)}
	if node == "fsn-1" {
		r.Pairs = []agents.Pair{{From: "fsn-2", State: "connected", RTTMs: &rtt}}
	}
	return r
}

func TestReportsAreTakenAndShown(t *testing.T) {
	r := start(t, t.TempDir(), mtlstest.New(t))
	code, text := r.post(r.as("agent", "fsn-1"), "gzip", packed(t, []agents.Report{report("fsn-1", "b1", 1), report("fsn-1", "b1", 2)}))
	var got controller.Accepted
	if err := json.Unmarshal([]byte(text), &got); code != http.StatusOK || err != nil {
		t.Fatalf("%d %s %v", code, text, err)
	}
	if got.AckedSeq != 2 || got.Interval != "10s" || time.Since(got.Time).Abs() > time.Minute {
		t.Errorf("answer %+v", got)
	}
	// A resend changes nothing.
	r.post(r.as("agent", "fsn-1"), "gzip", packed(t, []agents.Report{report("fsn-1", "b1", 1)}))
	s := r.status()
	if len(s.Nodes) != 3 || s.Nodes[0].Freshness != controller.Fresh || s.Nodes[0].Report.Seq != 2 || s.Nodes[0].Lock.State != controller.Unlocked {
		t.Errorf("fsn-1: %+v", s.Nodes[0])
	}
	if s.Nodes[1].Freshness != controller.Never || s.Nodes[1].Report != nil || s.Nodes[1].LastReportAgeSec != nil {
		t.Errorf("fsn-2: %+v", s.Nodes[1])
	}
	if len(s.Pairs) != 6 {
		t.Fatalf("%d pairs of 3 nodes; expected 6", len(s.Pairs))
	}
	for _, p := range s.Pairs {
		known := p.From == "fsn-2" && p.To == "fsn-1"
		if known != (p.State == "connected") || known != (p.RTTMs != nil) || !known && (p.State != controller.PairUnknown || p.Why == "") {
			t.Errorf("pair %+v", p)
		}
	}
}

func TestRestartShowsHonestAge(t *testing.T) {
	dir, authority := t.TempDir(), mtlstest.New(t)
	r := start(t, dir, authority)
	r.post(r.as("agent", "fsn-1"), "gzip", packed(t, []agents.Report{report("fsn-1", "b1", 7)}))
	before := time.Now()
	r.stop()
	r = start(t, dir, authority)
	n := r.status().Nodes[0]
	if n.Report == nil || n.Report.Seq != 7 || n.LastReportAgeSec == nil || *n.LastReportAgeSec < time.Since(before).Seconds()-1 {
		t.Errorf("after the restart: %+v", n)
	}
}

func TestWhoMayDoWhat(t *testing.T) {
	r := start(t, t.TempDir(), mtlstest.New(t))
	good := packed(t, []agents.Report{report("fsn-1", "b1", 1)})
	many := make([]agents.Report, 1001)
	for i := range many {
		many[i] = report("fsn-1", "b1", uint64(i+1))
	}
	for name, c := range map[string]struct {
		service, node, encoding string
		body                    []byte
		code                    int
		says                    string
	}{
		"another node's report": {"agent", "fsn-2", "gzip", good, 400, `it is of node \"fsn-1\"`},
		"an operator reports":   {"operator", "fsn-1", "gzip", good, 403, "may not POST"},
		"unknown node":          {"agent", "ams-1", "gzip", packed(t, []agents.Report{report("ams-1", "b1", 1)}), 403, "no node"},
		"empty batch":           {"agent", "fsn-1", "gzip", packed(t, []agents.Report{}), 400, "expected 1 to 1000"},
		"too many":              {"agent", "fsn-1", "gzip", packed(t, many), 400, "1001 in one batch"},
		"not gzip":              {"agent", "fsn-1", "gzip", []byte("[]"), 400, "reports: "},
		"unknown encoding":      {"agent", "fsn-1", "br", good, 400, "content encoding"},
		"no boot id":            {"agent", "fsn-1", "gzip", packed(t, []agents.Report{report("fsn-1", "", 1)}), 400, "boot_id"},
		"seq 0":                 {"agent", "fsn-1", "gzip", packed(t, []agents.Report{report("fsn-1", "b", 0)}), 400, "seq"},
		"a bomb":                {"agent", "fsn-1", "gzip", packed(t, strings.Repeat(" ", 17<<20)), 400, "when unpacked"},
		"a later agent":         {"agent", "fsn-1", "gzip", packed(t, []map[string]any{{"v": 2, "node": "fsn-1", "boot_id": "b", "seq": 1, "time": time.Now(), "new": 1}}), 200, "acked_seq"},
	} {
		t.Run(name, func(t *testing.T) {
			code, text := r.post(r.as(c.service, c.node), c.encoding, c.body)
			if code != c.code || !strings.Contains(text, c.says) {
				t.Errorf("%d %s; expected %d with %q", code, text, c.code, c.says)
			}
		})
	}
	if _, err := client.New(dial.Direct(), r.as("agent", "fsn-1"), fleetName, r.addr).Status(t.Context()); err == nil || !strings.Contains(err.Error(), "403") {
		t.Errorf("an agent reads the status: %v", err)
	}
	for _, n := range []mtls.Name{{Fleet: fleetName, Service: "transport", Node: "fsn-1"}, {Fleet: "other", Service: "operator", Node: "ada"}} {
		if _, err := client.New(dial.Direct(), r.authority.Identity(n), fleetName, r.addr).Status(t.Context()); err == nil {
			t.Errorf("%s was let in", n)
		}
	}
	if _, err := client.New(dial.Direct(), mtlstest.New(t).Identity(mtls.Name{Fleet: fleetName, Service: "operator", Node: "ada"}), fleetName, r.addr).Status(t.Context()); err == nil {
		t.Error("another authority's operator was let in")
	}
	if _, err := client.New(dial.Direct(), r.as("operator", "ada"), "other", r.addr).Status(t.Context()); err == nil {
		t.Error("the client took another fleet's controller")
	}
}

func TestExpect(t *testing.T) {
	r := start(t, t.TempDir(), mtlstest.New(t))
	c := client.New(dial.Direct(), r.as("operator", "ada"), fleetName, r.addr)
	if err := c.Expect(t.Context(), "fsn-1", 10*time.Minute); err != nil {
		t.Fatal(err)
	}
	if left := time.Until(r.status().Nodes[0].Lock.ExpectedUntil); left < 5*time.Minute || left > 10*time.Minute {
		t.Errorf("expected for %s more", left)
	}
	for node, d := range map[string]time.Duration{"ams-1": time.Minute, "fsn-2": 0, "gra-1": 100 * time.Hour} {
		if err := c.Expect(t.Context(), node, d); err == nil {
			t.Errorf("expect %s for %s was taken", node, d)
		}
	}
}
