package edge

import (
	"context"
	"errors"
	"fmt"
	"html"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// newProxy passes requests to the application.
func newProxy(cfg Config, app http.RoundTripper) http.Handler {
	return &httputil.ReverseProxy{
		Rewrite:        rewrite(cfg.App),
		ModifyResponse: sortOut,
		FlushInterval:  -1, // events must not wait in a buffer
		BufferPool:     &buffers{},
		ErrorHandler:   func(w http.ResponseWriter, r *http.Request, err error) { explain(w, r, err, cfg.Log) },
		ErrorLog:       slog.NewLogLogger(cfg.Log.Handler(), slog.LevelDebug),
		Transport:      app,
	}
}

// newTransport speaks HTTP/1.1 to the application over kept connections.
func newTransport() *http.Transport {
	dialer := &net.Dialer{Timeout: appDialTimeout, KeepAlive: clientKeepAlive}
	return &http.Transport{
		Proxy: nil, DialContext: dialer.DialContext, DisableCompression: true,
		MaxIdleConns: appIdleConns, MaxIdleConnsPerHost: appIdleConns, IdleConnTimeout: appIdleTimeout,
		ResponseHeaderTimeout: appFirstAnswer, MaxResponseHeaderBytes: maxHeaderBytes,
	}
}

// rewrite sends the request to the application as the client wrote it: host, path and query untouched. What the
// client claims about its own address is dropped.
func rewrite(app *url.URL) func(*httputil.ProxyRequest) {
	return func(p *httputil.ProxyRequest) {
		p.SetURL(app)
		p.Out.Host = p.In.Host
		p.Out.URL.RawQuery = p.In.URL.RawQuery
		p.SetXForwarded()
		for _, name := range []string{"X-Real-Ip", "X-Forwarded-Port", "X-Forwarded-Server"} {
			p.Out.Header.Del(name)
		}
	}
}

// explain turns a broken exchange with the application into an answer.
func explain(w http.ResponseWriter, r *http.Request, err error, log *slog.Logger) {
	var large *http.MaxBytesError
	var network net.Error
	switch {
	case errors.Is(err, errStreams):
		refuse(w, r, http.StatusServiceUnavailable, "This site is very busy right now.")
	case errors.As(err, &large):
		refuse(w, r, http.StatusRequestEntityTooLarge, "What you sent is larger than this site takes.")
	case cutOff(r):
		refuse(w, r, http.StatusBadRequest, "What you sent was cut off.")
	case errors.Is(r.Context().Err(), context.Canceled):
		// The client is gone, or the stream was over the limit; if anyone still listens, this is what it is.
		refuse(w, r, http.StatusServiceUnavailable, "This connection was ended.")
	case refused(err):
		log.Warn("application not reachable", "error", err)
		refuse(w, r, http.StatusBadGateway, "The application behind this site does not answer at the moment.")
	case errors.As(err, &network) && network.Timeout():
		log.Warn("application too slow", "path", r.URL.Path, "error", err)
		refuse(w, r, http.StatusGatewayTimeout, "The application behind this site took too long.")
	default:
		log.Warn("application broke off", "path", r.URL.Path, "error", err)
		refuse(w, r, http.StatusBadGateway, "The application behind this site broke off.")
	}
}

func cutOff(r *http.Request) bool {
	q, ok := r.Context().Value(requestKey{}).(*request)
	return ok && q.cutOff.Load()
}

// refused says whether no connection was made, so that the application has seen nothing.
func refused(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

const retryAfter = 3 * time.Second

// refuse answers in the client's language of content: a small page for people, a line of text for programs.
func refuse(w http.ResponseWriter, r *http.Request, code int, why string) {
	h := w.Header()
	for _, name := range []string{"Content-Length", "Content-Encoding", "Etag", "Last-Modified"} {
		h.Del(name)
	}
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	then := ""
	if code >= 500 {
		h.Set("Retry-After", strconv.Itoa(int(retryAfter/time.Second)))
		then = " Please try again in a moment."
	}
	title := fmt.Sprintf("%d %s", code, http.StatusText(code))
	if strings.Contains(r.Header.Get("Accept"), "text/html") {
		h.Set("Content-Type", "text/html; charset=utf-8")
		w.WriteHeader(code)
		fmt.Fprintf(w, page, html.EscapeString(title), html.EscapeString(why+then))
		return
	}
	h.Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	fmt.Fprintf(w, "%s\n%s%s\n", title, why, then)
}

const page = `<!doctype html><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>%[1]s</title><style>body{font:1.1em/1.5 sans-serif;max-width:32em;margin:20vh auto;padding:0 1em}small{color:#666}</style>
<p>%[2]s</p><small>%[1]s</small>
`

// buffers lends copy buffers.
type buffers struct{ pool sync.Pool }

const bufferBytes = 32 << 10

// Get lends one.
func (b *buffers) Get() []byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return *p
	}
	return make([]byte, bufferBytes)
}

// Put takes it back.
func (b *buffers) Put(p []byte) { b.pool.Put(&p) }
