// Package hetznercloud is the driver for Hetzner Cloud, and the only package that imports hcloud-go. It turns servers and
// the objects around them into small values, makes every create findable by label, and drives power and rescue.
//
// It never decides what should exist (provision/stack does) nor what a node needs next (provision/lifecycle does), it
// never retries for ever, and it never logs or returns the token. A call fails with an [Error] that says what was tried,
// why it stopped and what an operator can do; transient answers are retried inside a budget, aloud, through the callback
// of [provider.WithWaiting].
package hetznercloud

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/hetznercloud/hcloud-go/v2/hcloud"

	"popfleet/internal/pace"
	"popfleet/provision/provider"
)

// Secret is what the driver needs of a secret: its bytes, once.
type Secret interface{ Reveal() []byte }

// Options make a driver. Only Token is required.
type Options struct {
	Token     Secret
	Endpoint  string            // default: the public API, https://api.hetzner.cloud/v1
	Transport http.RoundTripper // default: a clone of the standard one
	Pace      pace.Pace         // scales the waits for actions, not those for HTTP
	Log       *slog.Logger      // default: discard

	CallTimeout time.Duration // of one HTTP call; default 20 s
	Budget      time.Duration // for retrying one step; default 2 min × pace
	Backoff     time.Duration // first pause between tries, and between polls; default 500 ms
}

func (o Options) withDefaults() Options {
	if o.Pace <= 0 {
		o.Pace = pace.Real
	}
	if o.CallTimeout <= 0 {
		o.CallTimeout = 20 * time.Second
	}
	if o.Budget <= 0 {
		o.Budget = o.Pace.Of(2 * time.Minute)
	}
	if o.Backoff <= 0 {
		o.Backoff = 500 * time.Millisecond
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Transport == nil {
		o.Transport = http.DefaultTransport.(*http.Transport).Clone()
	}
	return o
}

// Driver talks to one project at Hetzner Cloud. It is safe for concurrent use.
type Driver struct {
	opts    Options
	client  *hcloud.Client
	actions *watcher
}

// New returns a driver. It does not talk to the API yet.
func New(o Options) (*Driver, error) {
	if o.Token == nil || len(o.Token.Reveal()) == 0 {
		return nil, &Error{Op: "hetzner cloud", Kind: provider.ErrUnauthorized, Hint: tokenHint, Err: fmt.Errorf("no token")}
	}
	o = o.withDefaults()
	clientOpts := []hcloud.ClientOption{
		hcloud.WithToken(string(o.Token.Reveal())),
		hcloud.WithApplication("popfleet", ""),
		hcloud.WithHTTPClient(&http.Client{Transport: o.Transport}),
		// Retries are ours alone: one layer, one budget, each with a visible reason (see retry.go).
		hcloud.WithRetryOpts(hcloud.RetryOpts{MaxRetries: 0}),
	}
	if o.Endpoint != "" {
		clientOpts = append(clientOpts, hcloud.WithEndpoint(o.Endpoint))
	}
	d := &Driver{opts: o, client: hcloud.NewClient(clientOpts...)}
	d.actions = newWatcher(d.fetchActions, o.Backoff)
	return d, nil
}

// Close waits for the driver's own goroutine and drops idle connections.
func (d *Driver) Close() {
	d.actions.close()
	if t, ok := d.opts.Transport.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}

// say tells whoever listens what is waited for.
func say(ctx context.Context, format string, args ...any) {
	provider.Waiting(ctx)(fmt.Sprintf(format, args...))
}

// sleep waits for d or the end of ctx.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
