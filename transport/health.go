package transport

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

const (
	probeEvery   = time.Second
	probeTimeout = time.Second
	probeFails   = 2 // in a row, before the application counts as failing; one success takes it back
)

// prober asks the application how it is.
type prober struct {
	url     string
	client  *http.Client
	changed func()

	mu sync.Mutex
	// guarded by mu
	fails int // in a row
	err   error
}

func newProber(url string, changed func()) *prober {
	return &prober{url: url, changed: changed, fails: probeFails, err: fmt.Errorf("app %s: not asked yet", url),
		client: &http.Client{Timeout: probeTimeout, Transport: &http.Transport{Proxy: nil, MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// run asks every second until ctx ends.
func (p *prober) run(ctx context.Context) {
	defer p.client.CloseIdleConnections()
	t := time.NewTicker(probeEvery)
	defer t.Stop()
	for {
		err := p.ask(ctx)
		if ctx.Err() != nil {
			return
		}
		p.note(err)
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

const maxHealthBytes = 64 << 10

func (p *prober) ask(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url, nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "popfleet-transport")
	res, err := p.client.Do(req)
	if err != nil {
		return fmt.Errorf("app: %w", err)
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, maxHealthBytes)) // so the connection can be used again
	if res.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("app: GET %s: %s", p.url, res.Status)
	}
	return nil
}

func (p *prober) note(err error) {
	p.mu.Lock()
	was := p.fails < probeFails
	p.err = err
	if err == nil {
		p.fails = 0
	} else {
		p.fails++
	}
	is := p.fails < probeFails
	p.mu.Unlock()
	if was != is {
		p.changed()
	}
}

// problem is nil while the application is well.
func (p *prober) problem() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fails < probeFails {
		return nil
	}
	return p.err
}
