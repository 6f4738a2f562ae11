package cli

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

func run(t *testing.T, args ...string) (int, string, string) {
	t.Helper()
	var out, errs bytes.Buffer
	code := Main(t.Context(), args, Streams{&out, &errs}, "test")
	return code, out.String(), errs.String()
}

func TestWithoutALab(t *testing.T) {
	dir, err := os.MkdirTemp("", "lab")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	for _, c := range []struct {
		args     []string
		code     int
		out, err string
	}{
		{[]string{"status"}, 1, "", "error: no lab is up (fleet-lab up)"},
		{[]string{"faults"}, 0, "reply-lost", ""},
		{[]string{"faults", "--calls"}, 0, "create_server  POST /servers", ""},
		{[]string{"faults", "--calls"}, 0, "hetznerrobot  ", ""},
		{[]string{"faults", "--calls"}, 0, "ovh           ", ""},
		{[]string{"up", "--disks", "3"}, 1, "", "3 disks: expected 1 or 2"},
		{[]string{"faults", "--json"}, 0, `"kind": "locked"`, ""},
		{[]string{"fault", "clear", "x"}, 1, "", `fault id "x": expected a number`},
		{[]string{"down", "--scripted"}, 1, "", "does not look like a lab's folder"},
		{[]string{"up", "--speed", "0"}, 1, "", "speed 0: expected more than 0"},
		{[]string{"nonsense"}, 1, "", "unknown command"},
		{[]string{"--version"}, 0, "fleet-lab version test", ""},
	} {
		code, out, errs := run(t, append([]string{"--dir", dir}, c.args...)...)
		if code != c.code || !strings.Contains(out, c.out) || !strings.Contains(errs, c.err) {
			t.Errorf("fleet-lab %s: exit %d\nstdout %s\nstderr %s\nwant exit %d, %q, %q", strings.Join(c.args, " "), code, out, errs, c.code, c.out, c.err)
		}
	}
}
