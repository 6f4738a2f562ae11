package ops

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"

	"popfleet/agents/exchange"
	"popfleet/playbooks/spec"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestShareLastsAsLongAsItsExchange: the node listens while the operator is there, also when nothing is asked, and no
// longer.
func TestShareLastsAsLongAsItsExchange(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	in, say := io.Pipe()
	hear, out := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- exchange.Serve(t.Context(), in, out, Handlers(log), log) }()
	order, _ := json.Marshal(spec.Share{Version: 1, Secret: make([]byte, 32), Seconds: 60})
	fmt.Fprintf(say, `{"v":1,"id":1,"op":"share","spec":%s}`+"\n", order)
	line, err := bufio.NewReader(hear).ReadBytes('\n')
	var e spec.Event
	var shared spec.Shared
	if err != nil || json.Unmarshal(line, &e) != nil || json.Unmarshal(e.Data, &shared) != nil || len(shared.Certificate) != 64 {
		t.Fatalf("%s, %v", line, err)
	}
	addr := fmt.Sprintf("127.0.0.1:%d", shared.Port)
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	say.Close()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; {
		again, err := net.Dial("tcp", addr)
		if err != nil {
			return
		}
		again.Close()
		if time.Now().After(deadline) {
			t.Fatal("it still listens")
		}
	}
}
