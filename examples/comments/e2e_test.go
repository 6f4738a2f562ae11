//go:build e2e

package comments

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"popfleet/examples/comments/board"
	"popfleet/examples/comments/database"
	"popfleet/internal/mtls"
	"popfleet/internal/mtls/mtlstest"
)

// TestOnARealStore runs the application on a node's own store and replicator; the first build of the store takes
// minutes.
func TestOnARealStore(t *testing.T) {
	bin := build(t)
	for name, test := range map[string]func(*testing.T, *node){
		"write, vote, moderate, all live": testEverything,
		"the store is killed":             testStoreRestart,
		"no vote is lost":                 testNoVoteIsLost,
		"the database's contract":         testDatabaseContract,
		"a person with a browser":         testBrowser,
	} {
		t.Run(name, func(t *testing.T) { test(t, newNode(t, bin)) })
	}
}

// build makes what a node runs beneath the application.
func build(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, in := range map[string]string{"fleet-replicator": "../../cmd/fleet-replicator", "fleet-store": "../../cmd/fleet-store"} {
		cmd := exec.Command("go", "build", "-o", filepath.Join(dir, name), ".")
		cmd.Dir = in
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", name, err, out)
		}
	}
	return dir
}

// daemon is one of the node's processes.
type daemon struct {
	t            *testing.T
	path, config string
	cmd          *exec.Cmd
}

func (d *daemon) start() {
	d.t.Helper()
	d.cmd = exec.Command(d.path, "--config", d.config)
	d.cmd.Stderr = d.t.Output()
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
}

// end stops the process with the signal and waits for it.
func (d *daemon) end(s os.Signal) {
	if d.cmd == nil {
		return
	}
	_ = d.cmd.Process.Signal(s) // it may be gone already
	_ = d.cmd.Wait()            // what it says at its end is in its log
	d.cmd = nil
}

// node is the data side of a node: a store, and a replicator in front of it.
type node struct {
	store, replicator *daemon
	mongo             string
}

func newNode(t *testing.T, bin string) *node {
	t.Helper()
	dir := t.TempDir()
	storeAddr, appAddr := freeAddress(t), freeAddress(t)
	tls := mtlstest.New(t).Files(mtls.Name{Fleet: "demo", Service: "replicator", Node: "fsn-1"})
	run := func(name string, config map[string]any) *daemon {
		config["control"] = filepath.Join(dir, name+".sock")
		data, err := json.Marshal(config)
		if err != nil {
			t.Fatal(err)
		}
		d := &daemon{t: t, path: filepath.Join(bin, name), config: write(t, name+".json", string(data))}
		d.start()
		t.Cleanup(func() { d.end(syscall.SIGTERM) })
		return d
	}
	n := &node{mongo: "mongodb://" + appAddr}
	n.store = run("fleet-store", map[string]any{"listen": storeAddr, "dir": filepath.Join(dir, "data")})
	n.replicator = run("fleet-replicator", map[string]any{"fleet": "demo", "node": "fsn-1", "listen": appAddr,
		"store": "mongodb://" + storeAddr, "peer_listen": "127.0.0.1:0", "peers": []any{}, "tls": tls})
	return n
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

const e2eToken = "the moderator of the test"

// app starts an application on the node and waits until it is well.
func (n *node) app(t *testing.T, name string) (base string) {
	t.Helper()
	c := testConfig(t, n.mongo)
	c.Node, c.token = name, e2eToken
	base, _ = start(t, c)
	healthy(t, base, true)
	return base
}

func healthy(t *testing.T, base string, want bool) {
	t.Helper()
	eventually(t, fmt.Sprintf("/healthz says %t", want), func() bool {
		code, _ := get(t, base+"/healthz")
		return (code == 200) == want
	})
}

func ask[T any](t *testing.T, method, url, body string) (v T) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+e2eToken)
	res, err := browser.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode >= 300 {
		t.Fatalf("%s %s: %s", method, url, res.Status)
	}
	if err := json.NewDecoder(res.Body).Decode(&v); err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	return v
}

// follow opens a stream and hands over its data lines, the hello first.
func follow(t *testing.T, url string) <-chan string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	lines := make(chan string, 100)
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(lines)
		for in := bufio.NewScanner(res.Body); in.Scan(); {
			if data, ok := strings.CutPrefix(in.Text(), "data: "); ok {
				lines <- data
			}
		}
	})
	t.Cleanup(func() { res.Body.Close(); wg.Wait() })
	return lines
}

func receive(t *testing.T, from <-chan string, what string) string {
	t.Helper()
	select {
	case line, open := <-from:
		if !open {
			t.Fatalf("the stream ended before %s", what)
		}
		return line
	case <-time.After(30 * time.Second):
		t.Fatalf("nothing came: %s", what)
	}
	return ""
}

