package stack_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"popfleet/inventory"
	"popfleet/provision/hetznercloud"
	"popfleet/provision/stack"
)

// childEnv makes the test binary one `up` of its own, for tests that kill it: URL, token, directory and CLI.
const childEnv = "STACK_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		child()
		return
	}
	// No goleak here: Pulumi's SDK keeps a few gRPC client goroutines per run. The stack lives in one-shot commands only.
	os.Exit(m.Run())
}

func child() {
	var url, token, dir, cli string
	if _, err := fmt.Sscan(os.Getenv(childEnv), &url, &token, &dir, &cli); err != nil {
		panic(err)
	}
	d, err := hetznercloud.New(hetznercloud.Options{Token: inventory.SecretText(token), Endpoint: url, Backoff: 10 * time.Millisecond})
	if err != nil {
		panic(err)
	}
	w, err := stack.Want(fleet("fsn-1", "fsn-2", "fsn-3"), publicKey)
	if err != nil {
		panic(err)
	}
	_, _ = stack.Up(context.Background(), stack.Options{Dir: dir, Fleet: "demo", Driver: d, CLI: cli,
		Passphrase: inventory.SecretText("a passphrase of the vault")}, w, nil)
}
