package edge

import (
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

// Redirect is the plain HTTP server: it sends every request to the same place over HTTPS. names are the domains we
// serve, with all below them; a request for any other host is told so, and never sent there.
func Redirect(names []string, httpsPort string, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           redirect(names, httpsPort),
		ReadHeaderTimeout: headerTimeout, ReadTimeout: headerTimeout, WriteTimeout: headerTimeout, IdleTimeout: 30 * time.Second,
		MaxHeaderBytes: maxHeaderBytes, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

func redirect(names []string, httpsPort string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if h, _, err := net.SplitHostPort(r.Host); err == nil {
			host = h
		}
		host = strings.Trim(strings.ToLower(host), "[]")
		if !ours(host, names) {
			refuse(w, r, http.StatusMisdirectedRequest, "This server does not serve that name.")
			return
		}
		authority := host
		if httpsPort != "443" {
			authority = net.JoinHostPort(host, httpsPort)
		} else if strings.Contains(host, ":") {
			authority = "[" + host + "]"
		}
		code := http.StatusPermanentRedirect // keeps the method
		if r.Method == http.MethodGet || r.Method == http.MethodHead {
			code = http.StatusMovedPermanently
		}
		w.Header().Set("Location", "https://"+authority+r.URL.RequestURI())
		w.Header().Set("Connection", "close")
		w.WriteHeader(code)
	}
}

func ours(host string, names []string) bool {
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	for _, n := range names {
		if host == n || strings.HasSuffix(host, "."+n) {
			return true
		}
	}
	return false
}
