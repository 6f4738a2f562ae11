package hetznercloud

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"

	"github.com/hetznercloud/hcloud-go/v2/hcloud"

	"popfleet/provision/provider"
)

const tokenHint = "set HCLOUD_TOKEN, or providers.hetznercloud.token_command in the fleet file, to a read-write token of this project"

// Error is a failed call of this driver.
type Error = provider.Error

// explain gives err its kind and hint; nil stays nil and an *Error is kept as it is.
func explain(op string, err error) error {
	if err == nil {
		return nil
	}
	var ours *Error
	if errors.As(err, &ours) {
		return err
	}
	hint, kind := kindOf(err)
	return &Error{Op: op, Kind: kind, Hint: hint, Err: err}
}

func kindOf(err error) (hint string, kind error) {
	switch code := codeOf(err); code {
	case hcloud.ErrorCodeUnauthorized:
		return tokenHint, provider.ErrUnauthorized
	case hcloud.ErrorCodeForbidden:
		return "the token may only read; " + tokenHint, provider.ErrUnauthorized
	case hcloud.ErrorCodeResourceUnavailable, hcloud.ErrorCodePlacementError:
		return "this can last for weeks: choose another server_type or location in the fleet file", provider.ErrUnavailable
	case hcloud.ErrorCodeResourceLimitExceeded:
		return "the project's limit is reached: ask Hetzner to raise it or delete what is not used", nil
	case hcloud.ErrorCodeNotFound:
		return "", provider.ErrNotFound
	case hcloud.ErrorCodeProtected:
		return "lift the protection in the provider's console first", provider.ErrProtected
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return "", provider.ErrTimeout
	}
	return "", nil
}

// codeOf is the API's or an action's error code, or "".
func codeOf(err error) hcloud.ErrorCode {
	var api hcloud.Error
	if errors.As(err, &api) {
		return api.Code
	}
	var act hcloud.ActionError
	if errors.As(err, &act) {
		return hcloud.ErrorCode(act.Code)
	}
	return ""
}

// verdict is what to do about a failed call.
type verdict struct {
	retry     bool
	ambiguous bool   // the call may have taken effect
	reason    string // for people
}

// judge classifies a failed call. hcloud-go itself retries neither locked nor 503, service_error or maintenance, so
// the whole policy lives here. resource_unavailable is final: repeating it gets accounts closed, not servers.
func judge(err error) verdict {
	switch code := codeOf(err); code {
	case hcloud.ErrorCodeLocked:
		return verdict{retry: true, reason: "locked: another action runs on it"}
	case hcloud.ErrorCodeConflict:
		return verdict{retry: true, reason: "conflict: it changed meanwhile"}
	case hcloud.ErrorCodeRateLimitExceeded:
		return verdict{retry: true, reason: "rate limit of the API reached"}
	case hcloud.ErrorCodeMaintenance:
		return verdict{retry: true, reason: "maintenance at the provider"}
	case "unavailable": // 503; hcloud-go has no constant for it
		return verdict{retry: true, reason: "the API is unavailable"}
	case hcloud.ErrorCodeServiceError, hcloud.ErrorCodeServerError, hcloud.ErrorCodeBadGateway, hcloud.ErrorCodeTimeout,
		hcloud.ErrorCodeUnknownError:
		return verdict{retry: true, ambiguous: true, reason: "the API answers " + string(code)}
	case "":
	default:
		return verdict{}
	}
	if errors.Is(err, hcloud.ErrStatusCode) {
		return judgeStatus(statusOf(err))
	}
	return judgeNetwork(err)
}

func judgeStatus(status int) verdict {
	reason := fmt.Sprintf("the API answers HTTP %d", status)
	switch status {
	case http.StatusLocked, http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return verdict{retry: true, reason: reason}
	case http.StatusInternalServerError, http.StatusBadGateway, http.StatusGatewayTimeout:
		return verdict{retry: true, ambiguous: true, reason: reason}
	}
	return verdict{}
}

func judgeNetwork(err error) verdict {
	var netErr net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return verdict{retry: true, reason: "the API refuses connections"}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return verdict{retry: true, ambiguous: true, reason: "the connection to the API was cut"}
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &netErr):
		return verdict{retry: true, ambiguous: true, reason: "the API does not answer"}
	}
	return verdict{}
}

// statusOf reads the status from hcloud-go's error, which carries it in its text only.
func statusOf(err error) int {
	var status int
	fields := strings.Fields(err.Error())
	if _, scanErr := fmt.Sscanf(fields[len(fields)-1], "%d", &status); scanErr != nil {
		return 0
	}
	return status
}
