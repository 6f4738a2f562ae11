package transport

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/sync/errgroup"

	"popfleet/internal/control"
	"popfleet/transport/certs"
	"popfleet/transport/edge"
	"popfleet/transport/mesh"
)

// Deps is what a caller hands in. Ready, when set, is called once with what is bound. MeshListener, when set, is used
// in place of mesh_listen, for who must know every address before anyone starts.
type Deps struct {
	Log          *slog.Logger
	Version      string
	Ready        func(Bound)
	MeshListener net.Listener
}

// Bound is where the transport listens.
type Bound struct{ HTTPS, Redirect, Mesh net.Addr }

// Run serves until ctx ends, then lets plain requests finish (bounded), and returns nil. A port that is taken, a
// certificate that can't be read, or a listener that breaks is an error.
func Run(ctx context.Context, cfg Config, deps Deps) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	keys, err := certs.Load(cfg.TLS)
	if err != nil {
		return err
	}
	s, err := newService(cfg, deps, keys)
	if err != nil {
		return err
	}
	listeners, err := bind(cfg, deps)
	if err != nil {
		return err
	}
	if deps.Ready != nil {
		deps.Ready(listeners.bound())
	}
	defer s.edge.Close()
	// What surrounds the edge outlives ctx: while requests finish, peers and dns must hear that we are leaving.
	around, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, around := errgroup.WithContext(around)
	g.Go(func() error { return control.Serve(around, cfg.Control, s) })
	g.Go(func() error { return s.mesh.Run(around, listeners.mesh) })
	g.Go(func() error { return s.redirect(around, listeners) })
	g.Go(func() error { s.app.run(around); return nil })
	g.Go(func() error { keys.Watch(around, deps.Log); return nil })
	if cfg.Feed != "" {
		g.Go(func() error { s.feeder.run(around); return nil })
	}
	g.Go(func() error {
		defer stop()
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(around, cancel)() // a room mate broke: no reason to go on alone
		return s.live(ctx, listeners.https)
	})
	return g.Wait()
}

func newService(cfg Config, deps Deps, keys *certs.Store) (*service, error) {
	app, err := url.Parse(cfg.App)
	if err != nil {
		return nil, fmt.Errorf("app: %w", err)
	}
	s := &service{cfg: cfg, log: deps.Log, version: deps.Version, keys: keys, phase: control.Serving, started: time.Now(), orders: make(chan struct{}, 1)}
	s.edge = edge.New(edge.Config{App: app, Certificate: keys.Certificate, Log: deps.Log,
		Limits: edge.Limits{Requests: cfg.Limits.Requests, Streams: cfg.Limits.Streams, BodyBytes: cfg.Limits.BodyBytes}})
	s.feeder = &feeder{path: cfg.Feed, log: deps.Log, nodes: s.nodes, from: cfg.Node, changed: make(chan struct{}, 1)}
	s.mesh = mesh.New(mesh.Config{Fleet: cfg.Fleet, Node: cfg.Node, Peers: cfg.Peers, Keys: keys, Self: s.beat, Changed: s.wake, Log: deps.Log})
	s.app = newProber(app.JoinPath(cfg.Health).String(), s.announce)
	return s, nil
}

// listeners are bound before anything runs, so that a taken port is the first thing said.
type listeners struct {
	https, mesh, redirect net.Listener
}

func bind(cfg Config, deps Deps) (*listeners, error) {
	l := &listeners{mesh: deps.MeshListener}
	if err := l.bind(cfg); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

func (l *listeners) bind(cfg Config) (err error) {
	if l.https, err = net.Listen("tcp", cfg.Listen); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	if l.mesh == nil {
		if l.mesh, err = net.Listen("tcp", cfg.Mesh); err != nil {
			return fmt.Errorf("mesh_listen: %w", err)
		}
	}
	if cfg.Redirect != "" {
		if l.redirect, err = net.Listen("tcp", cfg.Redirect); err != nil {
			return fmt.Errorf("redirect: %w", err)
		}
	}
	return nil
}

func (l *listeners) close() {
	for _, one := range []net.Listener{l.https, l.mesh, l.redirect} {
		if one != nil {
			one.Close()
		}
	}
}

func (l *listeners) bound() Bound {
	b := Bound{HTTPS: l.https.Addr(), Mesh: l.mesh.Addr()}
	if l.redirect != nil {
		b.Redirect = l.redirect.Addr()
	}
	return b
}

// redirect serves plain HTTP until ctx ends.
func (s *service) redirect(ctx context.Context, l *listeners) error {
	if l.redirect == nil {
		return nil
	}
	_, port, err := net.SplitHostPort(l.https.Addr().String())
	if err != nil {
		return err
	}
	srv := edge.Redirect(s.cfg.Names, port, s.log)
	defer context.AfterFunc(ctx, func() { srv.Close() })()
	if err := srv.Serve(l.redirect); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("redirect: %w", err)
	}
	return nil
}
