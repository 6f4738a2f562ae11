//go:build e2e

package mongosim

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// The same rows against FerretDB 1.24 as cmd/fleet-store embeds it, where that is right. It is a module of its own, so the
// built binary is run: make build, then
//
//	go test -tags e2e -run Ferret ./replication/mongosim
func storeBinary(t *testing.T) string {
	t.Helper()
	path := os.Getenv("FLEET_STORE")
	if path == "" {
		path = "../../bin/fleet-store"
	}
	if _, err := os.Stat(path); err != nil {
		t.Skipf("no fleet-store at %s: make build makes it, FLEET_STORE names another", path)
	}
	return path
}

func TestFerretConformance(t *testing.T) {
	address := startStore(t, storeBinary(t))
	client := connect(t, address, "directConnection=true&retryWrites=false")
	conform(t, func(ctx context.Context, db string, cmd bson.D) (bson.D, error) {
		var reply bson.D
		err := client.Database(db).RunCommand(ctx, cmd).Decode(&reply)
		return reply, err
	}, true)
}

func startStore(t *testing.T, binary string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	dir := t.TempDir()
	config, err := json.Marshal(map[string]string{"listen": address, "dir": dir, "control": filepath.Join(dir, "c.sock")})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "store.json")
	if err := os.WriteFile(path, config, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, binary, "-config", path)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); cmd.Wait() })
	return address
}
