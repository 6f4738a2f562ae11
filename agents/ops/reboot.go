package ops

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"popfleet/agents/exchange"
	"popfleet/agents/facts"
	"popfleet/playbooks/spec"
)

// reboot refuses to reboot a machine into something that would not come back.
type reboot struct {
	host  facts.Host
	check func(context.Context, spec.BootCheckRequest) (spec.BootCheck, error)
	act   func(rescue bool) error
}

func (r reboot) serve(ctx context.Context, _ json.RawMessage, _ exchange.Session) (any, error) {
	rescue, _ := r.host.Rescue()
	if !rescue {
		result, err := r.check(ctx, spec.BootCheckRequest{})
		if err == nil && !result.OK() {
			err = NotBootable(result)
		}
		if err != nil {
			return nil, &spec.Error{Code: CodeNotBootable, Message: fmt.Sprintf("not rebooted: this node would not come back: %v", err),
				Hint: "`fleet check reboot` says what to do; `fleet up` installs it anew"}
		}
	}
	return nil, r.act(rescue)
}

// CodeNotBootable is the error code of a reboot that was refused.
const CodeNotBootable = "not_bootable"

// NotBootable is a check that did not pass, as an error: every finding by its name.
func NotBootable(b spec.BootCheck) error {
	var text []string
	for _, f := range b.Failed() {
		text = append(text, f.Name+": "+f.Why)
	}
	return fmt.Errorf("%s", strings.Join(text, "; "))
}

// bootCheck serves [spec.OpBootCheck].
func (r reboot) bootCheck(ctx context.Context, specJSON json.RawMessage, _ exchange.Session) (any, error) {
	var req spec.BootCheckRequest
	if len(specJSON) > 0 {
		if err := exchange.Decode(specJSON, &req); err != nil {
			return nil, err
		}
	}
	return r.check(ctx, req)
}
