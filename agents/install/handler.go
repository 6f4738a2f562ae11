package install

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"

	"popfleet/agents/exchange"
	"popfleet/agents/facts"
	"popfleet/playbooks/spec"
)

// Handler serves [spec.OpInstall].
type Handler struct {
	Host   facts.Host
	Dir    string                      // "" is [Dir]
	Worker func(specJSON []byte) error // starts a detached worker; nil starts this program's own
	Poll   time.Duration               // 0: 100 ms
}

// Serve starts the worker or joins the one in progress, and follows it to its end.
func (h Handler) Serve(ctx context.Context, specJSON json.RawMessage, s exchange.Session) (any, error) {
	var req spec.Install
	if err := exchange.Decode(specJSON, &req); err != nil {
		return nil, err
	}
	if err := validate(req); err != nil {
		return nil, err
	}
	if ok, why := h.Host.Rescue(); !ok {
		return nil, &spec.Error{Code: spec.CodeNotRescue, Message: "this machine is not in a rescue system: " + why}
	}
	f := h.folder()
	if err := os.MkdirAll(string(f), 0o700); err != nil {
		return nil, err
	}
	if err := h.startOrJoin(ctx, f, req.Run, specJSON); err != nil {
		return nil, err
	}
	return (&follower{f: f, s: s, poll: h.poll()}).follow(ctx)
}

func (h Handler) folder() folder {
	if h.Dir == "" {
		return folder(Dir)
	}
	return folder(h.Dir)
}

func (h Handler) poll() time.Duration {
	if h.Poll == 0 {
		return 100 * time.Millisecond
	}
	return h.Poll
}

func (h Handler) startOrJoin(ctx context.Context, f folder, run string, specJSON []byte) error {
	busy, err := f.busy()
	if err != nil {
		return err
	}
	st, err := f.readState()
	switch {
	case busy && err == nil && st.Run != run:
		return &spec.Error{Code: CodeBusy, Message: fmt.Sprintf("installation %q is in progress on this machine, %q was asked for", st.Run, run),
			Hint: "another operator is at work; wait for it, or boot the rescue system again"}
	case busy:
		return nil
	case err == nil && st.Run == run && finishedWell(f.file("events")):
		return nil // done in this boot: its events and its result are told again
	}
	return h.start(ctx, f)(specJSON)
}

// CodeBusy is the error code for another installation in progress.
const CodeBusy = "busy"

