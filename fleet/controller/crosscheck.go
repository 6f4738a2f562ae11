package controller

import (
	"context"
	"time"

	"popfleet/fleet/controller/policy"
	"popfleet/internal/journal"
	"popfleet/inventory"
	"popfleet/inventory/vault"
	"popfleet/provision/lifecycle"
	"popfleet/provision/provider"
)

// Activity asks a node's provider what happened to its machine since then; nil where nobody has the credentials.
type Activity func(ctx context.Context, n inventory.Resolved, serverID string, since time.Time) ([]provider.Activity, error)

// crossCheckTimeout bounds the whole question; a node waits for its key meanwhile.
const crossCheckTimeout = 30 * time.Second

// steps is a journal whose steps can be read.
type steps interface {
	Entries(ctx context.Context, f journal.Filter) ([]journal.Entry, error)
}

// CrossCheck compares what the provider says happened to a node's machine since its last good boot with what this
// folder's journal says we did. What another folder did looks foreign here, and holds the node: a person knows.
func CrossCheck(ctx context.Context, ask Activity, j lifecycle.Journal, n inventory.Resolved, state vault.NodeState, good *vault.GoodBoot) policy.CrossCheck {
	if ask == nil {
		return policy.CrossCheck{}
	}
	var since time.Time
	if good != nil && good.Install == state.InstallRun {
		since = good.At.Truncate(time.Second) // providers tell seconds
	}
	ctx, cancel := context.WithTimeout(ctx, crossCheckTimeout)
	defer cancel()
	acts, err := ask(ctx, n, state.ServerID, since)
	if err != nil {
		return policy.CrossCheck{Why: err.Error(), Since: since}
	}
	return policy.Compare(acts, since, ourSpans(ctx, j, n.Name, since))
}

// atProvider are the operations that do something risky to a machine at its provider; a mere restart is none.
var atProvider = map[string]bool{
	string(lifecycle.OpRent): true, string(lifecycle.OpEnterRescue): true, string(lifecycle.OpBootDisk): true,
}

// ourSpans are the times since then in which we did something there.
func ourSpans(ctx context.Context, j lifecycle.Journal, node string, since time.Time) []policy.Span {
	from, ok := j.(steps)
	if !ok {
		return nil
	}
	entries, err := from.Entries(ctx, journal.Filter{Node: node, Since: since.Add(-time.Hour)})
	if err != nil {
		return nil // everything looks foreign, and a person is asked
	}
	var spans []policy.Span
	for _, e := range entries {
		to := e.Ended
		if to.IsZero() {
			to = e.Deadline
		}
		if !atProvider[e.Op] || to.Before(since) {
			continue
		}
		spans = append(spans, policy.Span{Op: e.Op, From: e.Began, To: to})
	}
	return spans
}
