package install

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"popfleet/agents/facts"
	"popfleet/playbooks/spec"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const imageBytes = "the image's bytes"

// operator is the session's other end: it hands out the image, or cuts the connection.
type operator struct {
	mu     sync.Mutex
	events []spec.Event // mu
	cut    bool
}

func (o *operator) Emit(e spec.Event) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.events = append(o.events, e)
}

func (o *operator) Fetch(_ context.Context, blobs []spec.Blob, got func(spec.Blob, io.Reader) error) error {
	if o.cut {
		_ = got(blobs[0], strings.NewReader(imageBytes[:4]))
		return io.ErrUnexpectedEOF
	}
	return got(blobs[0], strings.NewReader(imageBytes))
}

func (o *operator) steps() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	var s []string
	for _, e := range o.events {
		s = append(s, e.Step)
	}
	return strings.Join(s, " ")
}

func rescueRoot(t *testing.T) facts.Host {
	t.Helper()
	root := t.TempDir()
	for path, data := range map[string]string{"proc/sys/kernel/hostname": "rescue\n", "etc/hetzner-build": "1"} {
		os.MkdirAll(filepath.Dir(filepath.Join(root, path)), 0o755)
		os.WriteFile(filepath.Join(root, path), []byte(data), 0o644)
	}
	return facts.Host{Root: root}
}

func requestFor(run string) json.RawMessage {
	sum := sha256.Sum256([]byte(imageBytes))
	b, _ := json.Marshal(spec.Install{Version: 1, Node: "fsn-1", Fleet: "demo", Run: run, InstallKey: make([]byte, 32), AuthorizedKeys: []string{"k"},
		UserCA: "ca", Image: spec.Blob{SHA256: hex.EncodeToString(sum[:]), SizeBytes: int64(len(imageBytes))}})
	return b
}

// bench is a handler with a worker inside this process that does nothing but take the image until it has it whole.
type bench struct {
	h       Handler
	f       folder
	started int
	end     error // what the worker's work ends with
	wg      sync.WaitGroup
}

func newBench(t *testing.T) *bench {
	b := &bench{}
	dir, err := os.MkdirTemp("/tmp", "inst") // unix sockets have short names
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.wg.Wait(); os.RemoveAll(dir) })
	b.f = folder(dir)
	b.h = Handler{Host: rescueRoot(t), Dir: dir, Poll: time.Millisecond, Worker: b.work}
	return b
}

func (b *bench) work(specJSON []byte) error {
	b.started++
	var s spec.Install
	if err := json.Unmarshal(specJSON, &s); err != nil {
		return err
	}
	lock, err := b.f.lock()
	if err != nil {
		return err
	}
	ev, err := newEvents(b.f.file("events"))
	if err != nil {
		return err
	}
	b.wg.Go(func() {
		defer lock.Close()
		defer ev.Close()
		ev.emit(spec.Event{Kind: spec.KindStep, Step: "guards"})
		for got := ""; got != imageBytes; {
			c, err := b.f.awaitImage(context.Background(), s.Image)
			if err != nil {
				return
			}
			data, _ := io.ReadAll(c)
			c.Close()
			got = string(data)
		}
		ev.emit(spec.Event{Kind: spec.KindStep, Step: "image"})
		ev.finish(spec.Installed{Run: s.Run}, b.end)
	})
	return b.f.writeState(state{Run: s.Run})
}

func TestHandler(t *testing.T) {
	b := newBench(t)
	first := &operator{cut: true}
	if _, err := b.h.Serve(t.Context(), requestFor("r1"), first); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("a cut connection: %v", err)
	}
	var typed *spec.Error
	if _, err := b.h.Serve(t.Context(), requestFor("r2"), &operator{}); !errors.As(err, &typed) || typed.Code != CodeBusy {
		t.Fatalf("another run while one is in progress: %v", err)
	}
	for range 2 { // joins the worker; then, the worker being done, is told its result again
		op := &operator{}
		result, err := b.h.Serve(t.Context(), requestFor("r1"), op)
		if err != nil {
			t.Fatal(err)
		}
		if data, _ := json.Marshal(result); !strings.Contains(string(data), `"run":"r1"`) {
			t.Errorf("result %s", data)
		}
		if op.steps() != "guards image" {
			t.Errorf("events %q", op.steps())
		}
		b.wg.Wait()
	}
	if b.started != 1 {
		t.Errorf("%d workers were started", b.started)
	}
}

func TestHandlerFailsAndStartsAgain(t *testing.T) {
	b := newBench(t)
	b.end = &spec.Error{Code: spec.CodeWrongDisk, Message: "no such disk", Hint: "look"}
	var typed *spec.Error
	if _, err := b.h.Serve(t.Context(), requestFor("r1"), &operator{}); !errors.As(err, &typed) || *typed != *b.end.(*spec.Error) {
		t.Fatalf("%v", err)
	}
	b.wg.Wait()
	b.end = nil
	if _, err := b.h.Serve(t.Context(), requestFor("r1"), &operator{}); err != nil {
		t.Fatal(err)
	}
	if b.started != 2 {
		t.Errorf("%d workers were started", b.started)
	}
}

func TestHandlerRefusesOutsideRescue(t *testing.T) {
	b := newBench(t)
	b.h.Host = facts.Host{Root: t.TempDir()}
	var typed *spec.Error
	if _, err := b.h.Serve(t.Context(), requestFor("r1"), &operator{}); !errors.As(err, &typed) || typed.Code != spec.CodeNotRescue {
		t.Errorf("%v", err)
	}
	if b.started != 0 {
		t.Error("a worker was started")
	}
}