// start begins a worker and waits until it holds the lock.
func (h Handler) start(ctx context.Context, f folder) func([]byte) error {
	return func(specJSON []byte) error {
		for _, name := range []string{"events", "state.json", "need"} {
			if err := os.Remove(f.file(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
		worker := h.Worker
		if worker == nil {
			worker = func(specJSON []byte) error { return spawn(f, specJSON) }
		}
		if err := worker(specJSON); err != nil {
			return fmt.Errorf("start the install worker: %w", err)
		}
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		for {
			if _, err := f.readState(); err == nil {
				return nil
			}
			if err := wait(ctx, h.poll()); err != nil {
				return fmt.Errorf("the install worker did not start: %s", lastLines(f.file("log")))
			}
		}
	}
}

// spawn starts `fleet-agent install-worker` in a session of its own, so that nothing of the SSH connection's end
// reaches it. The request, which holds the install key, goes through a pipe.
func spawn(f folder, specJSON []byte) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(f.file("log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(self, "install-worker")
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	go cmd.Wait() // reaps it if it ends before this process does
	_, err = in.Write(specJSON)
	return errors.Join(err, in.Close())
}

// follower carries a worker's events to the operator, and the image to the worker.
type follower struct {
	f    folder
	s    exchange.Session
	poll time.Duration

	feeding chan error // not nil while the image is on its way
}

func (w *follower) follow(ctx context.Context) (any, error) {
	file, err := w.open(ctx)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	lines := &lineReader{r: bufio.NewReader(file)}
	defer w.stopFeeding()
	for {
		last, err := w.events(lines)
		if err != nil || last != nil {
			return resultOf(last, err)
		}
		if err := w.feed(ctx); err != nil {
			return nil, err
		}
		if busy, err := w.f.busy(); err == nil && !busy {
			if last, err := w.events(lines); err != nil || last != nil {
				return resultOf(last, err)
			}
			return nil, &spec.Error{Code: exchange.CodeFailed, Message: "the install worker died: " + lastLines(w.f.file("log")),
				Hint: "run the same again: it goes on where the disks are"}
		}
		if err := wait(ctx, w.poll); err != nil {
			return nil, err
		}
	}
}

func (w *follower) open(ctx context.Context) (*os.File, error) {
	for {
		file, err := os.Open(w.f.file("events"))
		if err == nil || !errors.Is(err, os.ErrNotExist) {
			return file, err
		}
		if err := wait(ctx, w.poll); err != nil {
			return nil, err
		}
	}
}

// events passes on what is new, and returns the last event when it is among it.
func (w *follower) events(lines *lineReader) (*spec.Event, error) {
	for {
		line, err := lines.next()
		if err != nil || line == nil {
			return nil, err
		}
		var e spec.Event
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, fmt.Errorf("the worker's events: %w", err)
		}
		if e.Kind == spec.KindResult || e.Kind == spec.KindError {
			return &e, nil
		}
		w.s.Emit(e)
	}
}

// feed brings the image when the worker waits for it. It runs beside the events, which tell its progress.
func (w *follower) feed(ctx context.Context) error {
	if w.feeding != nil {
		select {
		case err := <-w.feeding:
			w.feeding = nil
			var typed *spec.Error
			if err != nil && !errors.As(err, &typed) {
				return err // the connection: nobody is left to follow for
			}
		default:
		}
		return nil
	}
	image, waits := w.f.need()
	if !waits {
		return nil
	}
	w.feeding = make(chan error, 1)
	go func(done chan<- error) {
		done <- w.s.Fetch(ctx, []spec.Blob{image}, func(_ spec.Blob, r io.Reader) error {
			c, err := net.Dial("unix", w.f.file("image.sock"))
			if err != nil {
				return &spec.Error{Code: exchange.CodeFailed, Message: "the worker does not take the image: " + err.Error()}
			}
			defer c.Close()
			if _, err := io.CopyBuffer(struct{ io.Writer }{c}, r, make([]byte, 256<<10)); err != nil {
				return &spec.Error{Code: exchange.CodeFailed, Message: "hand the image to the worker: " + err.Error()}
			}
			return nil
		})
	}(w.feeding)
	return nil
}

// stopFeeding lets the blob's last bytes pass, so that the stream is at a line again for the next request.
func (w *follower) stopFeeding() {
	if w.feeding != nil {
		<-w.feeding
	}
}

func resultOf(e *spec.Event, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	if e.Kind == spec.KindError {
		return nil, e.Error
	}
	return e.Data, nil
}

// lineReader reads a file that grows: a line without its newline yet is kept for the next call.
type lineReader struct {
	r    *bufio.Reader
	part []byte
}

// next returns nil when there is no further whole line yet.
func (l *lineReader) next() ([]byte, error) {
	b, err := l.r.ReadBytes('\n')
	l.part = append(l.part, b...)
	if errors.Is(err, io.EOF) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	line := l.part
	l.part = nil
	return line, nil
}

func finishedWell(path string) bool {
	b, err := os.ReadFile(path)
	if err != nil {
		return false
	}
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	var e spec.Event
	return json.Unmarshal(lines[len(lines)-1], &e) == nil && e.Kind == spec.KindResult
}

func lastLines(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return "no log: " + err.Error()
	}
	if len(b) > 1500 {
		b = b[len(b)-1500:]
	}
	return string(bytes.TrimSpace(b))
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
