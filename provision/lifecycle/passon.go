package lifecycle

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"popfleet/playbooks/spec"
	"popfleet/provision/remote"
)

// Bounds of passing on, at the pace of a real machine.
const (
	shareOpens = 20 * time.Second // until a node that was asked to listen says where
	peerWait   = 10 * time.Second // what a receiver gives a node that is about to listen
	peerStall  = 15 * time.Second // silence after which a receiver gives a peer up
	shareLasts = 12 * time.Hour   // more than a run; it ends with the link anyway
)

// passOn lets content cross our uplink once a PoP: whoever asks first gets it from us, and is introduced to the others.
// We alone introduce: a node learns another's address, the one certificate to believe and a token for one blob over its
// own link. Nobody is believed for what he passes on; the receiver checks digests. No node waits for another but for one
// that is about to listen, and then not for long.
type passOn struct {
	fleet *fleetRun
	packs remote.Packs

	mu      sync.Mutex
	holders map[string]*holder // guarded by mu, and all that is in them
	changed chan struct{}      // guarded by mu: closed and replaced when a holder begins or fails to listen
	active  map[string]int     // guarded by mu: PoP → nodes whose run is under way
	kept    map[string][]*link // guarded by mu: PoP → links of nodes that are done and may serve others
	opening sync.WaitGroup
}

// holder is a node that this run has a link to, or had.
type holder struct {
	node, pop, host string
	conn            *remote.Conn    // nil: no link now
	blobs           map[string]bool // sent by us over this link, or on their way
	image, release  string          // digests of what it was installed from and runs
	share           *listening      // nil: not asked to listen over this link
	liar            bool
	failed          map[string]bool // receivers that it did not serve
	serves          map[string]bool // receivers that were sent to it and are not done
}

// listening is a node's open ear; without an exchange it is still being opened, or could not be.
type listening struct {
	secret []byte
	failed bool
	x      *remote.Exchange
	shared spec.Shared
}

func newPassOn(f *fleetRun) *passOn {
	return &passOn{fleet: f, holders: map[string]*holder{}, changed: make(chan struct{}),
		active: map[string]int{}, kept: map[string][]*link{}}
}

// begin announces the nodes of a run; each is to end with done.
func (p *passOn) begin(nodes []Node) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range nodes {
		p.active[n.PoP]++
	}
}

// close waits for what is left. No node's run is under way any more, so no link is up.
func (p *passOn) close() {
	p.opening.Wait()
	p.packs.Close()
}

// arrive takes note of a fresh link.
func (p *passOn) arrive(n Node, conn *remote.Conn, addr string) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil || n.PoP == "" {
		return // a node without a PoP has no neighbours
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.holders[n.Name]
	if h == nil {
		h = &holder{node: n.Name, pop: n.PoP, failed: map[string]bool{}, serves: map[string]bool{}}
		p.holders[n.Name] = h
	}
	h.conn, h.host, h.blobs, h.share = conn, host, map[string]bool{}, nil
}

// knows takes note of what a booted node has on its disk.
func (p *passOn) knows(node, image, release string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if h := p.holders[node]; h != nil {
		h.image, h.release = image, release
	}
}

// leave forgets a link that is about to be closed, and what was only true as long as it lasted.
func (p *passOn) leave(node string) {
	p.mu.Lock()
	h := p.holders[node]
	var open *listening
	if h != nil {
		open = h.share
		h.conn, h.share, h.blobs, h.image, h.release = nil, nil, nil, "", ""
		p.signal()
	}
	p.mu.Unlock()
	if open != nil && open.x != nil {
		_ = open.x.Close() // the connection follows
	}
}

// done ends a node's run. It takes over the link, and says so, when the node has something that others of its PoP may
// still need. The last of a PoP ends them all.
func (p *passOn) done(n Node, l *link) (taken bool) {
	p.mu.Lock()
	h, over := p.holders[n.Name], []*link(nil)
	p.active[n.PoP]--
	switch {
	case p.active[n.PoP] <= 0:
		over, p.kept[n.PoP] = p.kept[n.PoP], nil
	case l != nil && h != nil && h.conn == l.conn && (h.release != "" || h.image != ""):
		p.kept[n.PoP], taken = append(p.kept[n.PoP], l), true
	}
	p.mu.Unlock()
	for _, l := range over {
		_ = l.conn.Close() // its exchanges go with it
	}
	return taken
}

// signal runs with mu held.
func (p *passOn) signal() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// receiver speaks for one node during one request.
type receiver struct {
	pass    *passOn
	node    *node
	release string            // of the request's spec: who runs it has all its blobs
	given   map[string]string // digest → who was to pass it on
	claimed []string          // digests that go over our link
}

func (n *node) receiver(c remote.Call) *receiver {
	r := &receiver{pass: n.pass, node: n, given: map[string]string{}}
	if want, ok := c.Spec.(spec.Node); ok && want.Release != nil {
		r.release = want.Release.Digest
	}
	return r
}

// end closes the account: whoever served it is free, and what a failed request was being sent is nobody's.
func (r *receiver) end(err error) {
	p := r.pass
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, h := range p.holders {
		delete(h.serves, r.node.name)
	}
	if h := p.holders[r.node.name]; err != nil && h != nil {
		for _, digest := range r.claimed {
			delete(h.blobs, digest)
		}
	}
}

// Sending implements [remote.Peers].
func (r *receiver) Sending(b spec.Blob) {
	r.pass.mu.Lock()
	defer r.pass.mu.Unlock()
	r.claim(b)
}

