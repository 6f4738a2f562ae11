// Package ops is the closed set of what an operator can ask of fleet-agent in an exchange: every op of playbooks/spec
// with the handler that serves it. It holds no logic of its own beyond facts and reboot, which are one call each.
package ops

import (
	"context"
	"encoding/json"
	"log/slog"
	"maps"

	"popfleet/agents/apply"
	"popfleet/agents/bootchain"
	"popfleet/agents/bootkeep"
	"popfleet/agents/command"
	"popfleet/agents/exchange"
	"popfleet/agents/facts"
	"popfleet/agents/install"
	"popfleet/agents/mend"
	"popfleet/agents/seal"
	"popfleet/playbooks/spec"
)

// Handlers serves every op on this machine.
func Handlers(log *slog.Logger) map[string]exchange.Handler {
	host := facts.Host{}
	sealer := seal.Handler{Host: host, Run: command.System{}, Log: log}
	keeper := bootkeep.New(log)
	mender := mend.Handler{Host: host, Run: command.System{}, Log: log}
	boot := reboot{host, keeper.Check, bootchain.RebootSoon}
	all := map[string]exchange.Handler{
		spec.OpFacts: func(ctx context.Context, _ json.RawMessage, _ exchange.Session) (any, error) {
			return host.Gather(ctx)
		},
		spec.OpInstall:   install.Handler{Host: host}.Serve,
		spec.OpSeal:      sealer.Seal,
		spec.OpRotate:    sealer.Rotate,
		spec.OpKeyBox:    sealer.KeyBox,
		spec.OpPeerKey:   sealer.PeerKey,
		spec.OpWipe:      sealer.Wipe,
		spec.OpMendPlan:  mender.Plan,
		spec.OpMend:      mender.Mend,
		spec.OpShare:     passOn(log),
		spec.OpReboot:    boot.serve,
		spec.OpBootCheck: boot.bootCheck,
		spec.OpBootManifest: func(ctx context.Context, _ json.RawMessage, _ exchange.Session) (any, error) {
			return keeper.Checker.Manifest(ctx)
		},
		spec.OpBootChanges: func(ctx context.Context, _ json.RawMessage, _ exchange.Session) (any, error) {
			return keeper.Changes(ctx)
		},
	}
	maps.Copy(all, apply.Handlers(apply.Default(log)))
	return all
}
