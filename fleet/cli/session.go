package cli

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"popfleet/fleet/controller"
	"popfleet/internal/journal"
	"popfleet/internal/pace"
	"popfleet/internal/runlock"
	"popfleet/inventory"
	"popfleet/inventory/vault"
	"popfleet/playbooks/release"
	"popfleet/playbooks/spec"
	"popfleet/provision/lifecycle"
	"popfleet/provision/provider"
	"popfleet/provision/remote"
)

// session is the operator's folder, opened for one verb, with everything a run needs. Close ends it.
type session struct {
	app     *app
	verb    string
	run     string
	fleet   *inventory.Fleet
	vault   *vault.Vault
	journal *journal.Journal
	lock    *runlock.Lock
	audit   int64
	clouds  *clouds
	asked   asked
	pace    pace.Pace
	log     *slog.Logger
	logFile *os.File

	show       *progress // of the part that acts; nil before
	imageOnce  sync.Once
	imageFound lifecycle.Image
	imageErr   error
	imaging    sync.WaitGroup // a build begun ahead of its need
}

// needs say what a verb cannot do without.
type needs struct {
	lock      bool // it changes something, or its answer must not be of a moment when another run does
	providers bool // it asks a provider's API, so it needs the token
}

// open opens the folder. A second run that needs the lock is told who holds it.
func (a *app) open(ctx context.Context, verb string, args []string, need needs) (_ *session, err error) {
	s := &session{app: a, verb: verb, run: newRunID()}
	defer func() {
		if err != nil {
			s.close(ctx, codeOf(err))
		}
	}()
	if s.fleet, err = a.loadFleet(); err != nil {
		return nil, err
	}
	if s.pace, err = a.pace(); err != nil {
		return nil, err
	}
	command := strings.Join(append([]string{"fleet", verb}, args...), " ")
	if need.lock {
		if s.lock, err = runlock.Acquire(a.path(".fleet"), runlock.Me(command)); err != nil {
			if errors.As(err, new(*runlock.ErrHeld)) {
				return nil, exit(CodeLocked, err)
			}
			return nil, err
		}
	}
	if s.vault, err = a.openVault(ctx); err != nil {
		return nil, err
	}
	if s.vault.Fleet() != s.fleet.Name {
		return nil, fmt.Errorf("fleet.yaml is of fleet %q, secrets/ of fleet %q\n  hint: one folder holds one fleet", s.fleet.Name, s.vault.Fleet())
	}
	if err := s.openRecords(ctx, command); err != nil {
		return nil, err
	}
	if need.providers {
		s.clouds, err = s.openClouds(ctx)
	}
	return s, err
}

