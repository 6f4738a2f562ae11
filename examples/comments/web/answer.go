package web

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"mime"
	"net/http"
	"strings"

	"popfleet/examples/comments/board"
)

// endpoint answers one request with a status and a value, or with an error.
type endpoint func(r *http.Request) (int, any, error)

// failure is the body of every error.
type failure struct {
	Error    string         `json:"error"`
	Problems board.Problems `json:"problems,omitempty"`
}

// Errors of this room.
var (
	errBadRequest   = errors.New("bad request")
	errMediaType    = errors.New("expected Content-Type: application/json")
	errUnauthorized = errors.New("expected a moderator's token: Authorization: Bearer …")
)

// json runs an endpoint within the time limit and writes what it says.
func (s *Server) json(h endpoint) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), s.options.Limits.RequestTimeout)
		defer cancel()
		code, v, err := h(r.WithContext(ctx))
		if err != nil {
			s.fail(w, r, err)
			return
		}
		reply(w, code, v)
	})
}

// fail writes an error. What the store said is logged and not told: it speaks of addresses.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	code, body := http.StatusServiceUnavailable, failure{Error: "the store does not answer; try again"}
	var problems board.Problems
	switch {
	case errors.As(err, &problems):
		code, body = http.StatusUnprocessableEntity, failure{Error: "not accepted", Problems: problems}
	case errors.Is(err, board.ErrSyntax), errors.Is(err, errBadRequest):
		code, body = http.StatusBadRequest, failure{Error: err.Error()}
	case errors.Is(err, errMediaType):
		code, body = http.StatusUnsupportedMediaType, failure{Error: err.Error()}
	case errors.Is(err, errUnauthorized):
		w.Header().Set("WWW-Authenticate", `Bearer realm="moderation"`)
		code, body = http.StatusUnauthorized, failure{Error: err.Error()}
	case errors.Is(err, board.ErrNotFound):
		code, body = http.StatusNotFound, failure{Error: err.Error()}
	case errors.Is(err, board.ErrConflict):
		code, body = http.StatusConflict, failure{Error: err.Error()}
	default:
		w.Header().Set("Retry-After", "1")
		s.options.Log.Warn("request failed", "method", r.Method, "path", r.URL.Path, "error", err)
	}
	reply(w, code, body)
}

func reply(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // the client went away: nobody is left to tell
}

// read decodes a request's body. The content type is held strictly: no HTML form of another site can send it.
func read(r *http.Request, v any) error {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/json" {
		return errMediaType
	}
	return board.Read(r.Body, v)
}

// moderator tells whether the request shows the token. Compared by digest, in constant time.
func (s *Server) moderator(r *http.Request) bool {
	shown, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	sum := sha256.Sum256([]byte(shown))
	return ok && s.options.ModeratorToken != "" && subtle.ConstantTimeCompare(sum[:], s.token[:]) == 1
}

// moderators lets only them through.
func (s *Server) moderators(h endpoint) endpoint {
	return func(r *http.Request) (int, any, error) {
		if !s.moderator(r) {
			return 0, nil, errUnauthorized
		}
		return h(r)
	}
}