func testEverything(t *testing.T, n *node) {
	here, there := n.app(t, "fsn-1"), n.app(t, "fsn-2") // two applications: what one writes, the other must find
	th := ask[board.Thread](t, "POST", here+"/api/threads", `{"title":"Lunch?","author":"ann"}`)
	own, other := follow(t, here+"/api/threads/"+th.ID+"/events"), follow(t, there+"/api/threads/"+th.ID+"/events")
	receive(t, own, "hello")
	receive(t, other, "hello")

	began := time.Now()
	c := ask[board.Comment](t, "POST", here+"/api/threads/"+th.ID+"/comments", `{"text":"soup","author":"bob"}`)
	t.Logf("post: %s", time.Since(began).Round(time.Millisecond))
	for where, stream := range map[string]<-chan string{"fsn-1": own, "fsn-2": other} {
		if e := receive(t, stream, "the comment"); !strings.Contains(e, c.ID) {
			t.Errorf("%s tells %s", where, e)
		}
		t.Logf("post told on %s after %s", where, time.Since(began).Round(time.Millisecond))
	}
	voted := ask[board.Comment](t, "POST", there+"/api/comments/"+c.ID+"/votes", `{"delta":1}`)
	if voted.Votes != 1 || !strings.Contains(receive(t, own, "the vote"), `"votes":1`) {
		t.Errorf("voted: %+v", voted)
	}
	receive(t, other, "the vote")
	ask[board.Comment](t, "PUT", here+"/api/comments/"+c.ID+"/hidden", `{"hidden":true}`)
	for _, stream := range []<-chan string{own, other} {
		if e := receive(t, stream, "the hiding"); strings.Contains(e, "soup") || !strings.Contains(e, `"hidden":true`) {
			t.Errorf("hidden: %s", e)
		}
	}
	if _, list := get(t, there+"/api/threads/"+th.ID+"/comments"); strings.Contains(list, "soup") {
		t.Errorf("everyone reads %s", list)
	}
}

func testStoreRestart(t *testing.T, n *node) {
	base := n.app(t, "fsn-1")
	th := ask[board.Thread](t, "POST", base+"/api/threads", `{"title":"kept"}`)
	n.store.end(syscall.SIGKILL)
	healthy(t, base, false)
	if code, body := get(t, base+"/api/threads"); code != http.StatusServiceUnavailable {
		t.Errorf("without a store: %d %s", code, body)
	}
	began := time.Now()
	n.store.start()
	healthy(t, base, true)
	t.Logf("well %s after the store was started", time.Since(began).Round(time.Millisecond))
	if got := ask[board.Thread](t, "GET", base+"/api/threads/"+th.ID, ""); got != th {
		t.Errorf("got %+v, want %+v", got, th)
	}
}

func openDatabase(t *testing.T, n *node) *database.DB {
	t.Helper()
	db, err := database.Open(n.mongo, "comments")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := db.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	eventually(t, "indexes are there", func() bool { return db.Prepare(t.Context()) == nil })
	if err := db.Prepare(t.Context()); err != nil {
		t.Fatalf("a second time: %v", err)
	}
	return db
}

func testNoVoteIsLost(t *testing.T, n *node) {
	db := openDatabase(t, n)
	c, err := board.CommentInput{Text: "x"}.Comment("thread", "fsn-1", board.NewID("", ""), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.AddComment(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	const voters, each = 8, 25
	var wg sync.WaitGroup
	began := time.Now()
	for range voters {
		wg.Go(func() {
			for range each {
				if _, err := db.Vote(t.Context(), c.ID, 1); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d votes in %s", voters*each, time.Since(began).Round(time.Millisecond))
	if got, err := db.Vote(t.Context(), c.ID, -1); err != nil || got.Votes != voters*each-1 || got.Revision != voters*each+2 {
		t.Errorf("%d votes, revision %d, %v; want %d", got.Votes, got.Revision, err, voters*each-1)
	}
}

func testDatabaseContract(t *testing.T, n *node) {
	db := openDatabase(t, n)
	ctx, at := t.Context(), time.Now()
	add := func(thread, id string, at time.Time) (board.Comment, error) {
		c, err := board.CommentInput{Text: "x"}.Comment(thread, "fsn-1", id, at)
		if err != nil {
			t.Fatal(err)
		}
		return db.AddComment(ctx, c)
	}
	for i := range 12 { // in pairs of one time, which only the name tells apart
		if _, err := add("a", board.NewID("", ""), at.Add(time.Duration(i/2)*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := add("b", board.NewID("", ""), at); err != nil {
		t.Fatal(err)
	}
	seen, from := map[string]bool{}, board.Cursor{}
	for {
		page, err := db.Comments(ctx, "a", from, 5)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		for _, c := range page {
			if seen[c.ID] || c.Thread != "a" || from.ID != "" && c.CreatedAt.After(from.At) {
				t.Errorf("out of order: %+v", c)
			}
			seen[c.ID], from = true, board.Cursor{At: c.CreatedAt, ID: c.ID}
		}
	}
	if len(seen) != 12 {
		t.Errorf("paging saw %d of 12", len(seen))
	}
	id := board.NewID("a", "key")
	first, err1 := add("a", id, at)
	second, err2 := add("a", id, at.Add(time.Hour))
	if err := errors.Join(err1, err2); err != nil || first != second {
		t.Errorf("twice the same: %+v, %+v, %v", first, second, err)
	}
	if _, err := db.AddComment(ctx, board.Comment{ID: id, Thread: "a", Text: "other"}); !errors.Is(err, board.ErrConflict) {
		t.Errorf("other words under the same key: %v", err)
	}
	if _, err := db.Vote(ctx, board.NewID("", ""), 1); !errors.Is(err, board.ErrNotFound) {
		t.Errorf("a vote for nothing: %v", err)
	}
	if changed, err := db.ChangedComments(ctx, "a", time.Now().Add(time.Hour), 10); err != nil || len(changed) != 0 {
		t.Errorf("changed in the future: %v, %v", changed, err)
	}
}
