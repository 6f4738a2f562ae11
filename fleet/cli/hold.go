package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"popfleet/fleet/controller"
	"popfleet/fleet/controller/client"
	"popfleet/fleet/controller/policy"
	"popfleet/inventory"
	"popfleet/inventory/vault"
	"popfleet/provision/lifecycle"
	"popfleet/provision/provider"
	"popfleet/provision/remote"
)

// guard gives d the unlock policy, as an operator asks it: that somebody names a node answers whether it was awaited, and
// nothing else. Boots are proven and keys exchanged, and all of it is written down.
func (s *session) guard(d *lifecycle.Deps) {
	log := controller.AuditFile(s.app.path(".fleet"))
	d.Boots, d.Rotation, d.Allow = s.vault, s.vault, s.mayUnlock
	d.Audit = controller.Auditor(log, s.person(), func(err error) { s.app.out.say("audit log: %v", err) })
}

func (s *session) person() string {
	name, host := who()
	return name + "@" + host
}

// mayUnlock decides about a sealed node whose initramfs has shown a pinned key. One that is not sealed yet has nothing
// on its disk, and the key that it is given opens nothing once it is.
func (s *session) mayUnlock(ctx context.Context, n lifecycle.Node, seen lifecycle.Observation) error {
	state, err := s.vault.NodeState(n.Name)
	if err != nil || !state.Sealed {
		return err
	}
	f, err := s.unlockFacts(n.Name, state, seen)
	if err != nil {
		return err
	}
	said, err := s.vault.UnlockState(n.Name)
	if err != nil {
		return err
	}
	f.Never, f.Approval, f.Suspect = said.Never, said.Approval, said.Suspect
	resolved := inventory.Resolved{Name: n.Name, PoP: n.PoP, Machine: n.Machine}
	f.Provider = controller.CrossCheck(ctx, s.activity(), s.journal, resolved, state, said.Good)
	v := policy.Settings{RecentlyAlive: s.fleet.Unlock.RecentlyAlive,
		CrossCheck: policy.CrossCheckRule(s.fleet.Unlock.CrossCheck)}.Decide(f)
	if err := controller.WriteDecision(controller.AuditFile(s.app.path(".fleet")), n.Name, f, v); err != nil {
		return err // a key is not sent without a record
	}
	switch {
	case v.Decision == policy.Never:
		return fmt.Errorf("%s\n  hint: %s takes that back", v.Why, s.app.again("unlock", "--allow", n.Name))
	case v.Decision != policy.Allow:
		return fmt.Errorf("%s\n  hint: when you know that it is right: %s, then the same again", v.Why, s.app.again("unlock", "--approve", n.Name))
	case v.Approved:
		err = controller.UseApproval(s.vault, n.Name, f.Approval)
	}
	s.app.out.say("%s: %s", n.Name, v.Why)
	return err
}

func (s *session) unlockFacts(node string, state vault.NodeState, seen lifecycle.Observation) (policy.Facts, error) {
	pin, err := remote.ParseKey(state.InitramfsHostKey)
	if err != nil {
		return policy.Facts{}, fmt.Errorf("pinned initramfs host key of %s: %w", node, err)
	}
	now := time.Now().UTC()
	return policy.Facts{Now: now, FirstSeen: now, Asker: policy.Operator, Who: s.person(),
		Pinned: []string{ssh.FingerprintSHA256(pin)}, Shown: seen.HostKey}, nil
}

// asked are the providers that a verb opened only to ask what happened to a machine.
type asked struct {
	mu     sync.Mutex
	clouds *clouds
}

// activity asks a node's provider, whose credentials are looked for when they are needed first.
func (s *session) activity() controller.Activity {
	return func(ctx context.Context, n inventory.Resolved, server string, since time.Time) ([]provider.Activity, error) {
		p, err := s.providerToAsk(ctx, n.Machine.Provider)
		if err != nil {
			first, _, _ := strings.Cut(err.Error(), "\n")
			return nil, errors.New(first)
		}
		return p.Activity(ctx, server, since)
	}
}

func (s *session) providerToAsk(ctx context.Context, name string) (provider.Provider, error) {
	if s.clouds != nil {
		return s.clouds.provider(name)
	}
	s.asked.mu.Lock()
	defer s.asked.mu.Unlock()
	if s.asked.clouds == nil {
		s.asked.clouds = &clouds{byName: map[string]provider.Provider{}}
	}
	if p := s.asked.clouds.byName[name]; p != nil {
		return p, nil
	}
	servers, err := s.dedicated(nil)
	if err != nil {
		return nil, err
	}
	if err := s.openCloud(ctx, s.asked.clouds, name, servers[name]); err != nil {
		return nil, err
	}
	return s.asked.clouds.provider(name)
}

func (a *asked) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.clouds != nil {
		a.clouds.close()
	}
}

// runSay writes down what a person says of a node, here first and then with every controller.
func (a *app) runSay(ctx context.Context, name string, saying controller.Saying) (err error) {
	s, err := a.open(ctx, "unlock", []string{"--" + saying.Say, name}, needs{})
	if err != nil {
		return err
	}
	defer func() { s.close(ctx, codeOf(err)) }()
	if _, ok := s.fleet.Node(name); !ok {
		return noSuchNode(s.fleet, name)
	}
	saying.By, saying.At = s.person(), time.Now()
	if saying.Say == controller.SayTrust {
		if err := s.showChange(name); err != nil {
			return err
		}
	}
	words, err := saying.Apply(s.vault, controller.AuditFile(a.path(".fleet")), name)
	if err != nil {
		return err
	}
	a.out.data("%s\n", words)
	a.out.event("said", name, map[string]string{"say": saying.Say, "words": words})
	s.tellControllers(ctx, name, saying)
	return nil
}

// showChange says what is about to be taken for good.
func (s *session) showChange(name string) error {
	u, err := s.vault.UnlockState(name)
	if err == nil && u.Suspect != nil {
		s.app.out.say("%s is suspect since %s: %s", name, u.Suspect.Since.Format(time.RFC3339), u.Suspect.Why)
	}
	return err
}

const tellTimeout = 10 * time.Second

// tellControllers: those on this folder know already; the others may be out of reach, and then it is said.
func (s *session) tellControllers(ctx context.Context, name string, saying controller.Saying) {
	d, err := s.app.dialer()
	if err != nil {
		s.app.out.say("no controller was told: %v", err)
		return
	}
	id, err := identity(s.vault, "operator", operatorName())
	if err != nil {
		s.app.out.say("no controller was told: %v", err)
		return
	}
	for _, c := range s.fleet.Controllers {
		ctx, cancel := context.WithTimeout(ctx, tellTimeout)
		_, err := client.New(d, id, s.fleet.Name, c.Address.String()).Say(ctx, name, saying)
		cancel()
		if err != nil {
			s.app.out.say("controller %s was not told (one that runs on this folder reads it anyway): %v", c.Name, err)
		}
	}
}
