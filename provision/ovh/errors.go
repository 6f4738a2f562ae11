package ovh

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"

	"popfleet/provision/provider"
)

const keyHint = "set OVH_APPLICATION_KEY, OVH_APPLICATION_SECRET and OVH_CONSUMER_KEY, or the ovh commands under providers in the fleet file"

// statusExpired is OVH's own status for a service whose contract has ended.
const statusExpired = 460

// Error is a failed call of this driver.
type Error = provider.Error

// apiError is an answer of the API that is no success. go-ovh's own type loses the code of the older errors, and all of
// an error whose details are not strings.
type apiError struct {
	status  int
	code    string // NOT_GRANTED_CALL, or the class of newer errors: Client::Forbidden
	message string
	query   string // what OVH's support asks for
	foreign bool   // not the API's JSON: a gateway's page says nothing about what exists
	after   time.Duration
}

func (e *apiError) Error() string {
	text := fmt.Sprintf("HTTP %d", e.status)
	if e.code != "" {
		text += " " + e.code
	}
	if e.message != "" {
		text += ": " + e.message
	}
	if e.query != "" {
		text += " [query " + e.query + "]"
	}
	return text
}

func parseError(status int, h http.Header, body []byte) *apiError {
	var wire struct {
		Class     string `json:"class"`
		ErrorCode string `json:"errorCode"`
		Message   string `json:"message"`
	}
	e := &apiError{status: status, query: printable(h.Get("X-Ovh-QueryID"), 80), foreign: !bytes.HasPrefix(bytes.TrimSpace(body), []byte("{"))}
	if err := json.Unmarshal(body, &wire); err != nil {
		wire.Message = string(body)
	}
	e.code, e.message = printable(wire.ErrorCode, 80), printable(wire.Message, 300)
	if e.code == "" {
		e.code = printable(wire.Class, 80)
	}
	if s, err := strconv.Atoi(h.Get("Retry-After")); err == nil && s > 0 {
		e.after = min(time.Duration(min(s, 3600))*time.Second, maxPause)
	}
	return e
}

// printable makes a foreign text fit for a terminal and a log.
func printable(s string, limit int) string {
	s = strings.Join(strings.FieldsFunc(s, func(r rune) bool { return unicode.IsControl(r) || unicode.IsSpace(r) }), " ")
	s = strings.ToValidUTF8(s, "?")
	if r := []rune(s); len(r) > limit {
		s = string(r[:limit]) + "…"
	}
	return s
}

// explain gives err its kind and hint; nil stays nil and an *Error is kept as it is.
func explain(op string, r request, err error) error {
	if err == nil {
		return nil
	}
	var ours *Error
	if errors.As(err, &ours) {
		return err
	}
	hint, kind := kindOf(r, err)
	return &Error{Op: op, Kind: kind, Hint: hint, Err: err}
}

// bare is what failed without the words of the call, for an error that says them itself.
func bare(err error) error {
	var ours *Error
	if errors.As(err, &ours) && ours.Err != nil {
		return ours.Err
	}
	return err
}

func kindOf(r request, err error) (hint string, kind error) {
	var api *apiError
	if !errors.As(err, &api) {
		if errors.Is(err, context.DeadlineExceeded) {
			return "", provider.ErrTimeout
		}
		return "", nil
	}
	switch {
	case api.unauthorized():
		return api.rightHint(r), provider.ErrUnauthorized
	case api.status == statusExpired:
		return "renew it at OVH, or take the node out of the fleet file: its data is kept for some days only", provider.ErrExpired
	case absent(err):
		return "", provider.ErrNotFound
	case api.status == http.StatusTooManyRequests:
		return "", provider.ErrRateLimited
	}
	return "", nil
}

// unauthorized says whether the keys or their rights are what is wrong. Repeating such a call never helps.
func (e *apiError) unauthorized() bool {
	return e.status == http.StatusUnauthorized || e.status == http.StatusForbidden || e.signature()
}

// signature says whether the signature was refused: the clocks may have drifted, or a key is wrong. "Invalid signature"
// and "Query out of time" come with 400 and an errorCode; the newer errors have the words only.
func (e *apiError) signature() bool {
	return e.late() || e.says("invalid_signature", "invalid signature")
}

