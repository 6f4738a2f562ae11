// Package api is the form of OVH's API: how requests are signed, what answers and errors look like. It is for the
// simulator in lab/ovh and its parts, knows no call, and holds no state.
package api

import (
	"fmt"
	"net/http"
)

// Error is an error as the API words it. Refused credentials carry errorCode and httpCode too, the older form that
// clients in the field still read.
type Error struct {
	Status   int    `json:"-"`
	Class    string `json:"class,omitempty"`
	Message  string `json:"message"`
	Code     string `json:"errorCode,omitempty"`
	HTTPCode string `json:"httpCode,omitempty"`
}

func (e *Error) Error() string { return e.Class + ": " + e.Message }

// StatusExpired is the provider's own code for a service that was not paid.
const StatusExpired = 460

// Fail is an error with a status and a class.
func Fail(status int, class, format string, args ...any) *Error {
	return &Error{Status: status, Class: class, Message: fmt.Sprintf(format, args...)}
}

// Bad is about a request that is wrong by itself.
func Bad(format string, args ...any) *Error {
	return Fail(http.StatusBadRequest, "Client::BadRequest", format, args...)
}

// NotFound is about something that is not there.
func NotFound(format string, args ...any) *Error {
	return Fail(http.StatusNotFound, "Client::NotFound", format, args...)
}

// NoObject is about a part of a path that leads nowhere.
func NoObject(what string, id any) *Error {
	return NotFound("The requested object (%s = %v) does not exist", what, id)
}

// Conflict is about something that is under way or done already.
func Conflict(format string, args ...any) *Error {
	return Fail(http.StatusConflict, "Client::Conflict", format, args...)
}

// NoService is about a service that the account does not have.
func NoService() *Error { return NotFound("This service does not exist") }

// Expired is about a service that was not paid for.
func Expired() *Error {
	return Fail(StatusExpired, "Client::ServiceExpired", "This service is expired")
}

// Internal is what the provider answers when it does not know itself.
func Internal() *Error {
	return Fail(http.StatusInternalServerError, "Server::InternalServerError", "Internal server error")
}

// refused is an answer to wrong or missing credentials.
func refused(status int, code, message string) *Error {
	class := "Client::Forbidden"
	if status == http.StatusBadRequest {
		class = "Client::BadRequest"
	}
	return &Error{Status: status, Class: class, Message: message, Code: code, HTTPCode: fmt.Sprintf("%d %s", status, http.StatusText(status))}
}

// InvalidSignature is about a request whose parts do not fit its signature.
func InvalidSignature() *Error {
	return refused(http.StatusBadRequest, "INVALID_SIGNATURE", "Invalid signature")
}

// OutOfTime is about a timestamp too far from the provider's clock.
func OutOfTime() *Error {
	return refused(http.StatusBadRequest, "QUERY_TIME_OUT", "Query out of time")
}

// InvalidKey is about an application that does not exist.
func InvalidKey() *Error {
	return refused(http.StatusForbidden, "INVALID_KEY", "This application key is invalid")
}

// UnknownCredential is about a consumer key that does not exist.
func UnknownCredential() *Error {
	return refused(http.StatusForbidden, "INVALID_CREDENTIAL", "This credential does not exist")
}

// InvalidCredential is about a consumer key that has expired or was never validated.
func InvalidCredential() *Error {
	return refused(http.StatusForbidden, "INVALID_CREDENTIAL", "This credential is not valid")
}

// NotLoggedIn is about a request without a signature.
func NotLoggedIn() *Error {
	return refused(http.StatusForbidden, "NOT_CREDENTIAL", "You must login first")
}

// NotGranted is about a call that the consumer key was not given.
func NotGranted() *Error {
	return refused(http.StatusForbidden, "NOT_GRANTED_CALL", "This call has not been granted")
}