func (s *session) openRecords(ctx context.Context, command string) (err error) {
	if err := os.MkdirAll(s.app.path(".fleet"), 0o700); err != nil {
		return err
	}
	s.logFile, err = os.OpenFile(s.app.path(".fleet", "log.jsonl"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	s.log = slog.New(slog.NewJSONHandler(s.logFile, nil)).With("run", s.run)
	if s.journal, err = journal.Open(s.app.path(".fleet", "journal.db")); err != nil {
		return err
	}
	if s.lock != nil {
		if _, err := s.journal.Interrupt(ctx, s.run); err != nil {
			return err
		}
	}
	name, host := who()
	s.audit, err = s.journal.Audit(ctx, journal.Call{Who: name + "@" + host, PID: os.Getpid(), Verb: s.verb, Command: command})
	return err
}

// close lets go of everything; code is what the audit log says of the run.
func (s *session) close(ctx context.Context, code int) {
	s.imaging.Wait()
	s.asked.close()
	if s.clouds != nil {
		s.clouds.close()
	}
	if s.journal != nil {
		if s.audit != 0 {
			if err := s.journal.AuditEnd(ctx, s.audit, code); err != nil {
				s.app.out.say("audit log: %v", err)
			}
		}
		s.journal.Close()
	}
	if s.logFile != nil {
		s.logFile.Close()
	}
	if s.lock != nil {
		s.lock.Release()
	}
}

// nodes are the nodes of the PoPs named, or all.
func (s *session) nodes(pops []string) ([]lifecycle.Node, error) {
	wanted := map[string]bool{}
	for _, p := range pops {
		wanted[p] = true
	}
	var nodes []lifecycle.Node
	for _, n := range s.fleet.Resolved() {
		if len(pops) == 0 || wanted[n.PoP] || wanted[n.Name] {
			nodes = append(nodes, lifecycle.Node{Name: n.Name, PoP: n.PoP, Machine: n.Machine})
		}
	}
	for _, p := range pops {
		if !s.hasPoPOrNode(p) {
			return nil, fmt.Errorf("no PoP or node %q in fleet.yaml; it has %s", p, strings.Join(s.names(), ", "))
		}
	}
	return nodes, nil
}

func (s *session) hasPoPOrNode(name string) bool {
	for _, n := range s.fleet.Resolved() {
		if n.PoP == name || n.Name == name {
			return true
		}
	}
	return false
}

func (s *session) names() (names []string) {
	for _, p := range s.fleet.PoPs {
		var nodes []string
		for _, n := range p.Nodes {
			nodes = append(nodes, n.Name)
		}
		names = append(names, fmt.Sprintf("%s (%s)", p.Name, strings.Join(nodes, ", ")))
	}
	return names
}

// deps is what lifecycle works with.
func (s *session) deps(progress func(lifecycle.Event)) (lifecycle.Deps, error) {
	d, err := s.app.dialer()
	if err != nil {
		return lifecycle.Deps{}, err
	}
	agent, err := s.agent()
	if err != nil {
		return lifecycle.Deps{}, err
	}
	deps := lifecycle.Deps{
		Fleet: s.fleet.Name, Operator: operatorName(), Run: s.run,
		Provider: s.provider, Keys: s.vault, Memory: s.vault, Journal: s.journal,
		Image: s.image, Agent: agent, Dial: d, Pace: s.pace, Log: s.log, Progress: progress,
		Poll:    min(longestPoll, s.pace.Of(longestPoll)),
		Spend:   s.vault.SpendShares,
		Serving: s.servingProbe(d), Lease: controller.NodeLease(s.app.path(".fleet"), "fleet "+s.verb),
	}
	s.guard(&deps)
	return deps, nil
}

// longestPoll is between two looks at a machine that is waited for; quicker machines are looked at more often.
const longestPoll = 2 * time.Second

// provider is a driver with power over machines where there is a token, and what the vault remembers where not.
func (s *session) provider(name string) (provider.Provider, error) {
	if s.clouds != nil {
		return s.clouds.provider(name)
	}
	var nodes []string
	for _, n := range s.fleet.Resolved() {
		nodes = append(nodes, n.Name)
	}
	return lifecycle.Remembered{Memory: s.vault, Nodes: nodes}, nil
}

func (s *session) agent() (remote.Agent, error) {
	path, err := besideExecutable("fleet-agent")
	if err != nil {
		return remote.Agent{}, err
	}
	return remote.AgentFile(path)
}

// releaseDir is where the release to run lies: fleet.yaml's release, else releases/current.
func (s *session) scanRelease() (spec.Release, release.Sources, error) {
	dir := s.app.path("releases", "current")
	if s.fleet.Release != "" {
		dir = s.app.path(s.fleet.Release)
	}
	r, sources, err := release.Scan(dir)
	if err != nil {
		return r, sources, fmt.Errorf("%w\n  hint: put the services' binaries there (bin/fleet-transport, …), or set release in fleet.yaml", err)
	}
	return r, sources, nil
}

func newRunID() string {
	var b [4]byte
	rand.Read(b[:])
	return time.Now().UTC().Format("20060102t150405") + "-" + hex.EncodeToString(b[:])
}
