package back

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.uber.org/goleak"

	"popfleet/replication/wire"
	"popfleet/replication/wire/front"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// backend is a scripted server. It answers find with a cursor that knows its connection.
type backend struct {
	mu    sync.Mutex
	asked []bson.Raw
	on    []int64
	hold  chan struct{} // when set, "wait" blocks on it
	held  chan struct{}
}

func (b *backend) Handle(ctx context.Context, r *front.Request) (front.Reply, error) {
	b.mu.Lock()
	m := wire.Message{Body: r.Body, Sequences: r.Sequences}
	b.asked = append(b.asked, bytes.Clone(m.Merged()))
	b.on = append(b.on, r.Client.ID)
	b.mu.Unlock()
	if r.Command == "wait" {
		b.held <- struct{}{}
		select {
		case <-b.hold:
		case <-ctx.Done():
		}
	}
	d := bson.D{{Key: "connection", Value: r.Client.ID}}
	switch r.Command {
	case "find":
		d = append(d, bson.E{Key: "cursor", Value: bson.D{{Key: "id", Value: r.Client.ID * 1000}, {Key: "firstBatch", Value: bson.A{}}}})
	case "getMore":
		id := r.Body.Lookup("getMore").Int64()
		if id/1000 != r.Client.ID {
			return front.Reply{}, &wire.CommandError{Code: wire.CodeCursorNotFound, Name: "CursorNotFound", Message: "not on this connection"}
		}
		if last, _ := r.Body.Lookup("last").BooleanOK(); last {
			id = 0
		}
		d = append(d, bson.E{Key: "cursor", Value: bson.D{{Key: "id", Value: id}, {Key: "nextBatch", Value: bson.A{}}}})
	case "killCursors":
		d = append(d, bson.E{Key: "cursorsKilled", Value: r.Body.Lookup("cursors")})
	case "refuse":
		return front.Reply{}, &wire.CommandError{Code: 11000, Name: "DuplicateKey", Message: "E11000"}
	}
	body, err := bson.Marshal(append(d, bson.E{Key: "ok", Value: 1.0}))
	return front.Reply{Body: body}, err
}

