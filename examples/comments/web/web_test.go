package web

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"popfleet/examples/comments/board"
	"popfleet/examples/comments/live"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const token = "a moderator's token"

// site is a server over a store in memory, asked without a network.
type site struct {
	t       testing.TB
	store   *memory
	hub     *live.Hub
	handler http.Handler
	health  error
}

func newSite(t testing.TB) *site {
	t.Helper()
	s := &site{t: t, store: newMemory()}
	log := slog.New(slog.DiscardHandler)
	s.hub = live.New(s.store.look, 10, log)
	l := DefaultLimits()
	l.WriteBurst, l.WritesPerSecond = 1000, 1000
	server, err := New(s.store, s.hub, Options{Node: "fsn-1", Version: "v1", ModeratorToken: token, Limits: l,
		Health: func() error { return s.health }, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	s.handler = server.Handler()
	return s
}

// ask sends one request; header lines are "Name: value".
func (s *site) ask(method, path, body string, header ...string) *httptest.ResponseRecorder {
	s.t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, h := range header {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	return w
}

// must asks, expects a status and decodes the answer.
func must[T any](s *site, code int, method, path, body string, header ...string) (v T) {
	s.t.Helper()
	w := s.ask(method, path, body, header...)
	if w.Code != code {
		s.t.Fatalf("%s %s: %d %s; want %d", method, path, w.Code, w.Body, code)
	}
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
		s.t.Fatalf("%s %s: %v in %s", method, path, err, w.Body)
	}
	return v
}

func (s *site) thread(title string) board.Thread {
	s.t.Helper()
	return must[board.Thread](s, http.StatusCreated, "POST", "/api/threads", fmt.Sprintf(`{"title":%q}`, title))
}

func (s *site) comment(thread, body string) board.Comment {
	s.t.Helper()
	return must[board.Comment](s, http.StatusCreated, "POST", "/api/threads/"+thread+"/comments", fmt.Sprintf(`{"text":%q,"author":"ann"}`, body))
}

const asModerator = "Authorization: Bearer " + token

func TestWriteReadVote(t *testing.T) {
	s := newSite(t)
	th := s.thread("Lunch?")
	if got := must[board.Thread](s, 200, "GET", "/api/threads/"+th.ID, ""); got != th {
		t.Fatalf("got %+v, want %+v", got, th)
	}
	c := s.comment(th.ID, "<b>yes</b>")
	voted := must[board.Comment](s, 200, "POST", "/api/comments/"+c.ID+"/votes", `{"delta":1}`)
	if voted.Votes != 1 || voted.Revision != 2 || voted.Text != "<b>yes</b>" || voted.Node != "fsn-1" {
		t.Fatalf("got %+v", voted)
	}
	list := must[commentPage](s, 200, "GET", "/api/threads/"+th.ID+"/comments", "")
	if len(list.Comments) != 1 || list.Comments[0] != voted || list.Next != "" {
		t.Fatalf("got %+v", list)
	}
	if w := s.ask("GET", "/api/threads/"+th.ID+"/comments", ""); strings.Contains(w.Body.String(), "<b>") {
		t.Fatalf("markup is not escaped in %s", w.Body)
	}
}

func TestPagingSeesEachOnce(t *testing.T) {
	s := newSite(t)
	th := s.thread("long")
	for i := range 23 {
		s.comment(th.ID, fmt.Sprint("comment ", i))
	}
	seen, before := map[string]bool{}, ""
	for range 30 {
		p := must[commentPage](s, 200, "GET", "/api/threads/"+th.ID+"/comments?limit=5&before="+before, "")
		for _, c := range p.Comments {
			if seen[c.ID] {
				t.Fatalf("%s came twice", c.ID)
			}
			seen[c.ID] = true
		}
		if before = p.Next; before == "" {
			break
		}
	}
	if len(seen) != 23 || before != "" {
		t.Fatalf("saw %d of 23, next %q", len(seen), before)
	}
	for range 3 {
		s.thread("more")
	}
	if p := must[threadPage](s, 200, "GET", "/api/threads?limit=4", ""); len(p.Threads) != 4 || p.Next != "" {
		t.Fatalf("a page that holds all: %d threads, next %q", len(p.Threads), p.Next)
	}
}

func TestARequestSentTwiceIsOneComment(t *testing.T) {
	s := newSite(t)
	th := s.thread("twice")
	path, key := "/api/threads/"+th.ID+"/comments", "Idempotency-Key: 7f"
	a := must[board.Comment](s, 201, "POST", path, `{"text":"hi"}`, key)
	b := must[board.Comment](s, 201, "POST", path, `{"text":"hi"}`, key)
	if a != b || len(s.store.comments) != 1 {
		t.Fatalf("%+v and %+v, %d kept", a, b, len(s.store.comments))
	}
	must[failure](s, http.StatusConflict, "POST", path, `{"text":"other"}`, key)
	must[failure](s, http.StatusBadRequest, "POST", path, `{"text":"hi"}`, "Idempotency-Key: with space")
}

func TestModeration(t *testing.T) {
	s := newSite(t)
	th := s.thread("rude title")
	c := s.comment(th.ID, "rude words")
	hide := func(path, word string, header ...string) int {
		return s.ask("PUT", path+"/hidden", `{"hidden":`+word+`}`, header...).Code
	}
	for _, header := range []string{"Authorization: Bearer wrong", "Authorization: " + token, "Authorization: Bearer ", "X: y"} {
		if code := hide("/api/comments/"+c.ID, "true", header); code != http.StatusUnauthorized {
			t.Errorf("%s: %d", header, code)
		}
	}
	if code := hide("/api/comments/"+c.ID, "true", asModerator); code != 200 {
		t.Fatal(code)
	}
	list := "/api/threads/" + th.ID + "/comments"
	if got := must[commentPage](s, 200, "GET", list, "").Comments[0]; got.Text != "" || got.Author != "" || !got.Hidden {
		t.Fatalf("everyone sees %+v", got)
	}
	if got := must[commentPage](s, 200, "GET", list, "", asModerator).Comments[0]; got.Text != "rude words" {
		t.Fatalf("a moderator sees %+v", got)
	}
	if w := s.ask("POST", "/api/comments/"+c.ID+"/votes", `{"delta":1}`); strings.Contains(w.Body.String(), "rude") {
		t.Fatalf("a vote shows hidden words: %s", w.Body)
	}
	if code := hide("/api/threads/"+th.ID, "true", asModerator); code != 200 {
		t.Fatal(code)
	}
	for _, path := range []string{"/api/threads/" + th.ID, list, "/api/threads/" + th.ID + "/events"} {
		must[failure](s, http.StatusNotFound, "GET", path, "")
	}
	must[failure](s, http.StatusNotFound, "POST", list, `{"text":"still here"}`)
	if n := len(must[threadPage](s, 200, "GET", "/api/threads", "").Threads); n != 0 {
		t.Fatalf("%d hidden threads are listed", n)
	}
	if code := hide("/api/threads/"+th.ID, "false", asModerator); code != 200 {
		t.Fatal(code)
	}
	must[board.Thread](s, 200, "GET", "/api/threads/"+th.ID, "")
}

func TestWithoutATokenNobodyModerates(t *testing.T) {
	s := newSite(t)
	server, err := New(s.store, s.hub, Options{Node: "n", Limits: DefaultLimits(), Health: func() error { return nil }, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	c := s.comment(s.thread("t").ID, "x")
	s.handler = server.Handler()
	must[failure](s, http.StatusUnauthorized, "PUT", "/api/comments/"+c.ID+"/hidden", `{"hidden":true}`, "Authorization: Bearer ")
}

func TestRefusals(t *testing.T) {
	s := newSite(t)
	th := s.thread("t")
	c := s.comment(th.ID, "x")
	comments, votes, nobody := "/api/threads/"+th.ID+"/comments", "/api/comments/"+c.ID+"/votes", strings.Repeat("a", 26)
	for _, x := range []struct {
		method, path, body string
		header             string
		code               int
		says               string
	}{
		{"POST", comments, `{"text":""}`, "", 422, "text: expected some text"},
		{"POST", comments, `{"text":"x","admin":true}`, "", 400, `unknown field`},
		{"POST", comments, `{"text":"x"}{}`, "", 400, "more than one value"},
		{"POST", comments, `{"text":`, "", 400, "not the JSON expected"},
		{"POST", comments, `{"text":"` + strings.Repeat("x", board.MaxInputBytes) + `"}`, "", 400, "larger than"},
		{"POST", comments, `body=x`, "Content-Type: application/x-www-form-urlencoded", 415, "application/json"},
		{"POST", comments, `{"text":"x"}`, "Content-Type: text/plain", 415, "application/json"},
		{"POST", comments, `{"text":"x"}`, "Sec-Fetch-Site: cross-site", 403, "other sites"},
		{"POST", comments, `{"text":"x"}`, "Origin: https://evil.test", 403, "other sites"},
		{"POST", comments, `{"text":"x"}`, "Origin: http://example.com", 201, ""}, // httptest's own host
		{"POST", comments, `{"text":"x"}`, "Sec-Fetch-Site: same-origin", 201, ""},
		{"POST", "/api/threads/" + nobody + "/comments", `{"text":"x"}`, "", 404, "not found"},
		{"POST", "/api/threads/x/comments", `{"text":"x"}`, "", 404, "not found"},
		{"POST", "/api/comments/" + nobody + "/votes", `{"delta":1}`, "", 404, "not found"},
		{"POST", votes, `{"delta":2}`, "", 422, "delta: expected 1 or -1"},
		{"POST", votes, `{"delta":1.5}`, "", 400, "not the JSON expected"},
		{"PUT", "/api/comments/" + c.ID + "/hidden", `{}`, asModerator, 422, "hidden: expected true or false"},
		{"GET", comments + "?before=x", "", "", 400, "cursor"},
		{"GET", comments + "?limit=0", "", "", 400, "limit"},
		{"GET", "/api/nothing", "", "", 404, "not found"},
	} {
		t.Run(fmt.Sprintf("%s %.40s %.30s %s", x.method, x.path, x.body, x.header), func(t *testing.T) {
			w := s.ask(x.method, x.path, x.body, x.header)
			var f failure
			if err := json.Unmarshal(w.Body.Bytes(), &f); err != nil {
				t.Fatalf("%d: %v", w.Code, err)
			}
			said := f.Error + " " + f.Problems.Error()
			if w.Code != x.code || x.says != "" && !strings.Contains(said, x.says) {
				t.Fatalf("%d %q; want %d %q", w.Code, said, x.code, x.says)
			}
		})
	}
}

func TestAStoreThatIsAwayIsSaidSo(t *testing.T) {
	s := newSite(t)
	s.store.fail(errAway)
	for _, path := range []string{"/api/threads", "/api/threads/" + strings.Repeat("a", 26), "/api/events"} {
		w := s.ask("GET", path, "")
		if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" || strings.Contains(w.Body.String(), "127.0.0.1") {
			t.Errorf("%s: %d %v %s", path, w.Code, w.Header(), w.Body)
		}
	}
	if w := s.ask("GET", "/", ""); w.Code != 200 {
		t.Errorf("the page itself: %d", w.Code)
	}
}

func TestHealthz(t *testing.T) {
	s := newSite(t)
	if h := must[health](s, 200, "GET", "/healthz", ""); !h.OK || h.Node != "fsn-1" {
		t.Fatalf("got %+v", h)
	}
	s.health = errors.New("draining")
	if h := must[health](s, 503, "GET", "/healthz", ""); h.OK || h.Reason != "draining" {
		t.Fatalf("got %+v", h)
	}
}

func TestThePageAndWhatItLoads(t *testing.T) {
	s := newSite(t)
	page := s.ask("GET", "/threads/"+strings.Repeat("a", 26), "")
	html := page.Body.String()
	if page.Code != 200 || !strings.Contains(html, ">fsn-1<") || page.Header().Get("X-Fleet-Node") != "fsn-1" {
		t.Fatalf("%d %v %s", page.Code, page.Header(), html)
	}
	if p := page.Header().Get("Content-Security-Policy"); !strings.HasPrefix(p, "default-src 'self';") || strings.Contains(p, "unsafe") {
		t.Fatalf("policy %q", p)
	}
	if m := regexp.MustCompile(`(?i)\son\w+=|style=|<script>|<style|https?:`).FindString(html); m != "" {
		t.Errorf("%q would not pass the policy", m)
	}
	loads := regexp.MustCompile(`(?:src|href)="(/assets/[^"]+)"`).FindAllStringSubmatch(html, -1)
	if len(loads) != 3 {
		t.Fatalf("the page loads %v", loads)
	}
	for _, l := range loads {
		if w := s.ask("GET", l[1], ""); w.Code != 200 || !strings.Contains(w.Header().Get("Cache-Control"), "immutable") {
			t.Errorf("%s: %d %v", l[1], w.Code, w.Header())
		}
	}
	if w := s.ask("GET", "/assets/app.js?v=older", ""); w.Header().Get("Cache-Control") != "no-cache" {
		t.Errorf("an other release's script may be cached: %v", w.Header())
	}
	if w := s.ask("GET", "/assets/index.html", ""); w.Code != 404 {
		t.Errorf("the template itself: %d", w.Code)
	}
}

func TestEveryFieldHasALabel(t *testing.T) {
	html := newSite(t).ask("GET", "/", "").Body.String()
	fields := regexp.MustCompile(`<(?:input|textarea) id="([^"]+)"`).FindAllStringSubmatch(html, -1)
	for _, f := range fields {
		if !strings.Contains(html, `<label for="`+f[1]+`"`) {
			t.Errorf("#%s has no label", f[1])
		}
	}
	if len(fields) != 5 || !strings.Contains(html, `aria-live="polite"`) {
		t.Errorf("%d fields; is this the page?", len(fields))
	}
}

// stream is an open event stream of a real server.
type stream struct {
	t    *testing.T
	body io.ReadCloser
	in   *bufio.Scanner
}

func open(t *testing.T, server *httptest.Server, path string) *stream {
	t.Helper()
	c := http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := c.Get(server.URL + path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	if res.StatusCode != 200 || res.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("GET %s: %s %v", path, res.Status, res.Header)
	}
	return &stream{t, res.Body, bufio.NewScanner(res.Body)}
}

// next returns the next event's fields.
func (s *stream) next() map[string]string {
	s.t.Helper()
	fields := map[string]string{}
	for s.in.Scan() {
		if s.in.Text() == "" {
			return fields
		}
		name, value, _ := strings.Cut(s.in.Text(), ": ")
		fields[name] = value
	}
	s.t.Fatalf("the stream ended: %v", s.in.Err())
	return nil
}

func TestEventsAndDrain(t *testing.T) {
	s := newSite(t)
	server := httptest.NewServer(s.handler)
	defer server.Close()
	th := s.thread("live")
	of := open(t, server, "/api/threads/"+th.ID+"/events")
	list := open(t, server, "/api/events")
	for _, e := range []*stream{of, list} {
		if hello := e.next(); hello["event"] != "hello" || hello["retry"] != "1000" || !strings.Contains(hello["data"], "fsn-1") {
			t.Fatalf("first event: %v", hello)
		}
	}
	c := s.comment(th.ID, "two\nlines")
	var got board.Comment
	if e := of.next(); e["event"] != "comment" || json.Unmarshal([]byte(e["data"]), &got) != nil || got != c {
		t.Fatalf("got %v, want %+v", e, c)
	}
	if e := list.next(); e["event"] != "thread" || !strings.Contains(e["data"], th.ID) {
		t.Fatalf("got %v", e)
	}
	must[board.Comment](s, 200, "PUT", "/api/comments/"+c.ID+"/hidden", `{"hidden":true}`, asModerator)
	if e := of.next(); strings.Contains(e["data"], "two") || !strings.Contains(e["data"], `"hidden":true`) {
		t.Fatalf("a hidden comment is told as %v", e)
	}
	s.hub.Drain()
	for _, e := range []*stream{of, list} {
		if bye := e.next(); bye["event"] != "bye" || bye["retry"] != "1000" {
			t.Fatalf("last event: %v", bye)
		}
		if e.in.Scan() {
			t.Fatalf("after the end: %q", e.in.Text())
		}
	}
	if w := s.ask("GET", "/api/events", ""); w.Code != 503 || w.Header().Get("Retry-After") == "" {
		t.Fatalf("a new stream while draining: %d", w.Code)
	}
}

// FuzzAPI sends any body and any cursor: an answer is JSON and never the server's fault.
func FuzzAPI(f *testing.F) {
	f.Add("POST", 0, `{"text":"x"}`, "k")
	f.Add("PUT", 3, `{"hidden":null}`, "")
	f.Add("GET", 0, "", "1-a")
	f.Fuzz(func(t *testing.T, method string, path int, body, word string) {
		if method != "GET" && method != "POST" && method != "PUT" {
			return
		}
		s := newSite(t)
		th := s.thread("t")
		c := s.comment(th.ID, "x")
		paths := []string{"/api/threads/" + th.ID + "/comments", "/api/threads", "/api/comments/" + c.ID + "/votes", "/api/comments/" + c.ID + "/hidden"}
		r := httptest.NewRequest(method, paths[uint(path)%uint(len(paths))], strings.NewReader(body))
		r.URL.RawQuery = "before=" + word
		r.Header = http.Header{"Content-Type": {"application/json"}, IdempotencyKey: {word}, "Authorization": {"Bearer " + token}, "X-Forwarded-For": {word}}
		w := httptest.NewRecorder()
		s.handler.ServeHTTP(w, r)
		if w.Code >= 500 || w.Code != http.StatusMethodNotAllowed && !json.Valid(w.Body.Bytes()) {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
	})
}

// The server's write timeout runs from the request on and would end every stream; each event has its own instead.
func TestAStreamOutlivesTheWriteTimeout(t *testing.T) {
	s := newSite(t)
	server := httptest.NewUnstartedServer(s.handler)
	const timeout = 100 * time.Millisecond
	server.Config.WriteTimeout = timeout
	server.Start()
	defer server.Close()
	th := s.thread("long")
	of := open(t, server, "/api/threads/"+th.ID+"/events")
	of.next()
	<-time.After(3 * timeout) // silence is what is tested
	c := s.comment(th.ID, "still there?")
	if e := of.next(); !strings.Contains(e["data"], c.ID) {
		t.Fatalf("got %v", e)
	}
	s.hub.Drain()
}
