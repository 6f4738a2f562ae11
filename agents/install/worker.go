package install

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"popfleet/agents/command"
	"popfleet/agents/exchange"
	"popfleet/agents/facts"
	"popfleet/agents/luks"
	"popfleet/playbooks/spec"
)

// Work is the detached worker: it reads one install request from in, does it, and leaves its events in [Dir]. Its error
// has been told in the events already.
func Work(ctx context.Context, in io.Reader, log *slog.Logger) error {
	data, err := io.ReadAll(io.LimitReader(in, 1<<20))
	if err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	var s spec.Install
	if err := exchange.Decode(data, &s); err != nil {
		return err
	}
	// The keys in this process must not reach a swap device or a core dump of the rescue system.
	_ = unix.Mlockall(unix.MCL_CURRENT)
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	f := folder(Dir)
	lock, err := f.lock()
	if err != nil {
		return err
	}
	defer lock.Close()
	events, err := newEvents(f.file("events"))
	if err != nil {
		return err
	}
	defer events.Close()
	if err := f.writeState(state{Run: s.Run, PID: os.Getpid()}); err != nil {
		return err
	}
	j := &job{spec: s, run: command.System{}, luks: luks.Tool{Run: command.System{}}, log: log, emit: events.emit,
		root: filepath.Join(Dir, "root"), host: facts.Host{}}
	j.image = func(ctx context.Context) (io.ReadCloser, error) { return f.awaitImage(ctx, s.Image) }
	installed, err := j.install(ctx)
	events.finish(installed, err)
	return err
}

// events is the worker's event file.
type events struct {
	mu sync.Mutex
	f  *os.File // mu
}

func newEvents(path string) (*events, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	return &events{f: f}, nil
}

func (e *events) Close() error { return e.f.Close() }

func (e *events) emit(ev spec.Event) {
	ev.V, ev.Time = exchange.Version, time.Now().UTC()
	line, err := json.Marshal(ev)
	if err != nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	_, _ = e.f.Write(append(line, '\n')) // tmpfs: nothing could be done about it here
}

func (e *events) finish(result spec.Installed, err error) {
	if err != nil {
		e.emit(exchange.ErrorEvent(0, err))
		return
	}
	data, err := json.Marshal(result)
	if err != nil {
		e.emit(exchange.ErrorEvent(0, err))
		return
	}
	e.emit(spec.Event{Kind: spec.KindResult, Data: data})
}

// awaitImage says that the image is needed and waits for a connection that brings it, for as long as that takes.
func (f folder) awaitImage(ctx context.Context, image spec.Blob) (io.ReadCloser, error) {
	sock := f.file("image.sock")
	if err := os.Remove(sock); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", sock)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	data, err := json.Marshal(image)
	if err != nil {
		return nil, err
	}
	if err := replace(f.file("need"), data); err != nil {
		return nil, err
	}
	defer os.Remove(f.file("need"))
	return l.Accept()
}
