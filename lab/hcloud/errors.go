package hcloud

import (
	"fmt"
	"net/http"
	"strconv"
)

// apiError is an error as the API words it.
type apiError struct {
	status  int
	Code    string `json:"code"`
	Message string `json:"message"`
	Details any    `json:"details"`
}

func (e *apiError) Error() string { return e.Message + " (" + e.Code + ")" }

type fieldError struct {
	Name     string   `json:"name"`
	Messages []string `json:"messages"`
}

func fail(status int, code, format string, args ...any) *apiError {
	return &apiError{status: status, Code: code, Message: fmt.Sprintf(format, args...)}
}

func notFound(what string, id int64) *apiError {
	return fail(http.StatusNotFound, "not_found", "%s with ID '%s' not found", what, strconv.FormatInt(id, 10))
}

// invalid reports wrong fields, all at once.
func invalid(fields ...fieldError) *apiError {
	e := fail(http.StatusUnprocessableEntity, "invalid_input", "invalid input in field '%s': %s", fields[0].Name, fields[0].Messages[0])
	e.Details = map[string]any{"fields": fields}
	return e
}

func field(name, format string, args ...any) fieldError {
	return fieldError{name, []string{fmt.Sprintf(format, args...)}}
}

func notUnique(what, name string) *apiError {
	e := fail(http.StatusConflict, "uniqueness_error", "%s name %q is already used", what, name)
	e.Details = map[string]any{"fields": []fieldError{{"name", []string{"is already used"}}}}
	return e
}

func locked() *apiError {
	return fail(http.StatusLocked, "locked", "server is locked by another action")
}
