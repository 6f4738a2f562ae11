package stack_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"popfleet/provision/hetznercloud/hetznertest"
	"popfleet/provision/stack"
)

// A run that is killed with -9 anywhere is simply run again: nothing is rented twice, no lock and no pending operation
// needs a person.
func TestKilledRunIsRunAgain(t *testing.T) {
	t.Parallel()
	for _, at := range []struct {
		name, method, suffix string
		cliToo               bool // the CLI is killed as well, and leaves its lock and pending operations
	}{
		{"the first object", http.MethodPost, "/firewalls", false},
		{"a server create", http.MethodPost, "/servers", false},
		{"a server create, with the cli", http.MethodPost, "/servers", true},
		{"waiting for an action", http.MethodGet, "/actions", false},
		{"reverse dns, with the cli", http.MethodPost, "/change_dns_ptr", true},
	} {
		t.Run(at.name, func(t *testing.T) {
			t.Parallel()
			api, o := setup(t)
			reached := make(chan struct{})
			var once sync.Once
			hook := func(r *http.Request) bool {
				if r.Method == at.method && strings.HasSuffix(r.URL.Path, at.suffix) {
					once.Do(func() { close(reached) })
				}
				return false
			}
			api.Change(func(a *hetznertest.API) { a.After = hook })
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), childEnv+"="+strings.Join([]string{api.URL, api.Token, o.Dir, o.CLI}, " "))
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			select {
			case <-reached:
			case <-time.After(time.Minute):
				t.Error("the run never came there")
			}
			children := childrenOf(t, cmd.Process.Pid)
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			for _, pid := range children {
				if at.cliToo {
					_ = syscall.Kill(pid, syscall.SIGKILL)
				}
			}
			if at.cliToo && len(children) != 1 {
				t.Errorf("children %v, want the CLI", children)
			}

			w := want(t, fleet("fsn-1", "fsn-2", "fsn-3"))
			res := up(t, o, w)
			if len(res.Servers) != 3 || api.Created("servers") != 3 || api.Created("firewalls") != 1 || api.Created("networks") != 1 {
				t.Errorf("%d servers, %d created, %d firewalls", len(res.Servers), api.Created("servers"), api.Created("firewalls"))
			}
			if again := up(t, o, w); len(again.Changes) != 0 {
				t.Errorf("not converged: %v", again.Changes)
			}
		})
	}
}

// childrenOf lists the processes that pid started (proc(5), /proc/pid/task/tid/children).
func childrenOf(t *testing.T, pid int) []int {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil || len(files) == 0 {
		t.Skip("this kernel lists no children in /proc")
	}
	var out []int
	for _, f := range files {
		b, _ := os.ReadFile(f)
		for _, field := range strings.Fields(string(b)) {
			n, err := strconv.Atoi(field)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, n)
		}
	}
	return out
}

// A cancelled run ends soon, says so, and leaves nothing that the next one trips over.
func TestCancelledRunIsRunAgain(t *testing.T) {
	t.Parallel()
	api, o := setup(t)
	api.Change(func(a *hetznertest.API) { a.Polls = 1 << 30 })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w := want(t, fleet("fsn-1", "fsn-2", "fsn-3"))
	_, err := stack.Up(ctx, o, w, func(e stack.Event) {
		if strings.HasPrefix(e.Waiting, "create server") {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v, want canceled", err)
	}
	api.Change(func(a *hetznertest.API) { a.Polls = 1 })
	api.ForgetActions()
	if res := up(t, o, w); len(res.Servers) != 3 || api.Created("servers") != 3 {
		t.Errorf("%d servers, %d created", len(res.Servers), api.Created("servers"))
	}
}

// Two runs at once take turns.
func TestTwoRunsTakeTurns(t *testing.T) {
	t.Parallel()
	api, o := setup(t)
	w := want(t, fleet("fsn-1", "fsn-2"))
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			if res, err := stack.Up(t.Context(), o, w, nil); err != nil || res.Err() != nil {
				t.Errorf("up: %v %v", err, res.Err())
			}
		})
	}
	wg.Wait()
	if n := api.Created("servers"); n != 2 {
		t.Errorf("%d servers created", n)
	}
}
