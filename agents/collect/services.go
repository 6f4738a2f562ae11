package collect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"popfleet/agents"
	"popfleet/internal/control"
)

// replicator is the service whose status tells the pairs.
const replicator = "replicator"

// asked is a service and the client for its socket.
type asked struct {
	Service
	client *control.Client
}

func newAsked(s Service) asked { return asked{s, control.Dial(s.Control)} }

// askAll asks every service at once, so one that hangs delays none of the others.
func askAll(ctx context.Context, services []asked) ([]agents.Service, []agents.Pair) {
	out := make([]agents.Service, len(services))
	pairs := []agents.Pair{}
	var wg sync.WaitGroup
	for i, s := range services {
		wg.Go(func() {
			var status control.Status
			out[i], status = s.ask(ctx)
			if s.Name == replicator { // one service has this name: nobody else writes pairs
				pairs = pairsOf(status, &out[i])
			}
		})
	}
	wg.Wait()
	return out, pairs
}

func (s asked) ask(ctx context.Context) (agents.Service, control.Status) {
	out := agents.Service{Name: s.Name}
	health, err := s.client.Health(ctx)
	if err != nil {
		out.Reason = fmt.Sprintf("does not answer on its control socket: %v", err)
		return out, control.Status{}
	}
	out.Healthy, out.Reason = health.OK, health.Reason
	status, err := s.client.Status(ctx)
	if err != nil {
		out.Healthy, out.Reason = false, fmt.Sprintf("does not tell its status: %v", err)
		return out, control.Status{}
	}
	out.State, out.Version = status.State, status.Version
	return out, status
}

// pairsOf reads the replicator's own detail. Fields we do not know are another version's; a list we cannot read is the
// replicator's fault and said so, not an empty list.
func pairsOf(s control.Status, service *agents.Service) []agents.Pair {
	if s.Detail == nil {
		return []agents.Pair{}
	}
	pairs, err := decodePairs(s.Detail)
	if err != nil {
		service.Healthy, service.Reason = false, fmt.Sprintf("its pairs cannot be read: %v", err)
		return []agents.Pair{}
	}
	return pairs
}

func decodePairs(detail any) ([]agents.Pair, error) {
	data, err := json.Marshal(detail)
	if err != nil {
		return nil, err
	}
	var d struct {
		Pairs []agents.Pair `json:"pairs"`
	}
	if err := json.Unmarshal(data, &d); err != nil {
		return nil, err
	}
	for _, p := range d.Pairs {
		if p.From == "" || p.State == "" {
			return nil, errors.New("a pair has no peer or no state")
		}
	}
	if d.Pairs == nil {
		d.Pairs = []agents.Pair{}
	}
	return d.Pairs, nil
}
