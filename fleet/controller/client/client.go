// Package client asks a controller. It proves itself by an operator's certificate and expects a controller's of the same
// fleet; every call is bounded in time and in the size of its answer, and goes through the dialer it was given.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"popfleet/fleet/controller"
	"popfleet/internal/dial"
	"popfleet/internal/mtls"
)

// Client speaks to one controller. Its methods may be called from several goroutines.
type Client struct {
	http *http.Client
	base string
}

// timeout bounds a call whose context has no nearer deadline.
const timeout = 30 * time.Second

const maxAnswerBytes = 64 << 20

// New returns a client for the controller of fleet at addr (host:port); it connects on the first call.
func New(dialer dial.Dialer, identity *mtls.Identity, fleet, addr string) *Client {
	// The peer's name is checked, not its address, and Server takes a rule for names: it serves this side as well.
	tls := identity.Server(func(n mtls.Name) error {
		if n.Fleet != fleet || n.Service != "controller" {
			return &mtls.PeerError{Want: "a controller of fleet " + fleet, Got: n.String()}
		}
		return nil
	})
	return &Client{
		http: &http.Client{Timeout: timeout, Transport: &http.Transport{
			DialContext: dialer.DialContext, TLSClientConfig: tls, TLSHandshakeTimeout: 15 * time.Second, DisableKeepAlives: true,
		}},
		base: "https://" + addr,
	}
}

// Status asks for everything the controller knows.
func (c *Client) Status(ctx context.Context) (controller.Status, error) {
	var s controller.Status
	err := c.call(ctx, http.MethodGet, "/v1/status", nil, &s)
	return s, err
}

// Expect says that node is about to reboot: the controller unlocks it unasked when it comes back within that time.
func (c *Client) Expect(ctx context.Context, node string, within time.Duration) error {
	var s controller.Status
	return c.call(ctx, http.MethodPost, "/v1/nodes/"+node+"/expect", controller.Expect{ForSec: within.Seconds()}, &s)
}

// Say passes on what a person says of a node's unlocking, and returns what holds then, in words.
func (c *Client) Say(ctx context.Context, node string, s controller.Saying) (string, error) {
	var told struct{ Words string }
	err := c.call(ctx, http.MethodPost, "/v1/nodes/"+node+"/said", s, &told)
	return told.Words, err
}

func (c *Client) call(ctx context.Context, method, path string, send, into any) error {
	var body io.Reader
	if send != nil {
		text, err := json.Marshal(send)
		if err != nil {
			return err
		}
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("controller: %w", err)
	}
	defer res.Body.Close()
	answer := json.NewDecoder(io.LimitReader(res.Body, maxAnswerBytes))
	if res.StatusCode != http.StatusOK {
		var told struct{ Error string }
		_ = answer.Decode(&told) // whatever answered without our words is named by its status
		return fmt.Errorf("controller: %s %s: %s: %s", method, path, res.Status, told.Error)
	}
	if err := answer.Decode(into); err != nil {
		return fmt.Errorf("controller: %s %s: %w", method, path, err)
	}
	return nil
}
