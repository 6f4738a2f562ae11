package hetznerrobot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"popfleet/provision/provider"
)

// maxAnswer bounds an answer: a thousand servers are well under a megabyte.
const maxAnswer = 8 << 20

var errMalformed = errors.New("malformed answer")

// request is one call to Robot.
type request struct {
	class  class
	method string
	path   string     // escaped
	form   url.Values // nil: no body
	about  string     // what the answer has to speak of: a server number, an address
}

// checked is an answer that knows what it speaks of. One that speaks of nothing, or of something else, is not believed:
// a start time that is missing would otherwise make an old rescue system look like a new one.
type checked interface{ speaksOf(about string) bool }

// client sends requests, one try each, and stops for good when the login is refused.
type client struct {
	http     http.Client
	base     string
	user     Secret
	password Secret

	first chan struct{} // holds a token while no call has shown that the login is good: then calls go one by one

	mu      sync.Mutex
	proven  bool
	refused error // set once, never cleared
}

func newClient(o Options) *client {
	return &client{base: strings.TrimRight(o.Endpoint, "/"), user: o.User, password: o.Password,
		first: make(chan struct{}, 1),
		http: http.Client{Transport: o.Transport, CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse // the password goes nowhere else
		}}}
}

// do sends r once and reads the answer into out, which may be nil.
func (c *client) do(ctx context.Context, r request, out any) error {
	release, err := c.enter(ctx)
	if err != nil {
		return err
	}
	defer release()
	status, body, err := c.send(ctx, r)
	if err != nil {
		return err
	}
	if status/100 != 2 {
		return c.refuse(r, parseRefusal(status, body))
	}
	c.mu.Lock()
	c.proven = true
	c.mu.Unlock()
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(body, out); err != nil {
		return fmt.Errorf("%w of %s %s: %w", errMalformed, r.method, r.path, err)
	}
	if a, ok := out.(checked); ok && !a.speaksOf(r.about) {
		return fmt.Errorf("%w of %s %s: it does not speak of %s", errMalformed, r.method, r.path, r.about)
	}
	return nil
}

// enter lets calls through one by one until the first has shown that the login is good: twenty nodes that start at once
// with a wrong password would otherwise block the operator's address with one blow.
func (c *client) enter(ctx context.Context) (release func(), err error) {
	if proven, err := c.state(); err != nil || proven {
		return func() {}, err
	}
	select {
	case c.first <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	proven, err := c.state()
	if err != nil || proven {
		<-c.first
		return func() {}, err
	}
	return func() { <-c.first }, nil
}

func (c *client) state() (proven bool, refused error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.proven, c.refused
}

// refuse turns an answer into an error. A refused login is remembered; a limit comes as 403 too and is none.
func (c *client) refuse(r request, answer *refusal) error {
	login := answer.Status == http.StatusUnauthorized || answer.Status == http.StatusForbidden && answer.Code != codeRateLimit
	if !login {
		if answer.Code != "" && answer.Status < 500 { // Robot itself has answered, so it knows us
			c.mu.Lock()
			c.proven = true
			c.mu.Unlock()
		}
		return answer
	}
	if proven, _ := c.state(); proven && answer.Status == http.StatusForbidden && strings.HasPrefix(r.path, "/order/") {
		return &provider.Error{Op: r.method + " " + r.path, Kind: provider.ErrUnauthorized, Err: answer,
			Hint: "ordering has to be activated for the webservice: Robot, Settings, Web service settings, Ordering"}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refused == nil {
		c.refused = &provider.Error{Op: "hetzner robot", Kind: provider.ErrUnauthorized, Hint: loginHint, Err: answer}
	}
	return c.refused
}

func (c *client) send(ctx context.Context, r request) (int, []byte, error) {
	var body io.Reader
	if r.form != nil {
		body = strings.NewReader(r.form.Encode())
	}
	req, err := http.NewRequestWithContext(ctx, r.method, c.base+r.path, body)
	if err != nil {
		return 0, nil, err
	}
	if r.form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "popfleet")
	req.SetBasicAuth(string(c.user.Reveal()), string(c.password.Reveal()))
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, nil, reason(ctx, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return 0, nil, reason(ctx, fmt.Errorf("read the answer of %s %s: %w", r.method, r.path, err))
	}
	if len(text) > maxAnswer {
		return 0, nil, fmt.Errorf("%w of %s %s: more than %d bytes", errMalformed, r.method, r.path, maxAnswer)
	}
	return resp.StatusCode, text, nil
}

// reason prefers what ended the context over what the transport made of it.
func reason(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}
