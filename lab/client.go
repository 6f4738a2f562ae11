package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"syscall"
	"time"

	"popfleet/lab/faults"
)

// ErrNotUp: no lab answers on the control socket.
var ErrNotUp = errors.New("no lab is up")

// Client speaks to a running lab over its control socket.
type Client struct{ http *http.Client }

// Connect returns a client for the socket at path; it connects on the first call.
func Connect(path string) *Client {
	d := &net.Dialer{Timeout: 5 * time.Second}
	return &Client{&http.Client{Timeout: 2 * time.Minute, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, "unix", path) },
	}}}
}

// Status asks for the lab's status.
func (c *Client) Status(ctx context.Context) (s Status, err error) {
	return s, c.do(ctx, http.MethodGet, "/status", nil, &s)
}

// Impostor asks what the impostor was told.
func (c *Client) Impostor(ctx context.Context) (i Impostor, err error) {
	return i, c.do(ctx, http.MethodGet, "/impostor", nil, &i)
}

// Faults lists what is set to go wrong.
func (c *Client) Faults(ctx context.Context) (list []faults.Fault, err error) {
	return list, c.do(ctx, http.MethodGet, "/faults", nil, &list)
}

// AddFault sets a fault and returns it with its id.
func (c *Client) AddFault(ctx context.Context, f faults.Fault) (out faults.Fault, err error) {
	return out, c.do(ctx, http.MethodPost, "/faults", f, &out)
}

// ClearFault removes one fault, or all with id 0, and says how many.
func (c *Client) ClearFault(ctx context.Context, id int) (int, error) {
	var out struct{ Cleared int }
	err := c.do(ctx, http.MethodDelete, "/faults?id="+strconv.Itoa(id), nil, &out)
	return out.Cleared, err
}

// Power switches a machine behind the provider's back: cycle, off or on.
func (c *Client) Power(ctx context.Context, name, act string) error {
	return c.do(ctx, http.MethodPost, "/machines/"+url.PathEscape(name)+"/power?act="+url.QueryEscape(act), nil, &struct{}{})
}

// Ledger asks for a scripted machine's ledger.
func (c *Client) Ledger(ctx context.Context, name string) (l Ledger, err error) {
	return l, c.do(ctx, http.MethodGet, "/machines/"+url.PathEscape(name)+"/ledger", nil, &l)
}

// Down asks the lab to remove everything and end.
func (c *Client) Down(ctx context.Context) error {
	return c.do(ctx, http.MethodPost, "/down", nil, &struct{}{})
}

func (c *Client) do(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://lab"+path, body)
	if err != nil {
		return err
	}
	res, err := c.http.Do(req)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("%w (fleet-lab up)", ErrNotUp)
	}
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		var e struct{ Error string }
		if err := json.NewDecoder(io.LimitReader(res.Body, 1<<16)).Decode(&e); err != nil || e.Error == "" {
			return fmt.Errorf("lab control socket: %s", res.Status)
		}
		return errors.New(e.Error)
	}
	return json.NewDecoder(io.LimitReader(res.Body, 64<<20)).Decode(out)
}
