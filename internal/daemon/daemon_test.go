package daemon

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"testing"
)

func TestExitCodes(t *testing.T) {
	bad := errors.New("broken")
	tests := map[string]struct {
		args      []string
		load, run error
		ran       bool
		code      int
		said      string
	}{
		"serves":      {nil, nil, nil, true, 0, ""},
		"fails":       {nil, nil, bad, true, 1, "fleet-x: broken\n"},
		"bad config":  {nil, bad, nil, false, 1, "fleet-x: broken\n"},
		"check":       {[]string{"--check"}, nil, nil, false, 0, ""},
		"check fails": {[]string{"--check"}, bad, nil, false, 1, "fleet-x: broken\n"},
		"version":     {[]string{"--version"}, bad, nil, false, 0, ""},
		"wrong flag":  {[]string{"--what"}, nil, nil, false, 2, ""},
	}
	for name, c := range tests {
		t.Run(name, func(t *testing.T) {
			ran := false
			d := Daemon[string]{Name: "fleet-x", Config: "/default", Load: func(path string) (string, error) { return path, c.load },
				Run: func(_ context.Context, got string, log *slog.Logger) error {
					ran = got == "/default" && log != nil
					return c.run
				}}
			var out, errs bytes.Buffer
			code := d.main(c.args, &out, &errs)
			if code != c.code || ran != c.ran || (c.said != "" && errs.String() != c.said) {
				t.Errorf("code %d, ran %v, said %q; want %d, %v, %q", code, ran, errs.String(), c.code, c.ran, c.said)
			}
		})
	}
}
