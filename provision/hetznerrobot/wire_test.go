package hetznerrobot

import (
	"encoding/json"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"
)

func TestParseRefusal(t *testing.T) {
	for _, c := range []struct {
		body string
		want refusal
	}{
		{`{"error":{"status":404,"code":"SERVER_NOT_FOUND","message":"Server not found"}}`,
			refusal{Status: 404, Code: "SERVER_NOT_FOUND", Message: "Server not found"}},
		{`{"error":{"status":403,"code":"RATE_LIMIT_EXCEEDED","message":"x","max_request":200,"interval":3600}}`,
			refusal{Status: 404, Code: "RATE_LIMIT_EXCEEDED", Message: "x", Max: 200, Interval: time.Hour}},
		{`{"error":{"code":"RATE_LIMIT_EXCEEDED","max_request":"200","interval":"60"}}`,
			refusal{Status: 404, Code: "RATE_LIMIT_EXCEEDED", Max: 200, Interval: time.Minute}},
		{`{"error":{"code":"RATE_LIMIT_EXCEEDED","max_request":-1,"interval":99999999999}}`, refusal{Status: 404, Code: "RATE_LIMIT_EXCEEDED"}},
		{`{"error":{"code":"INVALID_INPUT","missing":["os"],"invalid":null}}`, refusal{Status: 404, Code: "INVALID_INPUT", Fields: []string{"os"}}},
		{`{"error":{"code":"INVALID_INPUT","missing":null,"invalid":{"ptr":["bad"]}}}`, refusal{Status: 404, Code: "INVALID_INPUT", Fields: []string{"ptr"}}},
		{`{"error":"down"}`, refusal{Status: 404}},
		{`<html>down</html>`, refusal{Status: 404}},
		{``, refusal{Status: 404}},
	} {
		got := parseRefusal(404, []byte(c.body))
		if len(got.Fields) == 0 {
			got.Fields = nil
		}
		if !reflect.DeepEqual(*got, c.want) {
			t.Errorf("%s is %+v, want %+v", c.body, *got, c.want)
		}
	}
}

func TestFingerprints(t *testing.T) {
	const sum = "uNiVztksCsDhcc0u9e8BgrJXVGDHtUVtMsYPHSAKVEo"
	var keys []bootKey
	for _, fp := range []string{sum, "SHA256:" + sum, sum + "=", "c1:e4:08:73:dd:f7:e9:d1:94:ab:e9:0f:28:b2:d2:ed", "", "short", strings.Repeat("!", 43)} {
		var k bootKey
		k.Key.Fingerprint = fp
		keys = append(keys, k)
	}
	if got := fingerprints(keys); len(got) != 1 || got[0] != "SHA256:"+sum {
		t.Errorf("%q", got)
	}
}

// TestParseTime covers both ends of summer time; the hour that comes twice is read as the second.
func TestParseTime(t *testing.T) {
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"2026-09-08 14:03:05": "2026-09-08T12:03:05Z",
		"2026-11-22 13:00:00": "2026-11-22T12:00:00Z",
		"2026-10-25 01:59:59": "2026-10-24T23:59:59Z",
		"2026-10-25 02:30:00": "2026-10-25T01:30:00Z", // also 00:30Z
		"2026-10-25 03:00:00": "2026-10-25T02:00:00Z",
		"2026-03-29 01:59:59": "2026-03-29T00:59:59Z",
		"2026-03-29 03:00:00": "2026-03-29T01:00:00Z",
		"":                    "",
		"2026-11-22T13:00:00": "",
		"yesterday":           "",
	} {
		got, err := parseTime(text, zone)
		if want == "" {
			if err == nil {
				t.Errorf("%q is read as %s", text, got)
			}
			continue
		}
		if err != nil || got.UTC().Format(time.RFC3339) != want {
			t.Errorf("%q is %s, %v; want %s", text, got.UTC(), err, want)
		}
	}
}

func TestOneOrMany(t *testing.T) {
	for in, want := range map[string]oneOrMany{
		`"linux"`:          {list: []string{"linux"}, single: true},
		`["linux","vkvm"]`: {list: []string{"linux", "vkvm"}},
		`null`:             {},
	} {
		var got oneOrMany
		if err := json.Unmarshal([]byte(in), &got); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s is %+v, %v", in, got, err)
		}
	}
	var got oneOrMany
	if err := json.Unmarshal([]byte(`{"a":1}`), &got); err == nil {
		t.Error("an object is taken")
	}
}

