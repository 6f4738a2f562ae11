package speccheck

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// exchange is one call with an answer, and a word of the violation it is; "" is none.
type exchange struct {
	name, method, path, body string
	status                   int
	answer, problem          string
}

// A check that finds nothing wrong proves nothing unless it finds what is wrong.
func TestCloud(t *testing.T) {
	try(t, HetznerCloud, "application/json", 0, []exchange{
		{"fits", "POST", "/v1/ssh_keys", `{"name":"k","public_key":"x"}`, 201, `{"ssh_key":{"id":1,"name":"k","fingerprint":"f","public_key":"x","labels":{},"created":"2026-01-02T03:04:05Z"}}`, ""},
		{"answer lacks a field", "POST", "/v1/ssh_keys", `{"name":"k","public_key":"x"}`, 201, `{"ssh_key":{"id":1,"name":"k","public_key":"x","labels":{},"created":"2026-01-02T03:04:05Z"}}`, "fingerprint"},
		{"answer has a wrong type", "GET", "/v1/actions?id=1", ``, 200, `{"actions":[{"id":"1"}]}`, "id"},
		{"request has a wrong type", "POST", "/v1/ssh_keys", `{"name":5,"public_key":"x"}`, 201, `{}`, "request"},
		{"no such call", "GET", "/v1/nothing", ``, 200, `{}`, "no such call"},
	})
}

func TestRobot(t *testing.T) {
	const rescue = `{"rescue":{"server_ip":"198.19.0.2","server_ipv6_net":"2001:db8:2:1::","server_number":321,"os":"linux","arch":64,"active":true,"password":null,"authorized_key":[],"host_key":[HOST]}}`
	key := strings.Replace(rescue, "HOST", `{"key":{"fingerprint":"x","type":"ED25519","size":256}}`, 1)
	none := strings.Replace(rescue, "HOST", "", 1)
	try(t, HetznerRobot, formType, 2, []exchange{
		{"fits", "POST", "/boot/321/rescue", "os=linux&authorized_key%5B%5D=a&authorized_key%5B%5D=b", 200, none, ""},
		{"arrays have brackets", "POST", "/boot/321/rescue", "os=linux&authorized_key=a", 200, none, "end in []"},
		{"unknown field", "POST", "/boot/321/rescue", "os=linux&dist=x", 200, none, "not described"},
		{"wrong value", "POST", "/boot/321/rescue", "os=dos", 200, none, "request"},
		{"host keys are objects", "GET", "/boot/321/rescue/last", "", 200, strings.Replace(key, `"active"`, `"boot_time":"2026-09-08 12:00:00","active"`, 1), ""},
		{"and no strings", "GET", "/boot/321/rescue/last", "", 200, strings.Replace(rescue, "HOST", `"x"`, 1), "host_key"},
		{"boot_time has no zone", "GET", "/boot/321/rescue/last", "", 200, strings.Replace(key, `"active"`, `"boot_time":"2026-09-08T12:00:00Z","active"`, 1), "boot_time"},
		{"unknown field of the answer", "GET", "/server/321", "", 200, `{"server":{"server_ip":"198.19.0.2","serial":"x"}}`, "serial"},
		{"fields of all parts", "GET", "/server/321", "", 200, `{"server":{"reset":true,"server_ip":"198.19.0.2"}}`, "server_number"},
		{"an error that the call does not list", "POST", "/reset/321", "type=hw", 503, `{"error":{"status":503,"code":"X"}}`, "status, code and message"},
		{"rate limit", "GET", "/server", "", 403, `{"error":{"status":403,"code":"RATE_LIMIT_EXCEEDED","message":"m","max_request":200,"interval":3600}}`, ""},
		{"status in the body", "GET", "/server", "", 401, `{"error":{"status":403,"code":"UNAUTHORIZED","message":"m"}}`, "error.status"},
		{"order is in no description", "GET", "/order/server/transaction", "", 200, `[]`, ""},
	})
}

func TestOVH(t *testing.T) {
	const task = `{"taskId":1,"function":"hardReboot","status":"init","comment":null,"startDate":"2026-01-02T03:04:05+01:00","doneDate":null,"lastUpdate":null,"needSchedule":false,"note":null,"tags":[],"ticketReference":null,"plannedInterventionId":null}`
	try(t, OVH, "application/json", 4, []exchange{
		{"fits", "POST", "/1.0/dedicated/server/ns1/reboot", "", 200, task, ""},
		{"wrong word", "POST", "/1.0/dedicated/server/ns1/reboot", "", 200, strings.Replace(task, `"init"`, `"running"`, 1), "status"},
		{"unknown field", "POST", "/1.0/dedicated/server/ns1/reboot", "", 200, strings.Replace(task, `"function"`, `"func"`, 1), "func"},
		{"put answers null", "PUT", "/1.0/dedicated/server/ns1", `{"bootId":1,"monitoring":false}`, 200, `null`, ""},
		{"unknown field of the request", "PUT", "/1.0/dedicated/server/ns1", `{"bootid":1}`, 200, `null`, "bootid"},
		{"another file, an escaped slash", "GET", "/1.0/ip/198.19.1.2%2F32/reverse", "", 200, `["198.19.1.2"]`, ""},
		{"no such call", "GET", "/1.0/dedicated/nothing", "", 200, `[]`, "no such call"},
		{"error", "GET", "/1.0/dedicated/server/ns1", "", 404, `{"class":"Client::NotFound","message":"m"}`, ""},
		{"error without a class", "GET", "/1.0/dedicated/server/ns1", "", 404, `{"message":"m"}`, "class"},
		{"auth is in no description", "GET", "/1.0/auth/time", "", 200, `1457018875`, ""},
	})
}

// try counts on top of apart the exchange of a call that nobody knows, where the table has one.
func try(t *testing.T, api API, contentType string, apart int, table []exchange) {
	t.Helper()
	s := Load(t, api)
	got := 0
	for _, c := range table {
		var all []string
		check := s.Middleware(func(v Violation) { all = append(all, v.String()) })
		h := check.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(c.status)
			_, _ = io.WriteString(w, c.answer)
		}))
		r := httptest.NewRequest(c.method, c.path, strings.NewReader(c.body))
		if c.body != "" {
			r.Header.Set("Content-Type", contentType)
		}
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		told := strings.Join(all, "\n")
		if (told == "") != (c.problem == "") || !strings.Contains(told, c.problem) {
			t.Errorf("%s: reported %q, want %q", c.name, told, c.problem)
		}
		if rec.Body.String() != c.answer || rec.Code != c.status || check.Total() != 1 {
			t.Errorf("%s: the exchange was changed or not counted", c.name)
		}
		got += check.Apart()
	}
	if apart > 0 && got != apart {
		t.Errorf("%d exchanges are in no description, want %d", got, apart)
	}
}
