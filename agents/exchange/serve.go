package exchange

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"popfleet/internal/strictjson"
	"popfleet/playbooks/spec"
)

// Version of the protocol this package speaks.
const Version = 1

// Serve answers the requests on in, one after the other, until in ends or ctx does. It returns nil at the end of in;
// a request that fails is an error event, not an error of Serve. Serve does not close in or out.
func Serve(ctx context.Context, in io.Reader, out io.Writer, handlers map[string]Handler, log *slog.Logger) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r := newReader(in)
	w := newWriter(out, cancel)
	defer w.close()
	for ctx.Err() == nil {
		req, err := r.request()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			w.send(ErrorEvent(req.ID, err))
			return err
		}
		log.Info("request", "id", req.ID, "op", req.Op)
		w.send(serveOne(ctx, req, handlers, r, w))
	}
	return context.Cause(ctx)
}

func serveOne(ctx context.Context, req spec.Request, handlers map[string]Handler, r *reader, w *writer) spec.Event {
	h, ok := handlers[req.Op]
	if !ok {
		return ErrorEvent(req.ID, badSpec(fmt.Sprintf("unknown op %q", req.Op)))
	}
	result, err := h(ctx, req.Spec, &session{id: req.ID, r: r, w: w})
	if err != nil {
		return ErrorEvent(req.ID, err)
	}
	data, err := json.Marshal(result)
	if err != nil {
		return ErrorEvent(req.ID, fmt.Errorf("encode the result of %s: %w", req.Op, err))
	}
	return spec.Event{ID: req.ID, Kind: spec.KindResult, Data: data}
}

// Decode reads a spec strictly into v; what is wrong with it is an error with [spec.CodeBadSpec].
func Decode(specJSON json.RawMessage, v any) error {
	if len(specJSON) == 0 {
		return badSpec("the request carries no spec")
	}
	if err := strictjson.Decode(specJSON, v); err != nil {
		return badSpec(err.Error())
	}
	return nil
}

func badSpec(message string) *spec.Error {
	return &spec.Error{Code: spec.CodeBadSpec, Message: message, Hint: "is the operator's fleet of the same version as its fleet-agent?"}
}

// CodeFailed is the code of an error that has no code of its own.
const CodeFailed = "failed"

// ErrorEvent is the last event of a request that failed; a *spec.Error anywhere in err keeps its code and hint.
func ErrorEvent(id int, err error) spec.Event {
	var typed *spec.Error
	if !errors.As(err, &typed) {
		typed = &spec.Error{Code: CodeFailed, Message: err.Error()}
	} else if typed.Message != err.Error() {
		wrapped := *typed
		wrapped.Message, wrapped.Hint = withoutHint(err.Error(), typed), typed.Hint
		typed = &wrapped
	}
	return spec.Event{ID: id, Kind: spec.KindError, Error: typed}
}

// withoutHint is the text of an error that wraps e, without e's hint, which travels in its own field.
func withoutHint(text string, e *spec.Error) string {
	if tail := " (" + e.Hint + ")"; e.Hint != "" && len(text) > len(tail) && text[len(text)-len(tail):] == tail {
		return text[:len(text)-len(tail)]
	}
	return text
}
