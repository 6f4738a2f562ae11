package front

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.uber.org/goleak"

	"popfleet/replication/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// toy is a handler with one collection in memory. It notes what it was asked.
type toy struct {
	mu      sync.Mutex
	docs    []bson.Raw
	cursors map[int64][]bson.Raw
	asked   []Request
	fail    map[string][]error // by command, used up from the front
	hold    chan struct{}      // when set, find waits for it
	held    chan struct{}
	heard   chan string // when set, is told every command
}

func newToy() *toy { return &toy{cursors: map[int64][]bson.Raw{}, fail: map[string][]error{}} }

func (h *toy) Handle(ctx context.Context, r *Request) (Reply, error) {
	if h.hold != nil && r.Command == "find" {
		h.held <- struct{}{}
		select {
		case <-h.hold:
		case <-ctx.Done():
			return Reply{}, ctx.Err()
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	note := *r
	note.Body, note.Sequences = bytes.Clone(r.Body), nil
	note.Session.StmtIDs = slices.Clone(r.Session.StmtIDs)
	note.ReadPreference.Tags = nil
	for _, set := range r.ReadPreference.Tags {
		note.ReadPreference.Tags = append(note.ReadPreference.Tags, bytes.Clone(set))
	}
	h.asked = append(h.asked, note)
	if h.heard != nil {
		h.heard <- r.Command
	}
	if waiting := h.fail[r.Command]; len(waiting) > 0 {
		h.fail[r.Command] = waiting[1:]
		return Reply{}, waiting[0]
	}
	d, err := h.answer(r)
	if err != nil {
		return Reply{}, err
	}
	d = append(d, bson.E{Key: "ok", Value: 1.0}, bson.E{Key: "operationTime", Value: bson.Timestamp{T: 77, I: 1}},
		bson.E{Key: "$clusterTime", Value: bson.D{{Key: "clusterTime", Value: bson.Timestamp{T: 77, I: 1}}}})
	b, err := bson.Marshal(d)
	return Reply{Body: b}, err
}

func (h *toy) answer(r *Request) (bson.D, error) {
	switch r.Command {
	case "insert":
		m := wire.Message{Body: r.Body, Sequences: r.Sequences}
		documents, _ := m.Merged().Lookup("documents").ArrayOK()
		values, err := documents.Values()
		if err != nil {
			return nil, err
		}
		for _, v := range values {
			h.docs = append(h.docs, bytes.Clone(v.Document()))
		}
		return bson.D{{Key: "n", Value: int32(len(values))}}, nil
	case "update", "delete":
		return bson.D{{Key: "n", Value: int32(1)}, {Key: "nModified", Value: int32(1)}}, nil
	case "find":
		return h.batch(r, "firstBatch", h.docs, r.Body.Lookup("batchSize")), nil
	case "getMore":
		id := r.Body.Lookup("getMore").Int64()
		rest, known := h.cursors[id]
		if !known {
			return nil, &wire.CommandError{Code: wire.CodeCursorNotFound, Name: "CursorNotFound", Message: "cursor not found"}
		}
		delete(h.cursors, id)
		return h.batch(r, "nextBatch", rest, r.Body.Lookup("batchSize")), nil
	case "killCursors":
		values, err := r.Body.Lookup("cursors").Array().Values()
		for _, v := range values {
			delete(h.cursors, v.Int64())
		}
		return bson.D{}, err
	case "endSessions", "commitTransaction", "abortTransaction":
		return bson.D{}, nil
	case "empty":
		return nil, errors.New("an error of our own")
	}
	return nil, &wire.CommandError{Code: wire.CodeCommandNotFound, Name: "CommandNotFound", Message: "no such command: '" + r.Command + "'"}
}

func (h *toy) batch(r *Request, name string, docs []bson.Raw, size bson.RawValue) bson.D {
	n, is := size.AsInt64OK()
	if !is || n > int64(len(docs)) {
		n = int64(len(docs))
	}
	var id int64
	if n < int64(len(docs)) {
		id = int64(len(h.asked))
		h.cursors[id] = docs[n:]
	}
	return bson.D{{Key: "cursor", Value: bson.D{{Key: name, Value: append([]bson.Raw{}, docs[:n]...)}, {Key: "id", Value: id}, {Key: "ns", Value: r.DB + ".c"}}}}
}

// of lists what was asked by that command.
func (h *toy) of(command string) (all []Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range h.asked {
		if r.Command == command {
			all = append(all, r)
		}
	}
	return all
}

// serveToy runs a server until the test's end and gives its address and the end's own switch.
func serveToy(t testing.TB, config Config, h Handler, log *slog.Logger) (*Server, string, context.CancelFunc, <-chan error) {
	t.Helper()
	s, err := New(config, h, log)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done, ended := make(chan error, 1), make(chan struct{})
	go func() { done <- s.Serve(ctx, l); close(ended) }()
	t.Cleanup(func() { cancel(); <-ended })
	return s, l.Addr().String(), cancel, done
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func open() Config {
	c := Default()
	c.Open, c.DrainTimeout = true, 5*time.Second
	return c
}

func users(t testing.TB) Config {
	t.Helper()
	credential, err := NewCredential("app", "pencil", minIterations)
	if err != nil {
		t.Fatal(err)
	}
	c := Default()
	c.Users, c.DrainTimeout = map[string]Credential{"app": credential}, 5*time.Second
	return c
}

// plain is a client without a driver.
type plain struct {
	net.Conn
	t  testing.TB
	in *wire.Reader
	id int32
}

func dial(t testing.TB, address string) *plain {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(20 * time.Second))
	t.Cleanup(func() { c.Close() })
	return &plain{Conn: c, t: t, in: wire.NewReader(c, wire.DefaultLimits(), nil)}
}

func (p *plain) send(m wire.Message) {
	p.t.Helper()
	p.id++
	m.RequestID = p.id
	b, err := wire.AppendMessage(nil, &m)
	if err != nil {
		p.t.Fatal(err)
	}
	if _, err := p.Write(b); err != nil {
		p.t.Fatal(err)
	}
}

func (p *plain) ask(command bson.D) bson.Raw {
	p.t.Helper()
	p.send(wire.Message{Op: wire.OpMsg, Body: marshal(p.t, command)})
	m, err := p.in.Read()
	if err != nil {
		p.t.Fatal(err)
	}
	if m.ResponseTo != p.id {
		p.t.Fatalf("answer to %d, expected %d", m.ResponseTo, p.id)
	}
	return bytes.Clone(m.Body)
}

func marshal(t testing.TB, v any) bson.Raw {
	t.Helper()
	b, err := bson.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func code(t testing.TB, reply bson.Raw) int32 {
	t.Helper()
	var e *wire.CommandError
	if err := wire.ReplyError(reply); !errors.As(err, &e) {
		return 0
	}
	return e.Code
}

func pipe(t testing.TB) (theirs, ours net.Conn) {
	t.Helper()
	theirs, ours = net.Pipe()
	t.Cleanup(func() { theirs.Close(); ours.Close() })
	return theirs, ours
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
