package probe

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"popfleet/agents/collect/smart"
)

// The test binary is also the child: the variable says how it is to behave.
const behave = "POPFLEET_TEST_PROBE"

func TestMain(m *testing.M) {
	if how := os.Getenv(behave); how != "" {
		beChild(how)
		return
	}
	goleak.VerifyTestMain(m)
}

func beChild(how string) {
	asked := 0
	err := Serve(os.Stdin, os.Stdout, func() ([]smart.Reading, error) {
		asked++
		switch how {
		case "error":
			return nil, errors.New("no disks to be found")
		case "garbage":
			fmt.Println("not JSON")
		case "crash":
			os.Exit(3)
		case "hang":
			syscall.Pause()
		case "hang once":
			if mark := os.Getenv("POPFLEET_TEST_MARK"); !exists(mark) {
				os.WriteFile(mark, nil, 0o600)
				syscall.Pause()
			}
		}
		return []smart.Reading{{Serial: "S", Model: fmt.Sprint(os.Getpid(), " asked ", asked)}}, nil
	})
	if err != nil {
		os.Exit(1)
	}
}

func exists(path string) bool { _, err := os.Stat(path); return err == nil }

func client(t *testing.T, how string) *Client {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(behave, how)
	c := &Client{Argv: []string{self, "-test.run=^$"}}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestOneChildAnswersAgainAndAgain(t *testing.T) {
	c := client(t, "well")
	var pid string
	for i := 1; i <= 3; i++ {
		r, err := c.Readings(within(t, 30*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		was, asked, _ := strings.Cut(r[0].Model, " ")
		if asked != fmt.Sprintf("asked %d", i) || (pid != "" && pid != was) {
			t.Errorf("reading %d: %+v, child before %s", i, r[0], pid)
		}
		pid = was
	}
}

func TestWhatAChildDoesWrongIsAnError(t *testing.T) {
	for how, want := range map[string]string{"error": "no disks to be found", "garbage": "the disk probe's answer", "crash": "the disk probe ended"} {
		t.Run(how, func(t *testing.T) {
			_, err := client(t, how).Readings(within(t, 30*time.Second))
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v; want %q", err, want)
			}
		})
	}
}

func TestAHangingChildIsReplaced(t *testing.T) {
	t.Setenv("POPFLEET_TEST_MARK", filepath.Join(t.TempDir(), "hung"))
	c := client(t, "hang once")
	_, err := c.Readings(within(t, 2*time.Second))
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("%v", err)
	}
	if r, err := c.Readings(within(t, 30*time.Second)); err != nil || len(r) != 1 {
		t.Fatalf("%v %v", r, err)
	}
}

func TestAProgramThatIsNotThere(t *testing.T) {
	c := &Client{Argv: []string{"/nowhere/fleet-agent"}}
	if _, err := c.Readings(t.Context()); err == nil || !strings.Contains(err.Error(), "start the disk probe") {
		t.Errorf("%v", err)
	}
}

func TestServeEndsWithItsInput(t *testing.T) {
	var out strings.Builder
	err := Serve(strings.NewReader("\n\n"), &out, func() ([]smart.Reading, error) { return []smart.Reading{}, nil })
	lines := 0
	for s := bufio.NewScanner(strings.NewReader(out.String())); s.Scan(); lines++ {
	}
	if err != nil || lines != 2 {
		t.Errorf("%d answers, %v", lines, err)
	}
}
