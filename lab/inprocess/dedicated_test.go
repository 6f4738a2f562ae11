package inprocess

import (
	"context"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"popfleet/lab/faults"
	"popfleet/lab/speccheck"
)

// hands speaks to both APIs in the plainest way.
type hands struct {
	t   *testing.T
	lab *Lab
	o   *operator
	key ssh.Signer
}

// robot calls Hetzner Robot with a form.
func (h *hands) robot(method, path string, form url.Values, out any) int {
	h.t.Helper()
	req, err := http.NewRequest(method, h.lab.RobotURL+path, strings.NewReader(form.Encode()))
	must(h.t, err)
	req.SetBasicAuth(RobotUser, RobotPassword)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return h.send(req, out)
}

// ovh calls OVH with a signed body; "" is none.
func (h *hands) ovh(method, path, body string, out any) int {
	h.t.Helper()
	target := h.lab.OVHURL + path
	req, err := http.NewRequest(method, target, strings.NewReader(body))
	must(h.t, err)
	ts := fmt.Sprint(time.Now().Unix())
	sum := sha1.Sum([]byte(strings.Join([]string{OVHApplicationSecret, OVHConsumerKey, method, target, body, ts}, "+")))
	for name, v := range map[string]string{"Application": OVHApplicationKey, "Consumer": OVHConsumerKey, "Timestamp": ts, "Signature": fmt.Sprintf("$1$%x", sum)} {
		req.Header.Set("X-Ovh-"+name, v)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	return h.send(req, out)
}

func (h *hands) send(req *http.Request, out any) int {
	h.t.Helper()
	res, err := (&http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	must(h.t, err)
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	must(h.t, err)
	if out != nil {
		if err := json.Unmarshal(data, out); err != nil {
			h.t.Fatalf("%s %s: %s: %s", req.Method, req.URL.Path, res.Status, data)
		}
	}
	return res.StatusCode
}

// rescueRobot brings a server into rescue and returns the host key that the provider tells.
func (h *hands) rescueRobot(number string) (fingerprint string) {
	h.t.Helper()
	line := string(ssh.MarshalAuthorizedKey(h.key.PublicKey()))
	sum := md5.Sum(h.key.PublicKey().Marshal())
	fp := strings.ReplaceAll(fmt.Sprintf("% x", sum), " ", ":")
	h.robot("POST", "/key", url.Values{"name": {"k"}, "data": {strings.TrimSpace(line)}}, nil)
	if code := h.robot("POST", "/boot/"+number+"/rescue", url.Values{"os": {"linux"}, "authorized_key[]": {fp}}, nil); code != 200 {
		h.t.Fatalf("activate rescue: %d", code)
	}
	if code := h.robot("POST", "/reset/"+number, url.Values{"type": {"hw"}}, nil); code != 200 {
		h.t.Fatalf("reset: %d", code)
	}
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); <-time.After(5 * time.Millisecond) {
		var last struct {
			Rescue struct {
				HostKey []struct {
					Key struct{ Fingerprint, Type string }
				} `json:"host_key"`
			}
		}
		if h.robot("GET", "/boot/"+number+"/rescue/last", nil, &last) != 200 {
			continue
		}
		for _, k := range last.Rescue.HostKey {
			if strings.EqualFold(k.Key.Type, "ed25519") {
				return k.Key.Fingerprint
			}
		}
	}
	h.t.Fatal("no host key was told")
	return ""
}

// rescueOVH makes rescue the server's boot and reboots it.
func (h *hands) rescueOVH(name string) {
	h.t.Helper()
	var ids []int64
	h.ovh("GET", "/dedicated/server/"+name+"/boot?bootType=rescue", "", &ids)
	for _, id := range ids {
		var b struct{ Kernel string }
		h.ovh("GET", fmt.Sprintf("/dedicated/server/%s/boot/%d", name, id), "", &b)
		if b.Kernel != "rescue-customer" {
			continue
		}
		body, err := json.Marshal(map[string]any{"bootId": id, "rescueSshKey": strings.TrimSpace(string(ssh.MarshalAuthorizedKey(h.key.PublicKey())))})
		must(h.t, err)
		if code := h.ovh("PUT", "/dedicated/server/"+name, string(body), nil); code != 200 {
			h.t.Fatalf("set boot: %d", code)
		}
		if code := h.ovh("POST", "/dedicated/server/"+name+"/reboot", "", nil); code != 200 {
			h.t.Fatalf("reboot: %d", code)
		}
		return
	}
	h.t.Fatalf("no rescue-customer among %v", ids)
}

// diskBootOVH is sticky the other way round.
func (h *hands) diskBootOVH(name string) {
	h.t.Helper()
	if code := h.ovh("PUT", "/dedicated/server/"+name, `{"bootId":1}`, nil); code != 200 {
		h.t.Fatalf("set boot: %d", code)
	}
	m := h.lab.Machine(h.t, name)
	boots := len(m.Ledger().Boots())
	h.ovh("POST", "/dedicated/server/"+name+"/reboot", "", nil)
	h.until(func() bool { return len(m.Ledger().Boots()) > boots && m.Stage() == "locked" })
}

func dedicated(t *testing.T) (*hands, context.Context, func() (exchanges int)) {
	var checks []*speccheck.Check
	around := func(api speccheck.API) func(http.Handler) http.Handler {
		c := speccheck.Load(t, api).Middleware(func(v speccheck.Violation) { t.Error(v) })
		checks = append(checks, c)
		return c.Wrap
	}
	l := Start(t, Options{Robot: 2, OVH: 1, WrapRobot: around(speccheck.HetznerRobot), WrapOVH: around(speccheck.OVH)})
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	t.Cleanup(cancel)
	o := newOperator(t, l)
	return &hands{t, l, o, o.key}, ctx, func() (n int) {
		for _, c := range checks {
			n += c.Total()
		}
		return n
	}
}

// TestDedicatedMachines installs on a mirror of two disks at both providers, and starts it again with either half gone.
func TestDedicatedMachines(t *testing.T) {
	h, ctx, exchanges := dedicated(t)
	for _, m := range []struct{ id, addr, net, wwn string }{{"321", "198.19.0.2", "198.19.0.2/26", "naa."}, {"ns1001.ip-198-19-1.eu", "198.19.1.2", "198.19.1.2/32", ""}} {
		t.Run(m.id, func(t *testing.T) {
			h, o := *h, *h.o
			h.t, o.t, h.o = t, t, &o
			told := ""
			if m.id == "321" {
				told = h.rescueRobot(m.id)
			} else {
				h.rescueOVH(m.id)
			}
			h.mirror(ctx, m.id, m.addr, told, m.net, m.wwn)
		})
	}
	t.Logf("%d exchanges fit the descriptions", exchanges())
}

func (h *hands) mirror(ctx context.Context, id, addr, told, network, wwn string) {
	h.t.Helper()
	t, m := h.t, h.lab.Machine(h.t, id)
	c := h.inRescue(ctx, addr, told)
	raw, code := h.o.exchange(c, "facts", map[string]any{}, nil)
	for _, want := range append(m.Serials(), network, wwn) {
		if code != "" || !strings.Contains(string(raw), want) {
			t.Errorf("facts do not tell %q: %s %s", want, raw, code)
		}
	}
	spec, blobs := h.o.installSpec()
	raw, code = h.o.exchange(c, "install", spec, blobs)
	if code != "" {
		t.Fatalf("install: %s", code)
	}
	c.Close()
	var in installed
	must(t, json.Unmarshal(raw, &in))
	for _, serial := range m.Serials() {
		if n := m.Ledger().Wipes()[serial]; n != 1 {
			t.Errorf("disk %s was wiped %d times", serial, n)
		}
	}
	if strings.HasPrefix(id, "ns") {
		h.diskBootOVH(id)
	}
	for missing := range 2 {
		h.lab.Faults.MustAdd(faults.Fault{Kind: faults.DiskMissing, Machine: id, Disk: missing, Times: 1})
		h.lab.Faults.MustAdd(faults.Fault{Kind: faults.DisksSwapped, Machine: id, Times: 1})
		boots := len(m.Ledger().Boots())
		must(t, m.Reset(ctx))
		h.until(func() bool { return len(m.Ledger().Boots()) > boots && m.Stage() == "locked" })
		if code, err := h.o.unlock(ctx, addr+":2222", in.InitramfsHostKey, "0123456789abcdef0123456789abcdef"); code != 0 || err != nil {
			t.Errorf("without disk %d: unlock exit %d, %v", missing, code, err)
		}
	}
}

// inRescue connects when the rescue system answers, and checks its host key where the provider told one.
func (h *hands) inRescue(ctx context.Context, addr, told string) *ssh.Client {
	h.t.Helper()
	var c *ssh.Client
	h.until(func() bool {
		var err error
		c, err = h.o.dial(ctx, addr+":22", h.key, "")
		return err == nil // the factory's system, which does not know the key, answers first
	})
	if told != "" {
		var got []byte
		conn, err := h.lab.Net.DialAddr(ctx, addrPort(addr, 22))
		must(h.t, err)
		defer conn.Close()
		_, _, _, err = ssh.NewClientConn(conn, addr, &ssh.ClientConfig{
			HostKeyAlgorithms: []string{ssh.KeyAlgoED25519},
			HostKeyCallback:   keep(&got),
		})
		if err == nil || len(got) == 0 {
			h.t.Fatalf("host key: %v", err)
		}
		sum := sha256.Sum256(got)
		if fp := base64.RawStdEncoding.EncodeToString(sum[:]); fp != told {
			h.t.Errorf("the rescue system shows %s, the provider told %s", fp, told)
		}
	}
	return c
}

func (h *hands) until(ok func() bool) {
	h.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); <-time.After(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			h.t.Fatal("it did not come")
		}
	}
}

