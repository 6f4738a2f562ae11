package hetznerrobot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"
	"unicode"

	"popfleet/provision/provider"
)

const loginHint = "set HROBOT_USER and HROBOT_PASSWORD, or providers.hetznerrobot.token_command in the fleet file, to those of the webservice user (Robot: Settings, Web service and app settings); Robot blocks an address for 10 minutes after 3 refusals"

// Codes of Robot that the driver acts on.
const (
	codeRateLimit        = "RATE_LIMIT_EXCEEDED"
	codeServerNotFound   = "SERVER_NOT_FOUND"
	codeBootNotAvailable = "BOOT_NOT_AVAILABLE"
	codeResetMissing     = "RESET_NOT_AVAILABLE"
	codeResetManual      = "RESET_MANUAL_ACTIVE"
	codeInvalidInput     = "INVALID_INPUT"
	codeNoAddress        = "IP_NOT_FOUND"
)

// refusal is an answer that is no success.
type refusal struct {
	Status   int
	Code     string   // "" when the answer was not Robot's
	Message  string   // in Robot's words, bounded
	Fields   []string // of INVALID_INPUT: what was missing or invalid
	Interval time.Duration
	Max      int
}

func (r *refusal) Error() string {
	text := fmt.Sprintf("HTTP %d", r.Status)
	if r.Code != "" {
		text = r.Code
	}
	if r.Message != "" {
		text += ": " + r.Message
	}
	if len(r.Fields) > 0 {
		text += " (" + strings.Join(r.Fields, ", ") + ")"
	}
	return text
}

// parseRefusal reads an error body; whatever it holds, the result says at least the status.
func parseRefusal(status int, body []byte) *refusal {
	var in struct {
		Error struct {
			Code     string          `json:"code"`
			Message  string          `json:"message"`
			Missing  json.RawMessage `json:"missing"`
			Invalid  json.RawMessage `json:"invalid"`
			Max      json.RawMessage `json:"max_request"`
			Interval json.RawMessage `json:"interval"`
		} `json:"error"`
	}
	r := &refusal{Status: status}
	if json.Unmarshal(body, &in) != nil {
		return r
	}
	e := in.Error
	r.Code, r.Message = printable(e.Code, 64), printable(e.Message, 300)
	r.Fields = append(words(e.Missing), words(e.Invalid)...)
	r.Max = wholeNumber(e.Max, 1<<20)
	if s := wholeNumber(e.Interval, 7*24*3600); s > 0 {
		r.Interval = time.Duration(s) * time.Second
	}
	return r
}

// words reads a list of names, or the keys of an object, in whichever form Robot gives them.
func words(raw json.RawMessage) []string {
	var list []string
	if json.Unmarshal(raw, &list) != nil {
		var object map[string]json.RawMessage
		if json.Unmarshal(raw, &object) != nil {
			return nil
		}
		for k := range object {
			list = append(list, k)
		}
	}
	if len(list) > 20 {
		list = list[:20]
	}
	for i := range list {
		list[i] = printable(list[i], 64)
	}
	return list
}

// wholeNumber reads a number, bare or quoted; anything else, or one above limit, is 0.
func wholeNumber(raw json.RawMessage, limit int64) int {
	var n json.Number
	if json.Unmarshal(raw, &n) != nil {
		return 0
	}
	v, err := n.Int64()
	if err != nil || v < 0 || v > limit {
		return 0
	}
	return int(v)
}

// printable cuts s to n characters and drops what a terminal would act on.
func printable(s string, n int) string {
	var b strings.Builder
	for _, r := range s {
		if n == 0 {
			break
		}
		if unicode.IsPrint(r) {
			b.WriteRune(r)
			n--
		}
	}
	return b.String()
}

func codeOf(err error) string {
	var r *refusal
	if errors.As(err, &r) {
		return r.Code
	}
	return ""
}

// absent says that Robot itself answered that the thing, and not the server, does not exist.
func absent(err error) bool {
	var r *refusal
	return errors.As(err, &r) && r.Status == http.StatusNotFound && r.Code != "" && r.Code != codeServerNotFound
}

// explain gives err its kind and hint; nil stays nil and a [provider.Error] is kept as it is.
func explain(op string, err error) error {
	var ours *provider.Error
	if err == nil || errors.As(err, &ours) {
		return err
	}
	hint, kind := kindOf(err)
	return &provider.Error{Op: op, Kind: kind, Hint: hint, Err: err}
}

func kindOf(err error) (hint string, kind error) {
	switch codeOf(err) {
	case codeServerNotFound:
		return "a server that Hetzner has locked, or that belongs to another account, is invisible here", provider.ErrNotFound
	case codeNoAddress:
		return "the address does not belong to this Robot account", provider.ErrNotFound
	case codeBootNotAvailable:
		return "Robot has no boot configuration for this server", provider.ErrNoRescue
	case codeResetMissing:
		return "Robot has no reset for this server: restart it by hand", provider.ErrCantRestart
	case codeResetManual:
		return "a manual reset was ordered and a technician works on it: run the command again when Robot says it is done", provider.ErrCantRestart
	}
	var r *refusal
	if errors.As(err, &r) && r.Status == http.StatusNotFound && r.Code != "" { // a gateway's page says nothing about what exists
		return "", provider.ErrNotFound
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return "", provider.ErrTimeout
	}
	return "", nil
}

// verdict is what to do about a failed call.
type verdict struct {
	retry   bool
	unsent  bool   // it cannot have taken effect
	reason  string // for people
	limited bool   // Robot's limit
}

// judge classifies a failed call. A 403 is a limit, or a refused login: client.go has told them apart by now.
func judge(err error) verdict {
	var r *refusal
	if errors.As(err, &r) {
		return judgeRefusal(r)
	}
	var op *net.OpError
	var netErr net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return verdict{retry: true, unsent: true, reason: "Robot refuses connections"}
	case errors.As(err, &op) && op.Op == "dial":
		return verdict{retry: true, unsent: true, reason: "Robot cannot be reached"}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return verdict{retry: true, reason: "the connection to Robot was cut"}
	case errors.Is(err, errMalformed):
		return verdict{retry: true, reason: "Robot's answer cannot be read"}
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &netErr):
		return verdict{retry: true, reason: "Robot does not answer"}
	}
	return verdict{unsent: true}
}

func judgeRefusal(r *refusal) verdict {
	switch {
	case r.Code == codeRateLimit, r.Status == http.StatusTooManyRequests:
		return verdict{retry: true, unsent: true, limited: true, reason: "Robot's limit is used up"}
	case strings.HasSuffix(r.Code, "_FAILED"): // RESET_FAILED, BOOT_ACTIVATION_FAILED …: Robot says it did not happen
		return verdict{retry: true, unsent: true, reason: "Robot answers " + r.Code}
	case r.Status >= 500, r.Status == http.StatusNotFound && r.Code == "": // without a code it was not Robot that answered
		return verdict{retry: true, reason: "Robot answers " + r.Error()}
	case r.Status >= 300 && r.Status < 400:
		return verdict{reason: "Robot answers with a redirect"}
	}
	return verdict{unsent: true}
}

// mayHaveHappened says whether a failed call may have taken effect all the same.
func mayHaveHappened(err error) bool {
	if errors.Is(err, provider.ErrBudget) || errors.Is(err, provider.ErrRateLimited) || errors.Is(err, provider.ErrUnauthorized) {
		return false
	}
	return !judge(err).unsent
}
