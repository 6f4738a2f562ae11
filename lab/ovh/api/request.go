package api

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"

	"popfleet/internal/strictjson"
)

// Request is one call as its handler sees it.
type Request struct {
	*http.Request
	Args  map[string]string // of the path, unescaped
	Query url.Values
	Raw   []byte // the body
}

// ID reads a number from the path; what is no number is found nowhere.
func (r *Request) ID(name string) int64 {
	n, err := strconv.ParseInt(r.Args[name], 10, 64)
	if err != nil {
		return -1
	}
	return n
}

// Decode reads the body strictly: what the provider would ignore, the lab refuses, since it is a mistake of ours.
func (r *Request) Decode(v any) error {
	if len(r.Raw) == 0 {
		return Bad("[body] Missing body")
	}
	if err := strictjson.Decode(r.Raw, v); err != nil {
		return Bad("[body] %v", err)
	}
	return nil
}

// Answer writes what a handler returned; what has no answer is null, as the provider's are.
func Answer(w http.ResponseWriter, v any, err error) {
	status, body := http.StatusOK, v
	var e *Error
	switch {
	case errors.As(err, &e):
		status, body = e.Status, e
	case err != nil:
		status, body = http.StatusInternalServerError, Fail(0, "Server::InternalServerError", "%v", err)
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client went away: nobody is left to tell
}
