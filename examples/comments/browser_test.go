//go:build e2e

package comments

import (
	"context"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"popfleet/examples/comments/board"
)

// tab opens a browser's tab; whatever the page complains about fails the test.
func tab(t *testing.T) context.Context {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("no chromium on PATH: Debian's package chromium brings it")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU)
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, 2*time.Minute)
	t.Cleanup(cancel)
	chromedp.ListenTarget(ctx, func(event any) {
		switch e := event.(type) {
		case *log.EventEntryAdded:
			t.Errorf("the browser says: %s %s", e.Entry.Text, e.Entry.URL)
		case *runtime.EventExceptionThrown:
			t.Errorf("the script threw: %s", e.ExceptionDetails.Error())
		}
	})
	act(t, ctx, log.Enable(), runtime.Enable())
	return ctx
}

func act(t *testing.T, ctx context.Context, actions ...chromedp.Action) {
	t.Helper()
	if err := chromedp.Run(ctx, actions...); err != nil {
		t.Fatal(err)
	}
}

// shows waits until an expression of the page's script holds.
func shows(expression string) chromedp.Action {
	return chromedp.Poll(expression, nil, chromedp.WithPollingTimeout(time.Minute))
}

func testBrowser(t *testing.T, n *node) {
	base := n.app(t, "fsn-1")
	page := tab(t)
	const evil = `<img src=x onerror="document.title='owned'">`
	const comments = `[...document.querySelectorAll("#comments > li")]`

	act(t, page, chromedp.Navigate(base+"/"),
		chromedp.WaitVisible("#no-threads"),
		chromedp.SendKeys("#title", "Where to eat?"), chromedp.SendKeys("#thread-author", "ann\r"), // by keyboard alone
		chromedp.WaitVisible("#text"),
		shows(`document.getElementById("live").textContent.includes("Live from fsn-1")`),
		chromedp.SendKeys("#text", evil), chromedp.Click("#new-comment button"),
		shows(comments+`.some(li => li.querySelector(".body").textContent.startsWith("<img"))`),
		shows(`document.getElementById("announce").textContent === "Your comment is posted."`),
		chromedp.Click(`#comments button[data-act=up]`),
		shows(comments+`[0].querySelector("output").textContent === "1"`))
	var title, node string
	act(t, page, chromedp.Title(&title), chromedp.Text("#node", &node))
	if !strings.HasPrefix(title, "Where to eat?") || node != "fsn-1" {
		t.Errorf("title %q, node %q", title, node)
	}

	// Somebody else writes, elsewhere; the page shows it without being asked.
	var address string
	act(t, page, chromedp.Location(&address))
	there := n.app(t, "fsn-2")
	thread := address[strings.LastIndex(address, "/")+1:]
	began := time.Now()
	c := ask[board.Comment](t, "POST", there+"/api/threads/"+thread+"/comments", `{"text":"at Bob's","author":"bob"}`)
	act(t, page, shows(comments+`[0].querySelector(".body").textContent === "at Bob's"`),
		shows(`document.getElementById("announce").textContent === "A new comment by bob."`))
	t.Logf("a comment of another node is on the page after %s", time.Since(began).Round(time.Millisecond))

	// The moderator, on the page.
	act(t, page, chromedp.Click("#moderation summary"), chromedp.SendKeys("#token", e2eToken+"\r"),
		chromedp.WaitVisible(`#comments button[data-act=hide]`),
		shows(comments+`.length === 2`), chromedp.Click(`#comments li:first-child button[data-act=hide]`),
		shows(`document.getElementById("announce").textContent === "The comment is hidden."`))
	if _, list := get(t, there+"/api/threads/"+thread+"/comments"); strings.Contains(list, "Bob's") || !strings.Contains(list, c.ID) {
		t.Errorf("everyone reads %s", list)
	}
}
