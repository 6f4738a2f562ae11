package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	wire "github.com/miekg/dns"
	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"

	"popfleet/dns/place"
	"popfleet/internal/control"
)

// Deps is what a caller hands in. Ready, when set, is called once with the bound addresses (UDP and TCP share the port).
type Deps struct {
	Log     *slog.Logger
	Version string
	Ready   func([]netip.AddrPort)
}

const (
	maxTCPConns    = 512
	tcpIdleTimeout = 10 * time.Second
	tcpIOTimeout   = 4 * time.Second
)

// Run serves until ctx ends, then returns nil. Any listener that breaks ends it with the error.
func Run(ctx context.Context, cfg Config, deps Deps) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	a := &answerer{ttl: uint32(time.Duration(cfg.TTL) / time.Second), pops: cfg.PoPs}
	s := &service{cfg: cfg, log: deps.Log, version: deps.Version, answers: a, state: control.Serving, started: time.Now(), changed: make(chan struct{}, 1)}
	if cfg.MMDB != "" {
		db, err := place.Open(cfg.MMDB)
		if err != nil {
			return err
		}
		defer db.Close() // after the group below has ended: nobody locates any more
		a.locate, s.mmdb = db, db.Describe()
	}
	s.restore()
	sockets, err := bind(cfg.Listen)
	if err != nil {
		return err
	}
	defer sockets.close()
	feedListener, err := listenFeed(cfg.Feed)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return control.Serve(ctx, cfg.Control, s) })
	feedersGone := make(chan struct{})
	g.Go(func() error { return s.hear(ctx, feedListener, feedersGone) })
	g.Go(func() error { return s.keeper(feedersGone) })
	for _, srv := range sockets.servers(s) {
		g.Go(func() error { return serve(ctx, srv) })
	}
	if deps.Ready != nil {
		deps.Ready(sockets.addresses)
	}
	deps.Log.Info("serving", "zone", cfg.Zone, "listen", fmt.Sprint(sockets.addresses))
	return g.Wait()
}

// sockets are the bound listeners: one UDP and one TCP each.
type sockets struct {
	addresses []netip.AddrPort
	udp       []net.PacketConn
	tcp       []net.Listener
}

func bind(listen []string) (*sockets, error) {
	s := &sockets{}
	for _, address := range listen {
		if err := s.bind(address); err != nil {
			s.close()
			return nil, err
		}
	}
	return s, nil
}

// bindTries is how often a port picked by the kernel for TCP may turn out to be taken for UDP. Only tests ask for one.
const bindTries = 8

func (s *sockets) bind(address string) (err error) {
	for range bindTries {
		var l net.Listener
		if l, err = net.Listen("tcp", address); err != nil {
			return fmt.Errorf("listen %s: %w", address, err)
		}
		bound := l.Addr().(*net.TCPAddr).AddrPort()
		var p net.PacketConn
		if p, err = net.ListenPacket("udp", l.Addr().String()); err == nil {
			s.tcp, s.udp, s.addresses = append(s.tcp, l), append(s.udp, p), append(s.addresses, bound)
			return nil
		}
		l.Close()
		if _, port, _ := net.SplitHostPort(address); port != "0" {
			break
		}
	}
	return fmt.Errorf("listen %s: %w", address, err)
}

func (s *sockets) close() {
	for _, l := range s.tcp {
		l.Close()
	}
	for _, p := range s.udp {
		p.Close()
	}
}

func (s *sockets) servers(h wire.Handler) []*wire.Server {
	var out []*wire.Server
	for _, p := range s.udp {
		out = append(out, &wire.Server{PacketConn: p, Handler: h, UDPSize: maxUDPBytes})
	}
	for _, l := range s.tcp {
		out = append(out, &wire.Server{Listener: netutil.LimitListener(l, maxTCPConns), Handler: h,
			ReadTimeout: tcpIOTimeout, WriteTimeout: tcpIOTimeout, IdleTimeout: func() time.Duration { return tcpIdleTimeout }})
	}
	return out
}

// serve runs one server until ctx ends, and waits for the queries in progress.
func serve(ctx context.Context, srv *wire.Server) error {
	started, stopped := make(chan struct{}), make(chan struct{})
	srv.NotifyStartedFunc = func() { close(started) }
	done := make(chan error, 1)
	go func() { done <- srv.ActivateAndServe() }()
	go func() {
		defer close(stopped)
		select {
		case <-started:
		case <-ctx.Done():
			return
		}
		<-ctx.Done()
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), tcpIOTimeout)
		defer cancel()
		_ = srv.ShutdownContext(limit) // a client too slow for the limit is cut
	}()
	select {
	case err := <-done:
		if ctx.Err() == nil {
			return fmt.Errorf("dns server: %w", errors.Join(err, errors.New("stopped by itself")))
		}
		return nil
	case <-ctx.Done():
		<-stopped
		return nil
	}
}
