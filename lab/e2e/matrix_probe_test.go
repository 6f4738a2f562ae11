package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"popfleet/internal/dial"
	"popfleet/internal/journal"
	"popfleet/inventory/vault"
	"popfleet/lab/faults"
)

// What a probe can do beside the lab's own faults.
const (
	late         = "late"
	fails        = "fails"        // journal, vault: nothing is written, an error is told
	writtenLost  = "reply-lost"   // journal, vault: it is written, an error is told
	killedBefore = "killed"       // the process dies; what it was about to do does not happen
	killedAfter  = "killed-after" // it happens, and the process dies before it hears of it
)

// occasion is something that can go wrong at a place.
type occasion struct {
	where string // call enable_rescue · boot · net 22 in install · op seal · step image in install · begin seal · vault in install
	kind  string
}

// lateness is how late a late answer is: less than every deadline.
const lateness = 60 * time.Millisecond

// probe stands at every boundary between a run and the world: the lab's own (each call of an API, each start of a
// machine, each connection, each request to a machine and each step of its work) and the run's (journal, vault). It
// counts the occasions, and strikes at one of them. A process that it kills has no effect any more.
type probe struct {
	target occasion // "" is none
	nth    int
	kill   context.CancelFunc

	mu     sync.Mutex
	op     string           // guarded by mu: the operation in progress
	seen   map[occasion]int // guarded by mu
	struck bool             // guarded by mu
	dead   bool             // guarded by mu
	said   bytes.Buffer     // guarded by mu: what the APIs were told
}

// at counts occasions of several kinds at one place and says which of them strikes now, "" for none.
func (p *probe) at(where string, kinds ...string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dead {
		return ""
	}
	if p.seen == nil {
		p.seen = map[occasion]int{}
	}
	strikes := ""
	for _, k := range kinds {
		o := occasion{where, k}
		if p.seen[o]++; !p.struck && o == p.target && p.seen[o] == p.nth {
			p.struck, strikes = true, k
		}
	}
	return strikes
}

func (p *probe) die() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dead = true
	p.kill()
}

func (p *probe) isDead() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dead
}

func (p *probe) doing() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.op == "" {
		return "look"
	}
	return p.op
}

// watch is the lab's end of the probe.
func (p *probe) watch(o faults.Occasion, kinds []faults.Kind) (faults.Fault, bool) {
	where, more := p.place(o, kinds)
	if len(kinds) == 0 {
		kinds = kindsOf(o.Layer)
	}
	var names []string
	for _, k := range kinds {
		names = append(names, string(k))
	}
	switch k := p.at(where, append(names, more...)...); k {
	case "":
		return faults.Fault{}, false
	case late:
		<-time.After(lateness) // what is late is the lab, not the test
		return faults.Fault{}, false
	case killedBefore:
		p.die()
		return faults.Fault{Kind: faults.Hang}, o.Layer == faults.API
	case killedAfter:
		p.die()
		return faults.Fault{Kind: faults.ReplyLost}, true
	default:
		return shaped(faults.Kind(k)), true
	}
}

// place names an occasion, and what the probe can do there by itself.
func (p *probe) place(o faults.Occasion, kinds []faults.Kind) (where string, more []string) {
	switch {
	case o.Layer == faults.API:
		where = "call " + o.Call[0]
		if slices.Contains(kinds, faults.ReplyLost) {
			more = []string{killedBefore, killedAfter}
		}
	case o.Layer == faults.Net:
		return fmt.Sprintf("net %d in %s", o.Port, p.doing()), []string{late, killedBefore}
	case o.Layer == faults.Machine:
		where = "machine"
	case slices.Contains(kinds, faults.OpFails):
		return "request " + o.Step, []string{late, killedBefore}
	case o.Step != "":
		where = "step " + o.Step
	default:
		where = "node"
	}
	return where, more
}

func kindsOf(layer string) (out []faults.Kind) {
	for _, d := range faults.Kinds() {
		if d.Layer == layer {
			out = append(out, d.Kind)
		}
	}
	return out
}