// claim runs with mu held.
func (r *receiver) claim(b spec.Blob) {
	if h := r.pass.holders[r.node.name]; h != nil && h.blobs != nil {
		h.blobs[b.SHA256] = true
		r.claimed = append(r.claimed, b.SHA256)
	}
}

// Peer implements [remote.Peers].
func (r *receiver) Peer(ctx context.Context, b spec.Blob) *spec.Peer {
	r.judge(b)
	ctx, cancel := context.WithTimeout(ctx, r.node.Pace.Of(peerWait))
	defer cancel()
	for waited := false; ; {
		peer, about, changed := r.look(b, ctx.Err() != nil)
		if about == "" {
			return peer
		}
		if !waited {
			r.tell(EventWait, about+" to pass on "+short(b))
			waited = true
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// look chooses once: a peer, or nil for our own uplink; or the node that is about to listen, to wait for.
func (r *receiver) look(b spec.Blob, late bool) (peer *spec.Peer, about string, changed <-chan struct{}) {
	p := r.pass
	p.mu.Lock()
	defer p.mu.Unlock()
	name, c := choose(r.candidates(b))
	switch {
	case c == fromUs, b.Direct, late && c != fromPeer:
		r.claim(b)
		return nil, "", nil
	case c == fromPeer:
		h := p.holders[name]
		h.serves[r.node.name], r.given[b.SHA256] = true, name
		return r.introduction(h, b), "", nil
	case c == openPeer:
		p.open(p.holders[name])
	}
	return nil, name, p.changed
}

// candidates runs with mu held.
func (r *receiver) candidates(b spec.Blob) []candidate {
	own := r.pass.holders[r.node.name]
	if own == nil {
		return nil
	}
	var out []candidate
	for _, h := range r.pass.holders {
		if h == own || h.pop != own.pop || h.conn == nil {
			continue
		}
		out = append(out, candidate{
			Node: h.node, Has: h.has(b.SHA256, r.release), Receivers: len(h.serves),
			Barred:    h.liar || h.failed[r.node.name] || h.share != nil && h.share.failed,
			Listening: h.share != nil && h.share.x != nil,
			Opening:   h.share != nil && h.share.x == nil && !h.share.failed,
		})
	}
	return out
}

func (h *holder) has(digest, release string) bool {
	return h.blobs[digest] || h.image == digest || release != "" && h.release == release
}

func (r *receiver) introduction(h *holder, b spec.Blob) *spec.Peer {
	return &spec.Peer{
		Node: h.node, Addr: net.JoinHostPort(h.host, strconv.Itoa(h.share.shared.Port)), Certificate: h.share.shared.Certificate,
		Receiver: r.node.name, Token: spec.ShareToken(h.share.secret, b.SHA256, r.node.name),
		StallSec: max(1, int(r.node.Pace.Of(peerStall).Seconds())),
	}
}

// judge: a blob that a peer was to pass on and that is asked for again did not come. Who sent something else is not used
// again in this run; who merely failed may still serve others.
func (r *receiver) judge(b spec.Blob) {
	r.pass.mu.Lock()
	name := r.given[b.SHA256]
	delete(r.given, b.SHA256)
	h := r.pass.holders[name]
	if h != nil {
		delete(h.serves, r.node.name)
		h.failed[r.node.name] = true
		h.liar = h.liar || b.Direct
	}
	r.pass.mu.Unlock()
	switch {
	case h == nil:
	case b.Direct:
		r.tell(EventWarning, fmt.Sprintf("%s passed on something else than %s: it is not used again in this run", name, short(b)))
	default:
		r.tell(EventWarning, fmt.Sprintf("%s did not pass on %s: going on from byte %d without it", name, short(b), b.Offset))
	}
}

// tell is not node.say: the feeder's goroutine is not the node's.
func (r *receiver) tell(kind, text string) {
	r.node.tell(Event{Node: r.node.name, Kind: kind, Op: r.node.op, Text: text, Since: time.Now()})
}

func short(b spec.Blob) string {
	return fmt.Sprintf("%.12s (%d MB)", b.SHA256, (b.SizeBytes+1<<19)>>20)
}

// open asks a node to listen, beside whatever its link is doing. It runs with mu held and returns at once.
func (p *passOn) open(h *holder) {
	l, conn := &listening{secret: make([]byte, 32)}, h.conn
	_, _ = rand.Read(l.secret) // never fails
	h.share = l
	p.opening.Go(func() {
		x, shared, err := p.listen(conn, l.secret)
		p.mu.Lock()
		gone := h.share != l
		l.shared, l.failed = shared, err != nil
		if !gone {
			l.x = x
		}
		p.signal()
		p.mu.Unlock()
		if gone && x != nil {
			_ = x.Close() // the node left meanwhile
		}
		if err != nil && !gone {
			p.fleet.tell(Event{Node: h.node, Kind: EventLog, Text: fmt.Sprintf("it can't pass content on: %v", err)})
		}
	})
}

// listen bounds its own time: the link may outlive every receiver.
func (p *passOn) listen(conn *remote.Conn, secret []byte) (*remote.Exchange, spec.Shared, error) {
	ctx, cancel := context.WithTimeout(context.Background(), p.fleet.Pace.Of(shareOpens))
	defer cancel()
	var shared spec.Shared
	x, err := conn.Side(ctx, p.fleet.Agent)
	if err != nil {
		return nil, shared, err
	}
	err = x.Do(ctx, remote.Call{Op: spec.OpShare, Result: &shared,
		Spec: spec.Share{Version: 1, Port: spec.SharePort, Secret: slices.Clone(secret), Seconds: int(shareLasts.Seconds())}})
	if err != nil {
		_ = x.Close() // what matters is why it can't listen
		return nil, shared, err
	}
	return x, shared, nil
}
