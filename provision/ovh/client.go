package ovh

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	sdk "github.com/ovh/go-ovh/ovh"
)

// maxAnswer bounds an answer; the largest we ask for, availabilities of one plan, is some tens of kilobytes.
const maxAnswer = 4 << 20

// request is one call of the API.
type request struct {
	method string
	path   string // escaped, with query
	body   any
	out    any
	repeat bool // a POST that may be sent again after a lost reply: it sets a value
	money  bool // never sent again, whatever the answer
	open   bool // needs no signature
}

func (r request) String() string { return r.method + " " + r.path }

// repeatable says whether the call may be sent again when nobody knows if it took effect.
func (r request) repeatable() bool { return r.method != http.MethodPost || r.repeat }

// exchange sends a request once. An answer that is no success is an *apiError.
//
// Every call has a client of its own: go-ovh writes to its http.Client on every request, so two goroutines that share one
// race. Connections are kept by the transport, which all clients share.
func (d *Driver) exchange(ctx context.Context, r request) error {
	if !r.open && d.clock.round() == 0 {
		if err := d.clock.refresh(ctx, 0, d.serverTime); err != nil {
			return fmt.Errorf("ask for OVH's time: %w", err)
		}
	}
	client, err := d.client(r.open)
	if err != nil {
		return err
	}
	req, err := client.NewRequest(r.method, r.path, r.body, !r.open)
	if err != nil {
		return err
	}
	res, err := client.Do(req.WithContext(ctx))
	if err != nil {
		return err
	}
	defer res.Body.Close()
	return readAnswer(res, r.out)
}

func (d *Driver) client(open bool) (*sdk.Client, error) {
	transport := d.opts.Transport
	if !open {
		transport = timed{next: transport, clock: d.clock}
	}
	// Not sdk.NewClient: that would read OVH_* and configuration files of other tools.
	c := &sdk.Client{
		AppKey:      string(d.opts.ApplicationKey.Reveal()),
		AppSecret:   string(d.opts.ApplicationSecret.Reveal()),
		ConsumerKey: string(d.opts.ConsumerKey.Reveal()),
		UserAgent:   "popfleet",
		Timeout:     d.opts.CallTimeout,
		Client: &http.Client{
			Transport: transport,
			// A redirect would carry the signature and the consumer key along, to whoever it names.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
	return c, c.SetEndpoint(d.endpoint)
}

func readAnswer(res *http.Response, out any) error {
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return parseError(res.StatusCode, res.Header, body)
	}
	if len(body) > maxAnswer {
		return fmt.Errorf("the answer is larger than %d bytes", maxAnswer)
	}
	if out == nil || len(body) == 0 {
		return nil
	}
	if err := json.Unmarshal(body, out); err != nil {
		return fmt.Errorf("the answer is not what the API describes: %w", err)
	}
	return nil
}
