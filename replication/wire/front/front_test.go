package front

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/xdg-go/scram"
	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/wire"
)

// lockedBuffer is written by the server's goroutines.
type lockedBuffer struct {
	mu sync.Mutex
	b  *bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestGreeting(t *testing.T) {
	config := users(t)
	config.MaxWireVersion = 25
	_, address, _, _ := serveToy(t, config, newToy(), quiet())
	p := dial(t, address)
	reply := p.ask(bson.D{{Key: "hello", Value: 1}, {Key: "saslSupportedMechs", Value: "admin.nobody"},
		{Key: "compression", Value: bson.A{"zlib", "lz4", "zstd"}}, {Key: "$db", Value: "admin"}})
	for _, want := range []string{`"isWritablePrimary": true`, `"msg": "isdbgrid"`, `"maxWireVersion": {"$numberInt":"21"}`, `"compression": ["zlib","zstd"]`,
		`"saslSupportedMechs": ["SCRAM-SHA-256"]`, `"logicalSessionTimeoutMinutes": {"$numberInt":"30"}`} {
		if !strings.Contains(reply.String(), want) {
			t.Errorf("%s is missing in %s", want, reply)
		}
	}
	if strings.Contains(reply.String(), "topologyVersion") || strings.Contains(reply.String(), "setName") {
		t.Errorf("a driver would look for more: %s", reply)
	}
}

func TestLegacyGreeting(t *testing.T) {
	_, address, _, _ := serveToy(t, users(t), newToy(), quiet())
	p := dial(t, address)
	ask := func(d bson.D) wire.Message {
		p.send(wire.Message{Op: wire.OpQuery, Body: marshal(t, d), Query: &wire.Query{Collection: "admin.$cmd", Return: -1}})
		m, err := p.in.Read()
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	m := ask(bson.D{{Key: "isMaster", Value: 1}, {Key: "helloOk", Value: true}})
	if m.Op != wire.OpReply || !m.Body.Lookup("ismaster").Boolean() || !m.Body.Lookup("helloOk").Boolean() {
		t.Errorf("%v", m.Body)
	}
	m = ask(bson.D{{Key: "$query", Value: bson.D{{Key: "ismaster", Value: 1}}}})
	if !m.Body.Lookup("ismaster").Boolean() {
		t.Errorf("%v", m.Body)
	}
	if m = ask(bson.D{{Key: "find", Value: "c"}}); code(t, m.Body) != 352 || m.Reply.Flags&wire.QueryFailure == 0 {
		t.Errorf("%v", m.Body)
	}
}

// A connection nobody logged in on learns nothing and costs little.
func TestStrangersAreBounded(t *testing.T) {
	_, address, _, _ := serveToy(t, users(t), newToy(), quiet())
	p := dial(t, address)
	for _, command := range []string{"find", "insert", "getMore", "endSessions", "shutdown"} {
		if got := code(t, p.ask(bson.D{{Key: command, Value: "c"}, {Key: "$db", Value: "app"}})); got != wire.CodeUnauthorized {
			t.Errorf("%s: code %d", command, got)
		}
	}
	for _, command := range []string{"hello", "ping", "buildInfo", "whatsmyuri", "connectionStatus"} {
		if got := code(t, p.ask(bson.D{{Key: command, Value: 1}, {Key: "$db", Value: "admin"}})); got != 0 {
			t.Errorf("%s: code %d", command, got)
		}
	}
	p.send(wire.Message{Op: wire.OpMsg, Body: marshal(t, bson.D{{Key: "ping", Value: strings.Repeat("x", 60<<10)}, {Key: "$db", Value: "a"}})})
	if _, err := p.in.Read(); err == nil {
		t.Error("a large message before the login was answered")
	}
}

func TestStrangersAreTimedOut(t *testing.T) {
	config := users(t)
	config.GreetingTimeout = 50 * time.Millisecond
	_, address, _, _ := serveToy(t, config, newToy(), quiet())
	if _, err := dial(t, address).Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("%v, expected the connection's end", err)
	}
}

func TestSlowMessageIsTimedOut(t *testing.T) {
	config := open()
	config.MessageTimeout = 50 * time.Millisecond
	_, address, _, _ := serveToy(t, config, newToy(), quiet())
	p := dial(t, address)
	if _, err := p.Write([]byte{200, 0, 0}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("%v, expected the connection's end", err)
	}
}

func TestMalformedMessageClosesItsConnectionOnly(t *testing.T) {
	lines := &lockedBuffer{b: &bytes.Buffer{}}
	s, address, _, _ := serveToy(t, open(), newToy(), slog.New(slog.NewTextHandler(lines, nil)))
	bystander, bad := dial(t, address), dial(t, address)
	ping := bson.D{{Key: "ping", Value: 1}, {Key: "$db", Value: "a"}}
	bystander.ask(ping)
	if _, err := bad.Write(bytes.Repeat([]byte{0x7f}, 64)); err != nil {
		t.Fatal(err)
	}
	if _, err := bad.in.Read(); err == nil {
		t.Fatal("answered")
	}
	bystander.ask(ping)
	if n := strings.Count(lines.String(), "\n"); n != 1 || s.Counters().Malformed != 1 {
		t.Errorf("%d lines, %+v:\n%s", n, s.Counters(), lines)
	}
}

func TestTooManyClients(t *testing.T) {
	config := open()
	config.MaxClients = 1
	s, address, _, _ := serveToy(t, config, newToy(), quiet())
	first := dial(t, address)
	ping := bson.D{{Key: "ping", Value: 1}, {Key: "$db", Value: "a"}}
	first.ask(ping)
	if _, err := dial(t, address).Read(make([]byte, 1)); err == nil {
		t.Error("a second client was taken")
	}
	first.ask(ping)
	if s.Counters().Refused != 1 {
		t.Errorf("%+v", s.Counters())
	}
}

// What is on its way is answered, who is idle is let go, who comes late is not taken.
func TestDrain(t *testing.T) {
	h := newToy()
	h.hold, h.held = make(chan struct{}), make(chan struct{}, 1)
	_, address, end, done := serveToy(t, open(), h, quiet())
	idle, busy := dial(t, address), dial(t, address)
	idle.ask(bson.D{{Key: "ping", Value: 1}, {Key: "$db", Value: "a"}})
	busy.send(wire.Message{Op: wire.OpMsg, Body: marshal(t, bson.D{{Key: "find", Value: "c"}, {Key: "$db", Value: "a"}})})
	<-h.held
	end()
	if _, err := idle.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("idle: %v", err)
	}
	close(h.hold)
	m, err := busy.in.Read()
	if err != nil || wire.ReplyError(m.Body) != nil {
		t.Errorf("busy: %v, %v", m.Body, err)
	}
	if _, err := busy.in.Read(); !errors.Is(err, io.EOF) {
		t.Errorf("busy, after its answer: %v", err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestDrainEndsWhatHangs(t *testing.T) {
	h := newToy()
	h.hold, h.held = make(chan struct{}), make(chan struct{}, 1)
	config := open()
	config.DrainTimeout = 20 * time.Millisecond
	_, address, end, done := serveToy(t, config, h, quiet())
	p := dial(t, address)
	p.send(wire.Message{Op: wire.OpMsg, Body: marshal(t, bson.D{{Key: "find", Value: "c"}, {Key: "$db", Value: "a"}})})
	<-h.held
	end()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestErrorsAreAnswered(t *testing.T) {
	h := newToy()
	h.fail["insert"] = []error{context.Canceled, fmt.Errorf("backend: %w", context.DeadlineExceeded), errors.New("disk on fire"),
		fmt.Errorf("statement 3: %w", &wire.CommandError{Code: 11000, Name: "DuplicateKey", Message: "E11000"})}
	_, address, _, _ := serveToy(t, open(), h, quiet())
	p := dial(t, address)
	insert := bson.D{{Key: "insert", Value: "c"}, {Key: "documents", Value: bson.A{}}, {Key: "$db", Value: "a"}}
	for _, want := range []int32{wire.CodeShutdownInProgress, wire.CodeMaxTimeMSExpired, wire.CodeInternalError, 11000, 0} {
		if got := code(t, p.ask(insert)); got != want {
			t.Errorf("code %d, expected %d", got, want)
		}
	}
	for want, d := range map[int32]bson.D{
		73:                       {{Key: "find", Value: "c"}},
		wire.CodeBadValue:        {{Key: "find", Value: "c"}, {Key: "lsid", Value: 1}, {Key: "$db", Value: "a"}},
		72:                       {{Key: "insert", Value: "c"}, {Key: "txnNumber", Value: int64(1)}, {Key: "$db", Value: "a"}},
		wire.CodeCommandNotFound: {{Key: "frobnicate", Value: 1}, {Key: "$db", Value: "a"}},
	} {
		if got := code(t, p.ask(d)); got != want {
			t.Errorf("%v: code %d, expected %d", d, got, want)
		}
	}
}

// A mechanism's secret must not be compressed, and nobody does by mistake.
func TestCompressedGreetingIsMalformed(t *testing.T) {
	s, address, _, _ := serveToy(t, open(), newToy(), quiet())
	p := dial(t, address)
	p.ask(bson.D{{Key: "hello", Value: 1}, {Key: "compression", Value: bson.A{"zlib"}}, {Key: "$db", Value: "admin"}})
	codec, err := wire.NewCodec()
	if err != nil {
		t.Fatal(err)
	}
	m := wire.Message{Op: wire.OpMsg, Body: marshal(t, bson.D{{Key: "saslStart", Value: 1}, {Key: "$db", Value: "admin"}}), Compressor: wire.Zlib}
	if err := wire.NewWriter(p, codec).Write(&m); err != nil {
		t.Fatal(err)
	}
	if _, err := p.in.Read(); err == nil || s.Counters().Malformed != 1 {
		t.Errorf("%v, %+v", err, s.Counters())
	}
}

// The long conversation of drivers that don't skip the empty exchange, without speculation.
func TestLoginInThreeSteps(t *testing.T) {
	_, address, _, _ := serveToy(t, users(t), newToy(), quiet())
	p := dial(t, address)
	client, err := scram.SHA256.NewClientUnprepped("app", "pencil", "")
	if err != nil {
		t.Fatal(err)
	}
	conversation := client.NewConversation()
	first, err := conversation.Step("")
	if err != nil {
		t.Fatal(err)
	}
	reply := p.ask(bson.D{{Key: "saslStart", Value: 1}, {Key: "mechanism", Value: mechanism}, {Key: "payload", Value: []byte(first)}, {Key: "$db", Value: "admin"}})
	for !reply.Lookup("done").Boolean() {
		_, challenge := reply.Lookup("payload").Binary()
		answer := ""
		if !conversation.Done() {
			if answer, err = conversation.Step(string(challenge)); err != nil {
				t.Fatal(err)
			}
		}
		reply = p.ask(bson.D{{Key: "saslContinue", Value: 1}, {Key: "conversationId", Value: reply.Lookup("conversationId").Int32()},
			{Key: "payload", Value: []byte(answer)}, {Key: "$db", Value: "admin"}})
		if err := wire.ReplyError(reply); err != nil {
			t.Fatal(err)
		}
	}
	if !conversation.Valid() {
		t.Error("the server did not prove that it knows the user")
	}
	find := bson.D{{Key: "find", Value: "c"}, {Key: "$db", Value: "a"}}
	if got := code(t, p.ask(find)); got != 0 {
		t.Errorf("logged in: code %d", got)
	}
	p.ask(bson.D{{Key: "logout", Value: 1}, {Key: "$db", Value: "admin"}})
	if got := code(t, p.ask(find)); got != wire.CodeUnauthorized {
		t.Errorf("logged out: code %d", got)
	}
}

// Whoever asks for a user that does not exist gets a salt as good as any, and the same one again.
func TestUnknownUsersLookAlike(t *testing.T) {
	s, err := New(users(t), newToy(), quiet())
	if err != nil {
		t.Fatal(err)
	}
	known, _ := s.lookup("app")
	one, _ := s.lookup("nobody")
	again, _ := s.lookup("nobody")
	if one.Salt != again.Salt || len(one.Salt) != len(known.Salt) {
		t.Errorf("salts %x, %x of a stranger, %x of a user", one.Salt, again.Salt, known.Salt)
	}
}

func TestCredentialIsKeptAndNeverPrinted(t *testing.T) {
	c, err := NewCredential("app", "pencil", DefaultIterations)
	if err != nil {
		t.Fatal(err)
	}
	var back Credential
	if err := back.UnmarshalText([]byte(c.Text())); err != nil || back.Text() != c.Text() {
		t.Fatalf("%v", err)
	}
	asJSON, _ := json.Marshal(map[string]Credential{"app": c})
	var logged bytes.Buffer
	slog.New(slog.NewJSONHandler(&logged, nil)).Info("x", "credential", c)
	for _, printed := range []string{fmt.Sprint(c), fmt.Sprintf("%+v %#v %x", c, c, c), string(asJSON), logged.String()} {
		if strings.Contains(printed, c.Text()) || !strings.Contains(printed, redacted) {
			t.Errorf("printed: %s", printed)
		}
	}
	for _, bad := range []string{"", "pencil", "SCRAM-SHA-256$1:AAAA$AA:AA", "SCRAM-SHA-1$4096:AAAA$AA:AA"} {
		if err := back.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestConfigNamesEveryProblem(t *testing.T) {
	c := Default()
	c.MaxWireVersion, c.Version, c.MaxClients, c.IdleTimeout = 5, "7.0", 0, 0
	err := c.Validate()
	for _, want := range []string{"users", "max_wire_version", "version", "max_clients", "idle_timeout"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in:\n%v", want, err)
		}
	}
}
