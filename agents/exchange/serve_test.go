package exchange

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"popfleet/playbooks/spec"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func sha(b string) string {
	s := sha256.Sum256([]byte(b))
	return hex.EncodeToString(s[:])
}

func blobLine(b string) string {
	return fmt.Sprintf(`{"blob":%q,"size_bytes":%d}`, sha(b), len(b)) + "\n"
}

// serve runs a whole exchange over a script of input bytes.
func serve(t *testing.T, in string, handlers map[string]Handler) ([]spec.Event, error) {
	t.Helper()
	var out bytes.Buffer
	err := Serve(t.Context(), strings.NewReader(in), &out, handlers, slog.New(slog.DiscardHandler))
	var events []spec.Event
	s := bufio.NewScanner(&out)
	for s.Scan() {
		var e spec.Event
		if err := json.Unmarshal(s.Bytes(), &e); err != nil {
			t.Fatalf("line %q: %v", s.Text(), err)
		}
		events = append(events, e)
	}
	return events, err
}

// fetching asks for blobs and returns their contents.
func fetching(contents ...string) Handler {
	return func(ctx context.Context, _ json.RawMessage, s Session) (any, error) {
		var blobs []spec.Blob
		for _, c := range contents {
			blobs = append(blobs, spec.Blob{SHA256: sha(c), SizeBytes: int64(len(c))})
		}
		var got []string
		err := s.Fetch(ctx, blobs, func(_ spec.Blob, r io.Reader) error {
			b, err := io.ReadAll(r)
			got = append(got, string(b))
			return err
		})
		return got, err
	}
}

func TestServe(t *testing.T) {
	handlers := map[string]Handler{
		"echo": func(_ context.Context, s json.RawMessage, _ Session) (any, error) { return s, nil },
		"fail": func(context.Context, json.RawMessage, Session) (any, error) { return nil, errors.New("no luck") },
		"typed": func(context.Context, json.RawMessage, Session) (any, error) {
			return nil, fmt.Errorf("outer: %w", &spec.Error{Code: "c", Message: "inner", Hint: "do this"})
		},
		"fetch": fetching("abc", "", "defg"),
		"lazy": func(ctx context.Context, _ json.RawMessage, s Session) (any, error) {
			return 1, s.Fetch(ctx, []spec.Blob{{SHA256: sha("abc"), SizeBytes: 3}}, func(spec.Blob, io.Reader) error { return nil })
		},
	}
	const echo = `{"v":1,"id":2,"op":"echo","spec":"x"}` + "\n"
	for name, c := range map[string]struct {
		in    string
		kinds string // of the events, in order
		last  string // what the last event contains
		fails bool   // Serve itself
	}{
		"two requests":       {in: `{"v":1,"id":1,"op":"echo","spec":{"a":1}}` + "\n" + echo, kinds: "result result", last: `"x"`},
		"blank lines":        {in: "\n\n" + echo, kinds: "result", last: `"x"`},
		"error":              {in: `{"v":1,"id":1,"op":"fail"}` + "\n" + echo, kinds: "error result"},
		"typed error":        {in: `{"v":1,"id":1,"op":"typed"}` + "\n", kinds: "error", last: `"message":"outer: inner","hint":"do this"`},
		"unknown op":         {in: `{"v":1,"id":1,"op":"shell"}` + "\n" + echo, kinds: "error result"},
		"unknown field":      {in: `{"v":1,"id":1,"op":"echo","x":1}` + "\n", kinds: "error", last: spec.CodeBadSpec, fails: true},
		"version":            {in: `{"v":2,"id":1,"op":"echo"}` + "\n", kinds: "error", last: "version 2", fails: true},
		"no json":            {in: "hello\n", kinds: "error", last: spec.CodeBadSpec, fails: true},
		"cut line":           {in: `{"v":1,"id":1,"op":"ec`, kinds: "error", fails: true},
		"blobs":              {in: `{"v":1,"id":1,"op":"fetch"}` + "\n" + blobLine("abc") + "abc" + blobLine("") + blobLine("defg") + "defg" + echo, kinds: "need result result"},
		"blobs unread":       {in: `{"v":1,"id":1,"op":"lazy"}` + "\n" + blobLine("abc") + "abc" + echo, kinds: "need result result", last: `"x"`},
		"blob damaged":       {in: `{"v":1,"id":1,"op":"lazy"}` + "\n" + blobLine("abc") + "abX" + echo, kinds: "need error result", last: `"x"`},
		"blob cut":           {in: `{"v":1,"id":1,"op":"lazy"}` + "\n" + blobLine("abc") + "ab", kinds: "need error", last: "unexpected EOF"},
		"blob not asked for": {in: `{"v":1,"id":1,"op":"lazy"}` + "\n" + blobLine("xyz") + "xyz", kinds: "need error error", fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			events, err := serve(t, c.in, handlers)
			var kinds []string
			for _, e := range events {
				kinds = append(kinds, e.Kind)
			}
			if got := strings.Join(kinds, " "); got != c.kinds {
				t.Errorf("events %q, want %q", got, c.kinds)
			}
			if last, _ := json.Marshal(events[len(events)-1]); !strings.Contains(string(last), c.last) {
				t.Errorf("last event %s does not contain %s", last, c.last)
			}
			if (err != nil) != c.fails {
				t.Errorf("Serve: %v", err)
			}
		})
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("gone") }

// TestPeerGone: a handler that talks to nobody is told by its context, and Serve ends.
func TestPeerGone(t *testing.T) {
	h := map[string]Handler{"wait": func(ctx context.Context, _ json.RawMessage, s Session) (any, error) {
		s.Emit(spec.Event{Kind: spec.KindLog, Text: "hello?"})
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	err := Serve(t.Context(), strings.NewReader(`{"v":1,"id":1,"op":"wait"}`+"\n"), broken{}, h, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "gone") {
		t.Errorf("Serve returned %v", err)
	}
}

// FuzzServe: no input makes the agent panic, hang, or answer a request twice.
func FuzzServe(f *testing.F) {
	f.Add(`{"v":1,"id":1,"op":"fetch"}` + "\n" + blobLine("abc") + "abc")
	f.Add(`{"v":1,"id":7,"op":"echo","spec":{}}` + "\n{}\n")
	f.Fuzz(func(t *testing.T, in string) {
		served := 0
		handlers := map[string]Handler{"fetch": fetching("abc"), "echo": func(_ context.Context, s json.RawMessage, _ Session) (any, error) {
			served++
			return s, nil
		}}
		events, _ := serve(t, in, handlers)
		results := 0
		for _, e := range events {
			if e.Kind == spec.KindResult || e.Kind == spec.KindError {
				results++
			}
		}
		if results < served {
			t.Errorf("%d requests, %d answers", served, results)
		}
	})
}
