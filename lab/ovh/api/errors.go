package ovh

import (
	"fmt"
	"net/http"
)

// apiError is an error as the API words it. Refused credentials carry errorCode and httpCode too, the older form that
// clients in the field still read.
type apiError struct {
	status   int
	Class    string `json:"class,omitempty"`
	Message  string `json:"message"`
	Code     string `json:"errorCode,omitempty"`
	HTTPCode string `json:"httpCode,omitempty"`
}

func (e *apiError) Error() string { return e.Class + ": " + e.Message }

// statusExpired is the provider's own code for a service that was not paid.
const statusExpired = 460

func fail(status int, class, format string, args ...any) *apiError {
	return &apiError{status: status, Class: class, Message: fmt.Sprintf(format, args...)}
}

func bad(format string, args ...any) *apiError {
	return fail(http.StatusBadRequest, "Client::BadRequest", format, args...)
}

func notFound(format string, args ...any) *apiError {
	return fail(http.StatusNotFound, "Client::NotFound", format, args...)
}

func noObject(what string, id any) *apiError {
	return notFound("The requested object (%s = %v) does not exist", what, id)
}

func conflict(format string, args ...any) *apiError {
	return fail(http.StatusConflict, "Client::Conflict", format, args...)
}

func noService() *apiError { return notFound("This service does not exist") }

func expired() *apiError {
	return fail(statusExpired, "Client::ServiceExpired", "This service is expired")
}

func internal() *apiError {
	return fail(http.StatusInternalServerError, "Server::InternalServerError", "Internal server error")
}

// refused is an answer to wrong or missing credentials.
func refused(status int, code, message string) *apiError {
	class := "Client::Forbidden"
	if status == http.StatusBadRequest {
		class = "Client::BadRequest"
	}
	return &apiError{status: status, Class: class, Message: message, Code: code, HTTPCode: fmt.Sprintf("%d %s", status, http.StatusText(status))}
}

func invalidSignature() *apiError {
	return refused(http.StatusBadRequest, "INVALID_SIGNATURE", "Invalid signature")
}

func outOfTime() *apiError {
	return refused(http.StatusBadRequest, "QUERY_TIME_OUT", "Query out of time")
}

func invalidKey() *apiError {
	return refused(http.StatusForbidden, "INVALID_KEY", "This application key is invalid")
}

func unknownCredential() *apiError {
	return refused(http.StatusForbidden, "INVALID_CREDENTIAL", "This credential does not exist")
}

func invalidCredential() *apiError {
	return refused(http.StatusForbidden, "INVALID_CREDENTIAL", "This credential is not valid")
}

func notLoggedIn() *apiError {
	return refused(http.StatusForbidden, "NOT_CREDENTIAL", "You must login first")
}

func notGranted() *apiError {
	return refused(http.StatusForbidden, "NOT_GRANTED_CALL", "This call has not been granted")
}
