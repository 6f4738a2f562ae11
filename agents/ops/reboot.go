package ops

import (
	"context"
	"encoding/json"
	"fmt"

	"popfleet/agents/bootchain"
	"popfleet/agents/command"
	"popfleet/agents/exchange"
	"popfleet/agents/facts"
	"popfleet/playbooks/spec"
)

// reboot refuses to reboot a machine into something that would not come back.
type reboot struct {
	host  facts.Host
	slots func(context.Context) (int, error) // active key slots of the root's device
	run   command.Runner
	act   func() error
}

func (r reboot) serve(ctx context.Context, _ json.RawMessage, _ exchange.Session) (any, error) {
	if rescue, _ := r.host.Rescue(); !rescue {
		if err := r.wouldComeBack(ctx); err != nil {
			return nil, &spec.Error{Code: CodeNotBootable, Message: fmt.Sprintf("not rebooted: this node would not come back: %v", err),
				Hint: "run `fleet up` to install it anew, or repair /boot by hand"}
		}
	}
	return nil, r.act()
}

// CodeNotBootable is the error code of a reboot that was refused.
const CodeNotBootable = "not_bootable"

func (r reboot) wouldComeBack(ctx context.Context) error {
	if _, err := r.run.Run(ctx, command.Cmd{Argv: bootchain.MountBoot()}); err != nil {
		return err
	}
	if err := bootchain.Check("/" + r.host.Root); err != nil {
		return err
	}
	n, err := r.slots(ctx)
	if err == nil && n == 0 {
		err = fmt.Errorf("the disk has no key slot left")
	}
	return err
}
