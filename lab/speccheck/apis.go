package speccheck

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// API names a provider's description.
type API int

// The descriptions there are.
const (
	HetznerCloud API = iota
	HetznerRobot
	OVH
)

// source is where a description lies and what it does not say itself.
type source struct {
	files   []string
	prefix  string // of every path at the provider
	patch   func(*document)
	beyond  []string // paths under these are in no description; exchanges are counted apart
	failure func(status int, body []byte) error
}

func (a API) source() source {
	switch a {
	case HetznerRobot:
		return source{
			files: []string{"hetzner-robot.yaml"}, patch: patchRobot, failure: robotFailure,
			beyond: []string{"/order/"},
		}
	case OVH:
		return source{
			files: []string{"ovh-baremetal.json", "ovh-ip.json", "ovh-me.json"}, prefix: "/1.0", patch: patchOVH, failure: ovhFailure,
			beyond: []string{"/auth/", "/order/"},
		}
	}
	return source{files: []string{"hetzner-cloud.json"}, prefix: "/v1", patch: patchCloud}
}

// robotFailure holds an error against the shape that all have, also where the call's description does not list it.
func robotFailure(status int, body []byte) error {
	var e struct {
		Error *struct {
			Status        int
			Code, Message string
			MaxRequest    int `json:"max_request"`
			Interval      int
		}
	}
	if err := json.Unmarshal(body, &e); err != nil {
		return err
	}
	switch {
	case e.Error == nil || e.Error.Code == "" || e.Error.Message == "":
		return fmt.Errorf("an error has status, code and message")
	case e.Error.Status != status:
		return fmt.Errorf("error.status is %d", e.Error.Status)
	case e.Error.Code == "RATE_LIMIT_EXCEEDED" && (status != http.StatusForbidden || e.Error.MaxRequest == 0 || e.Error.Interval == 0):
		return fmt.Errorf("a rate limit is a 403 with max_request and interval")
	}
	return nil
}

// ovhFailure: the description knows no error at all. Newer ones name a class, older ones of authentication an errorCode.
func ovhFailure(_ int, body []byte) error {
	var e struct {
		Class, Message, ErrorCode string
		Details                   map[string]string // what the provider's own Go client takes
	}
	if err := json.Unmarshal(body, &e); err != nil {
		return err
	}
	class := strings.HasPrefix(e.Class, "Client::") || strings.HasPrefix(e.Class, "Server::")
	if e.Message == "" || !class && e.ErrorCode == "" {
		return fmt.Errorf("an error has a message, and a class Client::… or Server::…, or an errorCode")
	}
	return nil
}