func start(t testing.TB, b *backend, config front.Config) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, err := front.New(config, b, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

func anyone() front.Config {
	c := front.Default()
	c.Open, c.DrainTimeout = true, 5*time.Second
	return c
}

func pool(t testing.TB, address string, change func(*Config)) *Pool {
	t.Helper()
	c := Default()
	c.Address, c.CommandTimeout = address, 20*time.Second
	if change != nil {
		change(&c)
	}
	p, err := New(c, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func command(t testing.TB, d bson.D) Command {
	t.Helper()
	body, err := bson.Marshal(append(d, bson.E{Key: "$db", Value: "app"}))
	if err != nil {
		t.Fatal(err)
	}
	return Command{Body: body}
}

func TestRunAndRefusal(t *testing.T) {
	p := pool(t, start(t, &backend{}, anyone()), nil)
	r, err := p.Run(t.Context(), "app", bson.D{{Key: "count", Value: "c"}})
	if err != nil {
		t.Fatal(err)
	}
	r.Release()
	var refused *wire.CommandError
	if _, err := p.Run(t.Context(), "app", bson.D{{Key: "refuse", Value: 1}}); !errors.As(err, &refused) || refused.Code != 11000 {
		t.Errorf("%v", err)
	}
	info, err := p.Info(t.Context())
	if err != nil || info.Version != "7.0.0" || info.MaxWireVersion != front.MaxWireVersion || !info.Mongos || !info.Sessions {
		t.Errorf("%+v, %v", info, err)
	}
	if c := p.Counters(); c.Dialed != 1 || c.Broken != 0 || c.Idle != 1 {
		t.Errorf("%+v", c)
	}
}

// A reply stays what it is while its connection already carries others.
func TestRepliesKeepTheirMemory(t *testing.T) {
	p := pool(t, start(t, &backend{}, anyone()), func(c *Config) { c.Size = 1 })
	r, err := p.Do(t.Context(), command(t, bson.D{{Key: "find", Value: "c"}}))
	if err != nil {
		t.Fatal(err)
	}
	want := r.Body.String()
	for range 10 {
		other, err := p.Do(t.Context(), command(t, bson.D{{Key: "ping", Value: 1}}))
		if err != nil {
			t.Fatal(err)
		}
		other.Release()
	}
	if got := r.Body.String(); got != want {
		t.Errorf("%s became %s", want, got)
	}
}

func TestSectionsAndCompression(t *testing.T) {
	for _, with := range append(wire.Compressors(), wire.Uncompressed) {
		b := &backend{}
		p := pool(t, start(t, b, anyone()), func(c *Config) { c.Compressors = []wire.Compressor{with} })
		doc, err := bson.Marshal(bson.D{{Key: "text", Value: strings.Repeat("text ", 1000)}})
		if err != nil {
			t.Fatal(err)
		}
		insert := command(t, bson.D{{Key: "insert", Value: "c"}})
		insert.Sequences = []wire.Sequence{wire.NewSequence("documents", doc, doc)}
		r, err := p.Do(t.Context(), insert)
		if err != nil {
			t.Fatalf("%s: %v", with, err)
		}
		r.Release()
		if values, _ := b.asked[0].Lookup("documents").Array().Values(); len(values) != 2 {
			t.Errorf("%s: %d documents arrived", with, len(values))
		}
	}
}

func TestLogin(t *testing.T) {
	credential, err := front.NewCredential("proxy", "s3cret", 4096)
	if err != nil {
		t.Fatal(err)
	}
	config := front.Default()
	config.Users = map[string]front.Credential{"proxy": credential}
	address := start(t, &backend{}, config)
	with := func(password string, err error) *Pool {
		return pool(t, address, func(c *Config) {
			c.Compressors = wire.Compressors()
			c.Login = &Login{User: "proxy", Password: func(context.Context) (string, error) { return password, err }}
		})
	}
	if _, err := with("s3cret", nil).Run(t.Context(), "app", bson.D{{Key: "count", Value: "c"}}); err != nil {
		t.Error(err)
	}
	for _, p := range []*Pool{with("wrong-pw", nil), with("", errors.New("no such file")), pool(t, address, nil)} {
		_, err := p.Run(t.Context(), "app", bson.D{{Key: "count", Value: "c"}})
		if err == nil || strings.Contains(err.Error(), "wrong-pw") {
			t.Errorf("%v", err)
		}
		var e *Error
		if errors.As(err, &e) && e.Sent {
			t.Errorf("no command of ours was sent: %v", err)
		}
	}
}

// A pool never has more connections than it may, and everybody gets their turn.
func TestPoolIsBounded(t *testing.T) {
	b := &backend{}
	p := pool(t, start(t, b, anyone()), func(c *Config) { c.Size = 3 })
	var all sync.WaitGroup
	for range 200 {
		all.Go(func() {
			if _, err := p.Run(t.Context(), "app", bson.D{{Key: "count", Value: "c"}}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	slices.Sort(b.on)
	if used := len(slices.Compact(b.on)); used > 3 {
		t.Errorf("%d connections", used)
	}
	if c := p.Counters(); c.Open > 3 || c.Waiting != 0 || c.Idle != c.Open {
		t.Errorf("%+v", c)
	}
}

func TestDeadlinesAndCancellation(t *testing.T) {
	b := &backend{hold: make(chan struct{}), held: make(chan struct{}, 10)}
	defer close(b.hold)
	p := pool(t, start(t, b, anyone()), func(c *Config) { c.Size, c.CommandTimeout = 1, 100*time.Millisecond })
	_, err := p.Run(t.Context(), "app", bson.D{{Key: "wait", Value: 1}})
	var e *Error
	if !errors.As(err, &e) || !e.Sent || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("deadline: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-b.held; <-b.held; cancel() }()
	_, err = p.Run(ctx, "app", bson.D{{Key: "wait", Value: 1}})
	if !errors.As(err, &e) || !e.Sent || !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := p.Run(t.Context(), "app", bson.D{{Key: "count", Value: 1}}); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	if c := p.Counters(); c.Broken != 2 || c.Open != 1 {
		t.Errorf("%+v", c)
	}
}

func TestWaitingForAConnectionEnds(t *testing.T) {
	b := &backend{hold: make(chan struct{}), held: make(chan struct{}, 1)}
	p := pool(t, start(t, b, anyone()), func(c *Config) { c.Size = 1 })
	done := make(chan error, 1)
	go func() { _, err := p.Run(context.Background(), "app", bson.D{{Key: "wait", Value: 1}}); done <- err }()
	<-b.held
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := p.Run(ctx, "app", bson.D{{Key: "count", Value: 1}})
	var e *Error
	if !errors.As(err, &e) || e.Sent || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	close(b.hold)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := p.Run(t.Context(), "app", bson.D{{Key: "count", Value: 1}}); err != nil {
		t.Error(err)
	}
}

func TestCursorsStayOnTheirConnection(t *testing.T) {
	b := &backend{}
	p := pool(t, start(t, b, anyone()), func(c *Config) { c.Size, c.PinCursors = 4, true })
	more := func(id int64, last bool) error {
		r, err := p.Do(t.Context(), command(t, bson.D{{Key: "getMore", Value: id}, {Key: "collection", Value: "c"}, {Key: "last", Value: last}}))
		if err != nil {
			t.Fatal(err)
		}
		return r.Err()
	}
	var opened []int64
	var mu sync.Mutex
	var all sync.WaitGroup
	for range 40 {
		all.Go(func() {
			r, err := p.Run(t.Context(), "app", bson.D{{Key: "find", Value: "c"}})
			if err != nil {
				t.Error(err)
				return
			}
			id := r.Body.Lookup("cursor", "id").Int64()
			if err := more(id, false); err != nil {
				t.Errorf("cursor %d: %v", id, err)
			}
			mu.Lock()
			opened = append(opened, id)
			mu.Unlock()
		})
	}
	all.Wait()
	slices.Sort(opened)
	opened = slices.Compact(opened)
	if err := more(opened[0], true); err != nil {
		t.Error(err)
	}
	if more(opened[0], false) == nil {
		t.Error("a cursor read to its end goes on")
	}
	r, err := p.Run(t.Context(), "app", bson.D{{Key: "killCursors", Value: "c"}, {Key: "cursors", Value: append([]int64{77}, opened[1:]...)}})
	if err != nil {
		t.Fatal(err)
	}
	killed, _ := r.Body.Lookup("cursorsKilled").Array().Values()
	missed, _ := r.Body.Lookup("cursorsNotFound").Array().Values()
	if len(killed) != len(opened)-1 || len(missed) != 1 || p.Counters().Cursors != 0 {
		t.Errorf("%s, %+v", r.Body, p.Counters())
	}
}

func TestClosedPool(t *testing.T) {
	p := pool(t, start(t, &backend{}, anyone()), nil)
	if _, err := p.Run(t.Context(), "app", bson.D{{Key: "count", Value: 1}}); err != nil {
		t.Fatal(err)
	}
	p.Close()
	if _, err := p.Run(t.Context(), "app", bson.D{{Key: "count", Value: 1}}); !errors.Is(err, ErrClosed) {
		t.Errorf("%v", err)
	}
	if c := p.Counters(); c.Open != 0 {
		t.Errorf("%+v", c)
	}
}

func TestConfigNamesEveryProblem(t *testing.T) {
	err := Config{Login: &Login{}}.Validate()
	for _, want := range []string{"address", "login", "size", "dial_timeout"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in:\n%v", want, err)
		}
	}
}

// FuzzStrip: what is left is a document with the other fields, untouched and in order.
func FuzzStrip(f *testing.F) {
	seed, err := bson.Marshal(bson.D{{Key: "find", Value: "c"}, {Key: "lsid", Value: bson.D{}}, {Key: "a", Value: 1}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed, "lsid")
	f.Fuzz(func(t *testing.T, body []byte, field string) {
		if wire.CheckDocument(body, wire.DefaultLimits()) != nil {
			return
		}
		out, _ := strip(nil, body, []string{field})
		if err := wire.CheckDocument(out, wire.DefaultLimits()); err != nil {
			t.Fatal(err)
		}
		before, err := bson.Raw(body).Elements()
		if err != nil {
			t.Fatal(err)
		}
		after, err := out.Elements()
		if err != nil {
			t.Fatal(err)
		}
		before = slices.DeleteFunc(before, func(e bson.RawElement) bool { return e.Key() == field })
		if !slices.EqualFunc(before, after, func(a, b bson.RawElement) bool { return bytes.Equal(a, b) }) {
			t.Fatalf("%s without %q is %s", bson.Raw(body), field, out)
		}
	})
}
