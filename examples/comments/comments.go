// Package comments is the application that shows what a popfleet node is for: threads, comments with votes, moderation,
// all live. It listens on loopback behind the transport and keeps everything in the store behind the replicator, none
// of it in itself, so any node can answer any request. While the store is away it says so (503, /healthz) and goes on
// by itself when the store is back.
package comments

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"popfleet/examples/comments/board"
	"popfleet/examples/comments/database"
	"popfleet/examples/comments/live"
	"popfleet/examples/comments/web"
	"popfleet/internal/control"
	"popfleet/internal/version"
)

const (
	maxStreams    = 5000 // of all clients; see fleet-app.service's LimitNOFILE
	lookInterval  = time.Second
	mostRecent    = 500 // changes one look returns
	shutdownTime  = 20 * time.Second
	closeTime     = 5 * time.Second
	maxHeaderSize = 32 << 10
)

// Run serves until ctx ends, then drains: streams end with a hint to come back, requests are answered to the end.
// ready, when not nil, is told the address it listens on.
func Run(ctx context.Context, c Config, log *slog.Logger, ready func(addr string)) error {
	db, err := database.Open(c.Mongo, c.Database)
	if err != nil {
		return err
	}
	err = serve(ctx, c, db, log, ready)
	closing, done := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
	defer done()
	return errors.Join(err, db.Close(closing))
}

func serve(ctx context.Context, c Config, db *database.DB, log *slog.Logger, ready func(addr string)) error {
	hub := live.New(looks(db), maxStreams, log)
	s := newService(c, hub, newWatchdog(db, log))
	site, err := web.New(db, hub, web.Options{Node: c.Node, Version: version.Version, ModeratorToken: c.token,
		Limits: web.DefaultLimits(), Health: s.Health, Log: log})
	if err != nil {
		return err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	server := newServer(s.count(site.Handler()), log)
	// What serves outlives ctx until the drain is over.
	background, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	failed := make(chan error, 2)
	wg.Go(func() { hub.Run(background, lookInterval) })
	wg.Go(func() { s.dog.run(background) })
	wg.Go(func() { failed <- control.Serve(background, c.Control, s) })
	wg.Go(func() { failed <- server.Serve(l) })
	log.Info("app serves", "addr", l.Addr().String(), "database", c.Database, "moderation", c.token != "", "version", version.Version)
	if ready != nil {
		ready(l.Addr().String())
	}
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	log.Info("app drains")
	err = errors.Join(err, s.stop(context.WithoutCancel(ctx), server))
	cancel()
	wg.Wait()
	return err
}

func newServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 15 * time.Second,
		WriteTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: maxHeaderSize,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn)}
}

// stop drains, within the time a service has.
func (s *service) stop(ctx context.Context, server *http.Server) error {
	s.Drain()
	ctx, cancel := context.WithTimeout(ctx, shutdownTime)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		server.Close()
		return fmt.Errorf("requests still ran %s after the end was asked for: %w", shutdownTime, err)
	}
	return nil
}

// looks asks the database what changed in a topic.
func looks(db *database.DB) live.Look {
	return func(ctx context.Context, topic string, since time.Time) ([]live.Event, error) {
		if topic == web.ThreadsTopic {
			all, err := db.ChangedThreads(ctx, since, mostRecent)
			return events(all, web.ThreadEvent), err
		}
		all, err := db.ChangedComments(ctx, topic, since, mostRecent)
		return events(all, web.CommentEvent), err
	}
}

func events[T board.Thread | board.Comment](all []T, one func(T) live.Event) []live.Event {
	list := make([]live.Event, len(all))
	for i, v := range all {
		list[i] = one(v)
	}
	return list
}
