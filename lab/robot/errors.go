package robot

import (
	"encoding/json"
	"fmt"
	"net/http"
)

// apiError is an error as the web service words it.
type apiError struct {
	Status           int
	Code, Message    string
	missing, invalid []string // of INVALID_INPUT
	limit, interval  int      // of RATE_LIMIT_EXCEEDED, the interval in seconds
}

func (e *apiError) Error() string { return e.Message + " (" + e.Code + ")" }

// MarshalJSON writes the fields that go with the code: missing and invalid are there for INVALID_INPUT even when null.
func (e *apiError) MarshalJSON() ([]byte, error) {
	body := object{"status": e.Status, "code": e.Code, "message": e.Message}
	switch e.Code {
	case "INVALID_INPUT":
		body["missing"], body["invalid"] = orNull(e.missing), orNull(e.invalid)
	case "RATE_LIMIT_EXCEEDED":
		body["max_request"], body["interval"] = e.limit, e.interval
	}
	return json.Marshal(object{"error": body})
}

func orNull(names []string) any {
	if len(names) == 0 {
		return nil
	}
	return names
}

func fail(status int, code, format string, args ...any) *apiError {
	return &apiError{Status: status, Code: code, Message: fmt.Sprintf(format, args...)}
}

func notFound(code, format string, args ...any) *apiError {
	return fail(http.StatusNotFound, code, format, args...)
}

// invalid reports wrong parameters, all at once.
func invalid(names ...string) *apiError {
	return &apiError{Status: http.StatusBadRequest, Code: "INVALID_INPUT", Message: "invalid input", invalid: names}
}

func limited(max, intervalSeconds int) *apiError {
	return &apiError{Status: http.StatusForbidden, Code: "RATE_LIMIT_EXCEEDED", Message: "rate limit exceeded", limit: max, interval: intervalSeconds}
}

func unauthorized() *apiError {
	return fail(http.StatusUnauthorized, "UNAUTHORIZED", "Unauthorized")
}

func noServer(number string) *apiError {
	return notFound("SERVER_NOT_FOUND", "Server with id %s not found", number)
}
