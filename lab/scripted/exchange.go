package scripted

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"popfleet/internal/strictjson"
)

const maxLineBytes = 24 << 20

// exchange is one conversation with an operator.
type exchange struct {
	m  *Machine
	bt *boot
	s  *session
	in *bufio.Reader

	mu  sync.Mutex // of writing
	req int        // id of the request in progress
}

func (x *exchange) serve() {
	defer x.unshare()
	for {
		line, err := x.line()
		if err != nil {
			return
		}
		var r request
		if err := json.Unmarshal(line, &r); err != nil || r.V != 1 {
			x.fail(&remoteError{"bad_spec", fmt.Sprintf("request: version 1 expected, got %.80q", line), ""})
			return
		}
		x.req = r.ID
		data, err := x.answer(r)
		if errors.Is(err, errCut) {
			return
		}
		if errors.Is(err, errNoPower) {
			<-x.bt.ctx.Done() // it goes any moment
		}
		if x.bt.ctx.Err() != nil {
			return // no power, no answer
		}
		if err != nil {
			x.fail(err)
			continue
		}
		x.emit(event{Kind: "result", Data: data})
		if r.Op == "reboot" {
			x.s.exit(0)
			x.m.b.spawn(func() { x.m.reboot(x.bt) })
			return
		}
	}
}

// line reads one line of JSON; everything an operator says is heard by the ledger, blobs are not.
func (x *exchange) line() ([]byte, error) {
	var out []byte
	for {
		part, err := x.in.ReadSlice('\n')
		out = append(out, part...)
		if len(out) > maxLineBytes {
			return nil, errors.New("line too long")
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil {
			return nil, err
		}
		x.m.ledger.hear(x.s.link, out)
		return out, nil
	}
}

func (x *exchange) emit(e event) {
	e.V, e.ID = 1, x.req
	if e.Time.IsZero() {
		e.Time = time.Now().UTC()
	}
	data, err := json.Marshal(e)
	if err != nil {
		x.m.b.opt.Log.Error("event", "error", err)
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	_, _ = x.s.Write(append(data, '\n')) // a cut connection is seen by the next read
}

func (x *exchange) fail(err error) {
	var e *remoteError
	if !errors.As(err, &e) {
		e = &remoteError{Code: "failed", Message: err.Error()}
	}
	x.emit(event{Kind: "error", Error: e})
}

func (x *exchange) do(r request) (any, error) {
	switch r.Op {
	case "facts":
		return x.m.facts(x.bt, x.s.link), nil
	case "install":
		return with(r, x.install)
	case "seal":
		return with(r, x.seal)
	case "rotate":
		return with(r, x.rotate)
	case "peer-key":
		return with(r, x.peerKey)
	case "boot-check":
		return with(r, x.bootCheck)
	case "key-box":
		if len(r.Spec) == 0 || string(r.Spec) == "null" {
			return x.keyBox(keyBox{})
		}
		return with(r, x.keyBox)
	case "boot-manifest":
		return x.manifest()
	case "boot-changes":
		return x.bootChanges()
	case "plan":
		return with(r, func(n nodeSpec) (any, error) { return x.converge(n, false) })
	case "apply":
		return with(r, func(n nodeSpec) (any, error) { return x.converge(n, true) })
	case "reboot":
		return nil, nil
	case "wipe":
		return with(r, x.wipe)
	case "mend-plan":
		return with(r, func(s mendSpec) (any, error) { return x.mend(s, false) })
	case "mend":
		return with(r, func(s mendSpec) (any, error) { return x.mend(s, true) })
	case "share":
		return with(r, x.share)
	}
	return nil, &remoteError{"bad_spec", fmt.Sprintf("op %q is not known", r.Op), ""}
}

// with decodes a spec strictly and hands it on.
func with[T any](r request, f func(T) (any, error)) (any, error) {
	var spec T
	if err := strictjson.Decode(r.Spec, &spec); err != nil {
		return nil, &remoteError{"bad_spec", r.Op + " spec:" + err.Error(), ""}
	}
	return f(spec)
}

// step shows a step of the work and takes its time; false means that the power went.
func (x *exchange) step(name string) bool {
	x.emit(event{Kind: "step", Step: name, Status: "doing"})
	if !pause(x.bt.ctx, x.m.b.opt.Timing.Step) {
		return false
	}
	x.emit(event{Kind: "step", Step: name, Status: "done"})
	return true
}

func (m *Machine) facts(bt *boot, link string) facts {
	wrong := m.fault("wrong-node", "")
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.installed()
	f := facts{
		Rescue: link == "rescue", Hostname: cmp.Or(m.cfg.Load().RescueName, "rescue"), BootID: bt.id, Firmware: m.cfg.Load().Firmware, MemoryMB: m.cfg.Load().MemoryMB,
		Network: m.network(), UnixMilli: time.Now().UnixMilli(), Disks: m.wireDisks(),
	}
	switch link {
	case "system":
		f.Hostname, f.Node, f.Sealed, f.RootLUKS, f.Release = d.Node, d.Node, d.Sealed, true, d.Release
		f.Spent, f.BootChanged = bt.door.spent, bt.declared.last()
	case "factory":
		f.Hostname = m.cfg.Load().Label
	}
	if wrong {
		f.Node, f.Hostname = "other-9", "other-9"
	}
	return f
}

func (m *Machine) network() network {
	n := network{MAC: m.cfg.Load().MAC.String(), Gateway4: m.cfg.Load().Gateway4.String(), Gateway6: "fe80::1"}
	if m.cfg.Load().Address.IsValid() {
		bits := 32
		if m.cfg.Load().Net4.IsValid() {
			bits = m.cfg.Load().Net4.Bits()
		}
		n.Addresses = append(n.Addresses, netip.PrefixFrom(m.cfg.Load().Address, bits).String())
	}
	if m.cfg.Load().Prefix6.IsValid() {
		n.Addresses = append(n.Addresses, m.cfg.Load().Prefix6.Addr().Next().String()+"/64")
	}
	return n
}

// errNoPower: the machine lost its power in the middle of something.
var errNoPower = errors.New("the power is gone")
