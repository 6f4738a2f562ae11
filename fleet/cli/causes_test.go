package cli

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"popfleet/provision/lifecycle"
	"popfleet/provision/provider"
	"popfleet/provision/remote"
	"popfleet/provision/stack"
)

func down(reason string) error {
	return &stack.UnreachableError{Provider: "hetznerrobot", Err: errors.New(reason)}
}

func lost(node, reason string, log ...string) failure {
	return failure{node, &lifecycle.Error{Node: node, Op: lifecycle.OpInstall, Err: errors.New(reason), Log: log, Next: "fleet up fsn"}}
}

func TestNodesAreGatheredByCause(t *testing.T) {
	key := func(node string) failure {
		return failure{node, &lifecycle.Error{Node: node, Err: &remote.HostKeyError{Addr: "198.19.0.2:22", Got: "SHA256:x"}}}
	}
	tests := map[string]struct {
		failed []failure
		want   []string // the nodes of each cause
	}{
		"none": {nil, nil},
		"a silent provider, whatever it said to whom": {[]failure{{"fsn-1", down("HTTP 502")}, {"fsn-2", &lifecycle.Error{Node: "fsn-2", Err: down("timeout")}}}, []string{"fsn-1 fsn-2"}},
		"numbers, times and names differ": {[]failure{lost("fsn-1", "enable rescue of server 321 (demo-fsn-1, 198.19.0.2): HTTP 502, 8 tries in 1m3s"),
			lost("gra-2", "enable rescue of server 99 (demo-gra-2, 198.19.7.12): HTTP 502, 9 tries in 59.1s")}, []string{"fsn-1 gra-2"}},
		"what the API answers differs":  {[]failure{lost("fsn-1", "HTTP 502"), lost("fsn-2", "HTTP 503")}, []string{"fsn-1", "fsn-2"}},
		"an operation differs":          {[]failure{lost("fsn-1", "no answer"), {"fsn-2", &lifecycle.Error{Node: "fsn-2", Op: lifecycle.OpSeal, Err: errors.New("no answer")}}}, []string{"fsn-1", "fsn-2"}},
		"a foreign host key is its own": {[]failure{key("fsn-1"), key("fsn-2")}, []string{"fsn-1", "fsn-2"}},
		"objects beside nodes":          {[]failure{{"", down("HTTP 502")}, {"fsn-1", down("HTTP 502")}, lost("fsn-2", "x")}, []string{"provider fsn-1", "fsn-2"}},
	}
	for name, c := range tests {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, c := range causes(c.failed) {
				got = append(got, strings.Join(c.nodes, " "))
			}
			if fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

// Twelve machines of one provider that is down fill three lines, not a hundred.
func TestACauseIsToldOnce(t *testing.T) {
	var stderr bytes.Buffer
	s := &session{app: &app{out: &printer{err: &stderr}}}
	var failed []failure
	for i := range 12 {
		failed = append(failed, lost(fmt.Sprintf("fsn-%d", i+1), "reset: HTTP 502", "one", "two", "3", "4", "5", "6", "7", "8", "9"))
	}
	s.sayFailed(failed...)
	want := "✗ 12 nodes: install: reset: HTTP 502\n    fsn-1, fsn-2, fsn-3, fsn-4, fsn-5, fsn-6, fsn-7, fsn-8, fsn-9, fsn-10, fsn-11, fsn-12\n" +
		"    | two\n    | 3\n    | 4\n    | 5\n    | 6\n    | 7\n    | 8\n    | 9\n    next: fleet up fsn\n"
	if got := stderr.String(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	stderr.Reset()
	refused := &stack.UnreachableError{Provider: "ovh", Err: &provider.Error{Op: "list", Kind: provider.ErrUnauthorized}}
	s.sayFailed(failure{"gra-1", refused})
	if got := stderr.String(); !strings.HasPrefix(got, "✗ gra-1: ovh can't be asked what is there: list: ") || !strings.Contains(got, "next: set its credentials right") {
		t.Errorf("got\n%s", got)
	}
}
