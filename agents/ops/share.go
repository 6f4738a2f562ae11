package ops

import (
	"context"
	"encoding/json"
	"log/slog"

	"popfleet/agents/exchange"
	"popfleet/agents/share"
	"popfleet/playbooks/spec"
)

// passOn listens for receivers until the exchange ends: its context is the exchange's, not the request's.
func passOn(log *slog.Logger) exchange.Handler {
	return func(ctx context.Context, specJSON json.RawMessage, _ exchange.Session) (any, error) {
		var s spec.Share
		if err := exchange.Decode(specJSON, &s); err != nil {
			return nil, err
		}
		v, shared, err := share.Start(s, share.Places(), log)
		if err != nil {
			return nil, err
		}
		context.AfterFunc(ctx, v.Close)
		return shared, nil
	}
}