func TestEuro(t *testing.T) {
	for in, want := range map[string]string{`"49.58"`: "49.58 €", `"0.0795"`: "0.0795 €", `"1.7000"`: "1.70 €", `84`: "84.00 €",
		`28.57`: "28.57 €", `null`: "0.00 €", `"0"`: "0.00 €", `"12.50000000"`: "12.50 €"} {
		var e Euro
		if err := json.Unmarshal([]byte(in), &e); err != nil || e.String() != want {
			t.Errorf("%s is %s, %v; want %s", in, e, err, want)
		}
	}
	for _, in := range []string{`"-1"`, `"1,50"`, `"1.00001"`, `"9999999999"`, `"free"`, `{}`, `"1e9"`, `" 1"`, `"+1"`, `"."`} {
		var e Euro
		if err := json.Unmarshal([]byte(in), &e); err == nil {
			t.Errorf("%s is taken as %s", in, e)
		}
	}
}

func FuzzParseRefusal(f *testing.F) {
	f.Add(403, []byte(`{"error":{"status":403,"code":"RATE_LIMIT_EXCEEDED","message":"x","max_request":200,"interval":3600}}`))
	f.Add(400, []byte(`{"error":{"code":"INVALID_INPUT","missing":["os"],"invalid":{"a":1}}}`))
	f.Add(500, []byte("\x1b[31m"))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		r := parseRefusal(status, body)
		text := r.Error()
		if len(text) > 4096 || r.Interval < 0 || r.Interval > 7*24*time.Hour || len(r.Fields) > 40 {
			t.Fatalf("unbounded: %d bytes, %s, %d fields", len(text), r.Interval, len(r.Fields))
		}
		if i := strings.IndexFunc(text, func(c rune) bool { return !unicode.IsPrint(c) }); i >= 0 {
			t.Fatalf("%q is not printable", text)
		}
		if v := judge(r); v.limited && !v.unsent {
			t.Fatal("a limit that may have taken effect")
		}
	})
}

func FuzzAnswers(f *testing.F) {
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(`[{"server":{"server_ip":"192.0.2.1","server_ipv6_net":"2001:db8::","server_number":1,"status":"ready"}}]`))
	f.Add([]byte(`{"rescue":{"os":"linux","active":true,"boot_time":"2026-10-25 02:30:00","host_key":[{"key":{"fingerprint":"x"}}]}}`))
	f.Add([]byte(`{"boot":{"rescue":{"os":["linux"],"active":false},"linux":null}}`))
	f.Add([]byte(`{"product":{"id":1,"price":"28.57","orderable_addons":[{"id":"primary_ipv4","prices":[]}]}}`))
	f.Add([]byte(`{"transaction":{"id":"B1","status":"ready","server_number":5,"product":{"id":"EX44"}}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var list servers
		if json.Unmarshal(body, &list) == nil {
			for _, s := range list {
				out := serverOf("n", s)
				if len(out.Trouble) > 200 {
					t.Fatal("unbounded trouble")
				}
			}
		}
		var r rescue
		if json.Unmarshal(body, &r) == nil {
			_ = vkvm(r.Rescue)
			for _, fp := range fingerprints(r.Rescue.Hosts) {
				if len(fp) != len("SHA256:")+43 {
					t.Fatalf("fingerprint %q", fp)
				}
			}
			_, _ = parseTime(string(r.Rescue.BootTime), zone)
		}
		var p wireProduct
		if json.Unmarshal(body, &p) == nil {
			for _, market := range []bool{false, true} {
				if product, err := p.product(market); err == nil {
					for _, o := range []Order{{Product: product.ID}, {Product: product.ID, IPv4: true}} {
						if price, why := product.priceOf(o); why == "" && (price.Net.Monthly < 0 || price.Gross.Monthly < 0) {
							t.Fatalf("price %+v", price)
						}
					}
				}
			}
		}
		var w wireTransaction
		if json.Unmarshal(body, &w) == nil {
			if tr, err := w.transaction(false); err == nil && tr.ID == "" {
				t.Fatal("a transaction without id")
			}
		}
	})
}

func TestRequestsAreFormsWithoutSecretsInThem(t *testing.T) {
	in(t, func(t *testing.T, w world) {
		r, err := w.d.EnterRescue(w.ctx, "321", restart())
		w.sure(t, r, err)
		if n := w.count(http.MethodPost + " /boot/321/rescue authorized_key[]=" + mustMD5(fleetKey) + "&os=linux"); n != 1 {
			t.Errorf("calls %q", w.calls)
		}
		for _, c := range w.calls {
			if strings.Contains(c, "secret-password") || strings.Contains(c, "ws-user") {
				t.Errorf("the login is in %s", c)
			}
		}
	})
}
