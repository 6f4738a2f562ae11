package edge

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

const shortStall = 100 * time.Millisecond

// TestSilentStreamsLive has streams that say nothing for longer than a stalled client would be given.
func TestSilentStreamsLive(t *testing.T) {
	f := newFace(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/event-stream")
		for _, event := range []string{"one", "two"} {
			fmt.Fprintf(w, "data: %s\n", event)
			w.(http.Flusher).Flush()
			select {
			case <-time.After(4 * shortStall):
			case <-r.Context().Done():
				return
			}
		}
		fmt.Fprint(w, "data: end\n")
	}), wide)
	f.stall = shortStall
	for _, h2 := range []bool{false, true} {
		for _, body := range []string{"", "posted"} {
			t.Run(fmt.Sprintf("h2=%v/body=%q", h2, body), func(t *testing.T) {
				client := f.client(t, h2)
				for range 2 { // the second one on the kept connection
					res, err := client.Post(f.url, "text/plain", strings.NewReader(body))
					if got := read(t, res, err); got != "data: one\ndata: two\ndata: end\n" {
						t.Errorf("%q", got)
					}
				}
			})
		}
	}
}

// TestIdleConnectionIsUsedAgain holds a kept connection for longer than the stall, then posts with Expect, which makes
// the server write before any handler does.
func TestIdleConnectionIsUsedAgain(t *testing.T) {
	f := newFace(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }), wide)
	f.stall = shortStall
	for _, h2 := range []bool{false, true} {
		client := f.client(t, h2)
		client.Transport.(*http.Transport).ExpectContinueTimeout = patience
		for range 2 {
			req, _ := http.NewRequest("POST", f.url, strings.NewReader("hello"))
			req.Header.Set("Expect", "100-continue")
			res, err := client.Do(req)
			if got := read(t, res, err); got != "hello" {
				t.Errorf("h2=%v: %q", h2, got)
			}
			<-time.After(3 * shortStall)
		}
	}
}

// TestStalledUploadIsCut has a client that stops in the middle of its body.
func TestStalledUploadIsCut(t *testing.T) {
	ended := make(chan error, 1)
	f := newFace(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		ended <- err
	}), wide)
	f.stall = shortStall
	for _, h2 := range []bool{false, true} {
		r, w := io.Pipe()
		go func() { fmt.Fprint(w, "the first half") }()
		res, err := f.client(t, h2).Post(f.url, "text/plain", r)
		if err == nil {
			res.Body.Close()
		}
		w.Close()
		if err == nil && res.StatusCode != http.StatusBadRequest && res.StatusCode != http.StatusRequestTimeout {
			t.Errorf("h2=%v: %s", h2, res.Status)
		}
		select {
		case err := <-ended:
			if err == nil {
				t.Errorf("h2=%v: the application took half a body for a whole one", h2)
			}
		case <-time.After(patience):
			t.Fatalf("h2=%v: the application still waits", h2)
		}
	}
}

// TestClientThatDoesNotReadIsCut has an answer without end and a client that takes nothing of it.
func TestClientThatDoesNotReadIsCut(t *testing.T) {
	ended := make(chan struct{}, 1)
	f := newFace(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for piece := make([]byte, 64<<10); r.Context().Err() == nil; {
			if _, err := w.Write(piece); err != nil {
				break
			}
		}
		ended <- struct{}{}
	}), wide)
	f.stall = shortStall
	for _, h2 := range []bool{false, true} {
		res, err := f.client(t, h2).Get(f.url)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = bufio.NewReader(res.Body).Peek(1)
		select {
		case <-ended:
		case <-time.After(patience):
			t.Errorf("h2=%v: still writing", h2)
		}
		res.Body.Close()
	}
}

// TestRequestsAreNotSmuggled sends a request with two framings; the application must see one request or none.
func TestRequestsAreNotSmuggled(t *testing.T) {
	seen := make(chan string, 8)
	origin := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen <- r.URL.Path }))
	defer origin.Close()
	u, _ := url.Parse(origin.URL)
	e := New(Config{App: u, Limits: wide, Log: quiet()})
	defer e.Close()
	front := httptest.NewServer(e)
	defer front.Close()
	for _, head := range []string{
		"Content-Length: 4\r\nTransfer-Encoding: chunked", "Content-Length: 4\r\nContent-Length: 5", "Transfer-Encoding: xchunked",
		"Transfer-Encoding : chunked", "Content-Length: +4", "X: a\x00b",
	} {
		c, err := dialPlain(front.URL)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "POST /outer HTTP/1.1\r\nHost: demo.test\r\nConnection: close\r\n%s\r\n\r\n0\r\n\r\nGET /inner HTTP/1.1\r\nHost: demo.test\r\n\r\n", head)
		_, _ = io.Copy(io.Discard, c)
		c.Close()
		for empty := false; !empty; {
			select {
			case path := <-seen:
				if path != "/outer" {
					t.Errorf("%q: the application saw %s", head, path)
				}
			default:
				empty = true
			}
		}
	}
}
