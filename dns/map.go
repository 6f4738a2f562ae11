package dns

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/net/netutil"

	"popfleet/dns/feed"
	"popfleet/dns/zone"
)

const (
	maxFeeders  = 8
	feedSilence = 30 * time.Second // the transport speaks every 5 s
	stateFile   = "map.json"
)

// restore takes the map of the run before, or the configured one when there is none to read.
func (s *service) restore() {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, err := s.load()
	switch {
	case err == nil:
		s.use(m)
		s.source = "state"
		s.log.Info("map kept from the run before", "from", m.From, "nodes", len(m.Nodes), "time", m.Time)
		return
	case !errors.Is(err, os.ErrNotExist):
		s.log.Warn("kept map not usable, starting with the configured nodes", "error", err)
	}
	s.use(s.cfg.startMap())
	s.source = "config"
}

func (s *service) load() (feed.Map, error) {
	f, err := os.Open(filepath.Join(s.cfg.State, stateFile))
	if err != nil {
		return feed.Map{}, err
	}
	defer f.Close()
	line, err := io.ReadAll(io.LimitReader(f, feed.MaxLineBytes+1))
	if err != nil {
		return feed.Map{}, err
	}
	m, err := feed.Decode(line)
	if err == nil && len(m.Nodes) == 0 {
		err = errors.New("it has no nodes")
	}
	return m, err
}

// accept takes a snapshot of the feed's connection number turn. One without nodes says nothing and is not believed; what
// an older connection still had in its buffer comes too late.
func (s *service) accept(m feed.Map, turn uint64) {
	if len(m.Nodes) == 0 {
		s.log.Warn("snapshot without nodes ignored", "from", m.From)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if turn < s.turn {
		return
	}
	s.turn, s.source, s.heard = turn, "feed", time.Now()
	if s.answers.zone.Load().Map.SameNodes(m) {
		return
	}
	s.use(m)
	s.log.Info("map changed", "from", m.From, "version", m.Version, "nodes", summary(m))
	select {
	case s.changed <- struct{}{}:
	default: // the keeper has not come to the last change yet, and will find this one
	}
}

// keeper writes changed maps down until ctx ends and the feeders are gone. It is apart from the feed, because a disk
// that hangs must not keep a dead node in the answers.
func (s *service) keeper(feedersGone <-chan struct{}) error {
	for last := false; !last; {
		select {
		case <-s.changed:
		case <-feedersGone:
			last = true
			select {
			case <-s.changed:
			default:
				return nil
			}
		}
		if err := s.keep(s.answers.zone.Load().Map); err != nil {
			s.log.Warn("map not kept for a restart", "error", err)
		}
	}
	return nil
}

func summary(m feed.Map) map[string]string {
	out := map[string]string{}
	for _, n := range m.Nodes {
		out[n.Name] = n.State
	}
	return out
}

// use puts the map in force; the caller holds mu. The serial is the time of the change in seconds and always grows, also when the clock
// went back or two changes fall into one second (RFC 1982 leaves half the number space for that).
func (s *service) use(m feed.Map) {
	if m.Time.IsZero() {
		m.Time = time.Now()
	}
	serial := uint32(m.Time.Unix())
	if z := s.answers.zone.Load(); z != nil && int32(serial-z.Serial) <= 0 {
		serial = z.Serial + 1
	}
	s.answers.zone.Store(zone.Build(s.cfg.names(), s.cfg.startMap().Nodes, m, serial))
}

// keep writes the map beside the old one and renames: a crash leaves one of them whole.
func (s *service) keep(m feed.Map) error {
	line, err := feed.Encode(m)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(s.cfg.State, stateFile+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone already after the rename
	_, err = f.Write(line)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), filepath.Join(s.cfg.State, stateFile))
}

func listenFeed(path string) (net.Listener, error) {
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return nil, fmt.Errorf("feed socket %s: another process answers on it", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("feed socket %s: %w", path, err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("feed socket %s: %w", path, err)
	}
	if err := os.Chmod(path, 0o660); err != nil { // the directory's group decides who reaches it
		l.Close()
		return nil, fmt.Errorf("feed socket %s: %w", path, err)
	}
	return netutil.LimitListener(l, maxFeeders), nil
}

// hear accepts feeders until ctx ends, waits for the last of them to be gone, and says so on gone.
func (s *service) hear(ctx context.Context, l net.Listener, gone chan<- struct{}) error {
	defer close(gone)
	var feeders sync.WaitGroup
	defer feeders.Wait()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	defer l.Close()
	for turn := uint64(1); ; turn++ {
		c, err := l.Accept()
		if ctx.Err() != nil {
			if c != nil {
				c.Close()
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("feed socket: %w", err)
		}
		feeders.Go(func() { s.hearOne(ctx, c, turn) })
	}
}

func (s *service) hearOne(ctx context.Context, c net.Conn, turn uint64) {
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	s.feeding(1)
	defer s.feeding(-1)
	err := feed.Read(patient{c}, func(m feed.Map) { s.accept(m, turn) })
	if ctx.Err() == nil {
		s.log.Warn("feed lost, the last map stays in force", "error", err)
	}
}

func (s *service) feeding(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.feeders += n
}

// patient gives up on a feeder that says nothing for feedSilence.
type patient struct{ net.Conn }

func (p patient) Read(b []byte) (int, error) {
	if err := p.SetReadDeadline(time.Now().Add(feedSilence)); err != nil {
		return 0, err
	}
	return p.Conn.Read(b)
}
