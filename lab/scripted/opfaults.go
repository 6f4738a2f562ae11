package scripted

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"

	"popfleet/lab/faults"
)

// errCut ends the conversation where it is.
var errCut = errors.New("the connection is cut")

// answer does the request, with the fault that is set for it, if any.
func (x *exchange) answer(r request) (any, error) {
	o := x.m.occasion(faults.Node)
	o.Step = r.Op
	f, struck := x.m.b.opt.Faults.Take(o, faults.OpFails, faults.OpHangs, faults.OpCut, faults.OpLost, faults.OpLies)
	if !struck {
		return x.do(r)
	}
	switch f.Kind {
	case faults.OpFails:
		return nil, &remoteError{"failed", r.Op + ": made to fail by the lab", ""}
	case faults.OpHangs:
		_, _ = io.Copy(io.Discard, x.in) // until the operator gives up, or the power goes
		return nil, errCut
	case faults.OpCut:
		return nil, x.cut()
	case faults.OpLost:
		if _, err := x.do(r); errors.Is(err, errNoPower) {
			return nil, err
		}
		return nil, x.cut()
	}
	return x.lie(r)
}

// cut ends the connection, not only the conversation.
func (x *exchange) cut() error {
	_ = x.s.conn.Close() // it may have ended by itself
	return errCut
}

// lie answers what is not so. What would change the system is not done at all.
func (x *exchange) lie(r request) (any, error) {
	switch r.Op {
	case "apply": // changes nothing and says that all is well
		return applied{BootID: x.bt.id}, nil
	case "reboot": // stays as it is
		return nil, errCut
	}
	data, err := x.do(r)
	if err != nil {
		return nil, err
	}
	told, err := asObject(data)
	if err != nil {
		return nil, err
	}
	maps.Copy(told, untrue[r.Op])
	return told, nil
}

// untrue is what is said instead of the truth, by request: other disks than there are, another installation than was
// asked for, a host key that was not given, nothing to change.
var untrue = map[string]map[string]any{
	"facts":   {"disks": []wireDisk{{Serial: "SOMEBODY-ELSES", SizeBytes: 1 << 40, Path: "/dev/sdz"}}, "boot_id": "0"},
	"install": {"run": "0000000000000000"},
	"seal":    {"system_host_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"},
	"plan":    {"changed": []string{}},
	"wipe":    {"slots_left": 1},
}

func asObject(v any) (map[string]any, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	out := map[string]any{}
	if err := json.Unmarshal(raw, &out); err != nil {
		return nil, fmt.Errorf("answer: %w", err)
	}
	return out, nil
}