// keep notes a host key and refuses it.
func keep(got *[]byte) ssh.HostKeyCallback {
	return func(_ string, _ net.Addr, k ssh.PublicKey) error {
		*got = k.Marshal()
		return errors.New("seen")
	}
}

func addrPort(addr string, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(addr), port)
}

func TestEnv(t *testing.T) {
	l := Start(t, Options{})
	if env := strings.Join(l.Env(), " "); strings.Contains(env, "HROBOT") || strings.Contains(env, "OVH") || len(l.Servers()) != 0 {
		t.Errorf("a lab of Hetzner Cloud alone: %s", env)
	}
	l = Start(t, Options{Robot: 1, OVH: 1, StatePath: t.TempDir() + "/state.json"})
	env := strings.Join(l.Env(), " ")
	for _, want := range []string{"HROBOT_ENDPOINT=" + l.RobotURL, "HROBOT_PASSWORD=" + RobotPassword, "OVH_ENDPOINT=" + l.OVHURL, "OVH_CONSUMER_KEY=" + OVHConsumerKey} {
		if !strings.Contains(env, want) {
			t.Errorf("no %s in %s", want, env)
		}
	}
	if got := l.Machine(t, "321"); got.Address().String() != "198.19.0.2" {
		t.Errorf("server 321 has %s", got.Address())
	}
}