// shaped gives a fault the size at which it hurts without lasting for ever.
func shaped(k faults.Kind) faults.Fault {
	f := faults.Fault{Kind: k}
	switch k {
	case faults.Slow, faults.RescueSlow, faults.HostKeyLate, faults.TaskMissing, faults.LockOut:
		f.For = faults.Duration(lateness)
	case faults.RateLimited:
		f.For = faults.Duration(time.Second)
	case faults.Cut:
		f.Bytes = 2500 // in the middle of the agent's greeting
	case faults.DiskMissing:
		f.Disk = 1 // of a mirror; a cloud server has one disk, and nothing is missing
	}
	return f
}

// strike does what is the run's own: journal and vault.
func (p *probe) write(where string, do func() error) error {
	if p.isDead() {
		return errKilled
	}
	kind := p.at(where, fails, writtenLost, late, killedBefore, killedAfter)
	switch kind {
	case fails:
		return fmt.Errorf("%s: no space left on device, says the test", where)
	case late:
		<-time.After(lateness) // what is late is the disk, not the test
	case killedBefore:
		p.die()
		return errKilled
	}
	err := do()
	switch kind {
	case writtenLost:
		return fmt.Errorf("%s: input/output error, says the test", where)
	case killedAfter:
		p.die()
		return errKilled
	}
	return err
}

type probedJournal struct {
	*probe
	memoryJournal
}

func (j *probedJournal) Begin(ctx context.Context, s journal.Step) (id int64, err error) {
	j.probe.mu.Lock()
	j.op = s.Op
	j.probe.mu.Unlock()
	err = j.write("begin "+s.Op, func() error { id, err = j.memoryJournal.Begin(ctx, s); return err })
	return id, err
}

func (j *probedJournal) End(ctx context.Context, id int64, o journal.Outcome) error {
	where := "end " + j.doing()
	j.probe.mu.Lock()
	j.op = ""
	j.probe.mu.Unlock()
	return j.write(where, func() error { return j.memoryJournal.End(ctx, id, o) })
}

func (j *probedJournal) Observe(ctx context.Context, run, node, stage string, evidence any) error {
	return j.write("observed "+stage, func() error { return j.memoryJournal.Observe(ctx, run, node, stage, evidence) })
}

type probedMemory struct {
	*probe
	*vault.Vault
}

func (v probedMemory) SetNodeState(name string, s vault.NodeState) error {
	return v.write("vault in "+v.doing(), func() error { return v.Vault.SetNodeState(name, s) })
}

// probedTransport lets a dead process say nothing, and keeps what a living one told the provider.
type probedTransport struct {
	*probe
	*http.Transport
}

func (t probedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if t.isDead() {
		return nil, errKilled
	}
	if r.GetBody != nil {
		if body, err := r.GetBody(); err == nil {
			text, _ := io.ReadAll(body) // in memory: can't fail
			t.mu.Lock()
			t.said.WriteString(r.URL.RawQuery)
			t.said.Write(text)
			t.mu.Unlock()
		}
	}
	return t.Transport.RoundTrip(r)
}

// probedDialer lets a dead process reach nobody; living connections end with its context.
type probedDialer struct {
	*probe
	dial.Dialer
}

func (d probedDialer) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	if d.isDead() {
		return nil, errKilled
	}
	return d.Dialer.DialContext(ctx, network, addr)
}

// class says which of the six ways of failing a kind is.
func class(kind string) string {
	for name, kinds := range map[string]string{
		"hangs":       "hang silent half-open boot-hangs rescue-never task-stuck op-hangs",
		"late":        "late slow rescue-slow host-key-late task-missing",
		"lies":        "stale swallowed rescue-ignored reset-ignored action-error action-missing task-error task-zero disks-swapped disk-missing foreign-activity impostor wrong-node invisible intervention op-lies reset-type-absent no-ipv4 clock-skew",
		"reply lost":  "reply-lost cut unlock-cut op-cut op-lost",
		"tool killed": "killed killed-after killed-answered",
	} {
		if slices.Contains(strings.Fields(kinds), kind) {
			return name
		}
	}
	return "fails"
}
