package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

// TestMain demands that nothing of a lab or a call outlives the tests, and removes the binaries that they built.
func TestMain(m *testing.M) {
	// Two dependencies of Pulumi's SDK never end what they start: glog's flusher, and a few gRPC client goroutines per run
	// of a stack inside the test, which lives in one-shot commands only.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/golang/glog.(*fileSink).flushDaemon"),
		goleak.IgnoreAnyFunction("google.golang.org/grpc/internal/grpcsync.(*CallbackSerializer).run"), goleak.Cleanup(func(code int) {
			if binaries.dir != "" {
				_ = os.RemoveAll(binaries.dir) // a folder left in /tmp is no failure
			}
			os.Exit(code)
		}))
}

// binaries are built once per run of the tests: the real ones, as `make build` makes them.
var binaries struct {
	once sync.Once
	dir  string
	err  error
}

// fleetBinary is the path of a freshly built fleet, with fleet-agent and pulumi beside it.
func fleetBinary(t testing.TB) string {
	t.Helper()
	pulumi := pulumiCLI(t)
	binaries.once.Do(func() { binaries.err = buildBinaries(pulumi) })
	must(t, binaries.err)
	return filepath.Join(binaries.dir, "fleet")
}

func buildBinaries(pulumi string) (err error) {
	if binaries.dir, err = os.MkdirTemp("", "fleet-cli-test-"); err != nil {
		return err
	}
	for _, name := range []string{"fleet", "fleet-agent", "fleet-lab"} {
		cmd := exec.Command("go", "build", "-o", filepath.Join(binaries.dir, name), "popfleet/cmd/"+name)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("go build %s: %w\n%s", name, err, out)
		}
	}
	return os.Symlink(pulumi, filepath.Join(binaries.dir, "pulumi"))
}
