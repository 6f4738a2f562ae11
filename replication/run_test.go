package replication

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"popfleet/internal/control"
	"popfleet/internal/mtls"
	"popfleet/internal/mtls/mtlstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestDaemonSaysPlainlyThatItDoesNotReplicate(t *testing.T) {
	store, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	c := Default()
	c.Fleet, c.Node, c.Listen, c.PeerListen = "demo", "fsn-1", "127.0.0.1:0", "127.0.0.1:0"
	c.Store = "mongodb://" + store.Addr().String()
	c.Peers = []Peer{{"fsn-2", "127.0.0.1:1"}}
	c.TLS = mtlstest.New(t).Files(mtls.Name{Fleet: "demo", Service: "replicator", Node: "fsn-1"})
	c.Control = filepath.Join(t.TempDir(), "c.sock")
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done, up := make(chan error, 1), make(chan struct{})
	go func() { done <- Run(ctx, c, slog.New(slog.DiscardHandler), func(_, _ net.Addr) { close(up) }) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("ended with %v", err)
		}
	}()
	<-up
	s := status(t, c.Control)
	raw, _ := json.Marshal(s)
	for _, want := range []string{`"replicating":false`, `"state":"never_connected"`, `"rtt_ms":null`, `"service":"replicator"`} {
		if !strings.Contains(string(raw), want) {
			t.Errorf("status lacks %s: %s", want, raw)
		}
	}
}

func status(t *testing.T, socket string) control.Status {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for {
		s, err := control.Dial(socket).Status(ctx)
		if err == nil {
			return s
		}
		if ctx.Err() != nil {
			t.Fatalf("no status: %v", err)
		}
	}
}

func TestValidateNamesEveryProblem(t *testing.T) {
	c := Default()
	c.Listen, c.Store, c.Peers = "0.0.0.0:27017", "mongodb://user:secret@db:27017", []Peer{{"fsn-2", "nowhere"}, {"fsn-2", "a:1"}}
	err := c.Validate()
	for _, want := range []string{"fleet and node", "listen", "credentials", "peers[0].address", "peers[1].node", "tls.cert"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in:\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("the password is in the message:\n%v", err)
	}
}