// late says whether the signature was refused for its time alone.
func (e *apiError) late() bool { return e.says("query_time_out", "out of time", "timestamp") }

func (e *apiError) says(words ...string) bool {
	text := strings.ToLower(e.code + " " + e.message)
	return e.status >= 400 && e.status <= 403 &&
		slices.ContainsFunc(words, func(w string) bool { return strings.Contains(text, w) })
}

// rightHint says what an operator does about a refused call.
func (e *apiError) rightHint(r request) string {
	switch {
	case e.signature():
		return "the application secret or the consumer key is not the one of this application, or this machine's clock jumps"
	case e.says("granted"):
		path, _, _ := strings.Cut(r.path, "?")
		return fmt.Sprintf("the consumer key lacks the right %s %s: make one with this access rule", r.method, rule(path))
	case e.says("expired", "credential"):
		return "the consumer key is not valid (any more): make a new one for this application and confirm it at its validation URL"
	case e.says("invalid_key", "application key"):
		return "the application key is unknown at this endpoint: is it of another region (ovh-eu, ovh-ca, ovh-us)?"
	}
	return keyHint
}

// rule is a path as an access rule has it: names and numbers are any.
func rule(path string) string {
	parts := strings.Split(path, "/")
	for i, p := range parts {
		_, err := strconv.ParseInt(p, 10, 64)
		if err == nil || strings.ContainsAny(p, ".%:") || len(p) >= 30 { // 30: a cart's id
			parts[i] = "*"
		}
	}
	return strings.Join(parts, "/")
}

// verdict is what to do about a failed call.
type verdict struct {
	retry     bool
	ambiguous bool          // the call may have taken effect
	after     time.Duration // the API asks for this pause
	reason    string        // for people
}

// judge classifies a failed call; go-ovh retries nothing.
func judge(err error) verdict {
	var api *apiError
	if errors.As(err, &api) {
		return api.judge()
	}
	return judgeNetwork(err)
}

func (e *apiError) judge() verdict {
	switch {
	case e.status == http.StatusTooManyRequests:
		return verdict{retry: true, after: e.after, reason: "rate limit of the API reached"}
	case e.status == http.StatusConflict:
		return verdict{retry: true, reason: "conflict: " + e.words("another task may run on it")}
	case e.status == http.StatusLocked:
		return verdict{retry: true, reason: "locked: " + e.words("another task runs on it")}
	case e.status == http.StatusNotFound && e.foreign:
		return verdict{retry: true, ambiguous: true, reason: "a page that is not the API's answers HTTP 404"}
	case e.status >= 500:
		return verdict{retry: true, ambiguous: true, after: e.after, reason: fmt.Sprintf("the API answers HTTP %d", e.status)}
	}
	return verdict{}
}

func (e *apiError) words(otherwise string) string {
	if e.message != "" {
		return e.message
	}
	return otherwise
}

func judgeNetwork(err error) verdict {
	var netErr net.Error
	var certErr *tls.CertificateVerificationError
	switch {
	case errors.As(err, &certErr):
		return verdict{} // nothing was sent
	case errors.Is(err, syscall.ECONNREFUSED):
		return verdict{retry: true, reason: "the API refuses connections"}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET),
		errors.Is(err, syscall.EPIPE):
		return verdict{retry: true, ambiguous: true, reason: "the connection to the API was cut"}
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &netErr):
		return verdict{retry: true, ambiguous: true, reason: "the API does not answer"}
	}
	return verdict{ambiguous: true}
}

// mayHaveHappened says whether a failed call may have taken effect all the same.
func mayHaveHappened(err error) bool {
	return !errors.Is(err, provider.ErrUnauthorized) && judge(err).ambiguous
}

// absent says that the API itself answered that there is no such thing.
func absent(err error) bool {
	var api *apiError
	return errors.As(err, &api) && api.status == http.StatusNotFound && !api.foreign
}

func statusOf(err error) int {
	var api *apiError
	if errors.As(err, &api) {
		return api.status
	}
	return 0
}
