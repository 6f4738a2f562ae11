package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"popfleet/inventory"
	"popfleet/inventory/vault"
)

func (a *app) quarantineCommand() *cobra.Command {
	var why string
	var lift bool
	c := &cobra.Command{
		Use:   "quarantine NODE",
		Short: "Keep everything of ours away from a node until a person takes that back",
		Long: "quarantine keeps `fleet up` away from a node, never hands it its key, and takes it out of the other nodes' mesh with the next `fleet up`. " +
			"The machine itself is not touched: it is evidence. `fleet down` and `fleet replace` still work.",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return a.runQuarantine(c.Context(), args[0], why, lift) },
	}
	c.Flags().StringVar(&why, "why", "", "what `happened`, for those who find it there")
	c.Flags().BoolVar(&lift, "lift", false, "take it back")
	return c
}

func (a *app) runQuarantine(ctx context.Context, node, why string, lift bool) (err error) {
	s, err := a.open(ctx, "quarantine", []string{node}, needs{lock: true})
	if err != nil {
		return err
	}
	defer func() { s.close(ctx, codeOf(err)) }()
	if _, known := s.fleet.Node(node); !known {
		return fmt.Errorf("no node %q in fleet.yaml", node)
	}
	state, err := s.vault.NodeState(node)
	if err != nil {
		return err
	}
	switch {
	case lift && state.Quarantine == nil:
		return fmt.Errorf("%s is not in quarantine", node)
	case !lift && why == "":
		return fmt.Errorf("quarantine of %s: --why is missing; the next person will want to know", node)
	case !lift && state.ServerID == "":
		return fmt.Errorf("%s has no server yet: there is nothing to keep away from", node)
	}
	var order *vault.Order
	if !lift {
		name, host := who()
		order = &vault.Order{By: name + "@" + host, At: time.Now().UTC(), Why: why}
	}
	// The kill switch comes first and goes last: between the two writes no controller may hand out the key.
	if err := s.killSwitch(node, order, !lift); err != nil {
		return err
	}
	state.Quarantine = order
	if err := s.vault.SetNodeState(node, state); err != nil {
		return err
	}
	if err := s.killSwitch(node, order, lift); err != nil {
		return err
	}
	said := "is in quarantine"
	if lift {
		said = "is out of quarantine"
	}
	a.out.event("result", node, map[string]any{"quarantine": !lift, "why": why})
	a.out.data("%s %s %s\n", a.out.paint(green, "✓"), node, said)
	a.out.say("next: `%s` tells the other nodes", a.again("up"))
	return nil
}

// killSwitch sets or clears "never unlock" when now is its turn.
func (s *session) killSwitch(node string, order *vault.Order, now bool) error {
	if !now {
		return nil
	}
	_, err := s.vault.UpdateUnlock(node, func(u *vault.UnlockState) error {
		u.Never = order
		return nil
	})
	return err
}

// quarantined are the nodes that a person put away.
func (s *session) quarantined() (map[string]bool, error) {
	out := map[string]bool{}
	for _, n := range s.fleet.Resolved() {
		state, err := s.vault.NodeState(n.Name)
		if err != nil {
			return nil, err
		}
		if state.Quarantine != nil {
			out[n.Name] = true
		}
	}
	return out, nil
}

// without is the fleet as a node sees it: the others in quarantine are no peers of it.
func without(f *inventory.Fleet, fenced map[string]bool, self string) *inventory.Fleet {
	if len(fenced) == 0 {
		return f
	}
	seen := *f
	seen.PoPs = nil
	for _, pop := range f.PoPs {
		var kept []inventory.Node
		for _, n := range pop.Nodes {
			if n.Name == self || !fenced[n.Name] {
				kept = append(kept, n)
			}
		}
		if pop.Nodes = kept; len(kept) > 0 {
			seen.PoPs = append(seen.PoPs, pop)
		}
	}
	return &seen
}
