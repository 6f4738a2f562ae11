package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"popfleet/internal/strictjson"
	"popfleet/lab/faults"
	"popfleet/lab/machine"
	"popfleet/lab/qemu"
	"popfleet/lab/scripted"
)

// Status is the lab as it is now.
type Status struct {
	Version  string    `json:"version,omitempty"`
	Pid      int       `json:"pid"`
	Kind     string    `json:"kind"` // qemu tcg, qemu kvm, scripted
	API      string    `json:"api"`
	RobotAPI string    `json:"robot_api,omitempty"`
	OVHAPI   string    `json:"ovh_api,omitempty"`
	Socks    string    `json:"socks"`
	Forward  string    `json:"forward,omitempty"`
	Dir      string    `json:"dir"`
	Env      []string  `json:"env"` // what a fleet process needs to work here
	Machines []Machine `json:"machines"`
	Faults   int       `json:"faults"`
}

// Machine is one server of the lab.
type Machine struct {
	Provider string   `json:"provider"`
	ID       string   `json:"id"`
	Name     string   `json:"name"`
	Status   string   `json:"status"` // as the API says
	Running  bool     `json:"running"`
	Stage    string   `json:"stage,omitempty"` // what answers on it, as far as its backend can tell
	Rescue   bool     `json:"rescue_enabled"`
	Address4 string   `json:"address4,omitempty"`
	Address6 string   `json:"address6,omitempty"`
	Serials  []string `json:"serials"`
	Console  string   `json:"console,omitempty"`
}

// listenControl listens on the socket; a stale file is replaced, a living lab is an error.
func listenControl(path string) (net.Listener, error) {
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		_ = c.Close() // it was only a question
		return nil, fmt.Errorf("a lab is already up: %s answers (fleet-lab status)", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("lab control socket: %w", err)
	}
	return l, os.Chmod(path, 0o600)
}

// Impostor is what the machine that answers in others' place was told.
type Impostor struct {
	Contacts   int `json:"contacts"`    // connections
	Logins     int `json:"logins"`      // clients that went past its host key
	HeardBytes int `json:"heard_bytes"` // of passwords, commands and input
}

func (d *daemon) status(ls listeners) func() Status {
	return func() Status {
		s := Status{
			Version: d.deps.Version, Pid: os.Getpid(), Kind: d.backend.Kind(), API: "http://" + ls.api.Addr().String() + "/v1",
			Socks: "socks5://" + ls.socks.Addr().String(), Dir: d.cfg.Dir, Machines: []Machine{}, Faults: len(d.faults.List()),
		}
		if ls.forward != nil {
			s.Forward = ls.forward.Addr().String()
		}
		s.Env = append(d.cfg.env(ls), "FLEET_PROXY="+s.Socks)
		if ls.robot != nil {
			s.RobotAPI = "http://" + ls.robot.Addr().String()
		}
		if ls.ovh != nil {
			s.OVHAPI = "http://" + ls.ovh.Addr().String() + "/1.0"
		}
		if strings.HasSuffix(s.Kind, "tcg") {
			s.Env = append(s.Env, "FLEET_PACE=emulated")
		}
		for _, i := range d.servers() {
			s.Machines = append(s.Machines, describe(i))
		}
		return s
	}
}

func describe(i machine.Info) Machine {
	m := Machine{Provider: i.Provider, ID: i.ID, Name: i.Name, Status: i.Status, Rescue: i.Rescue, Serials: []string{}}
	if i.Address.IsValid() {
		m.Address4 = i.Address.String()
	}
	if i.Prefix6.IsValid() {
		m.Address6 = i.Prefix6.Addr().Next().String()
	}
	if i.Machine != nil {
		m.Running, m.Serials, m.Console = i.Machine.Running(), i.Machine.Serials(), i.Machine.Console()
		m.Stage = stageOf(i.Machine)
	}
	return m
}

// stageOf asks a played machine, and guesses from the console of one that really runs.
func stageOf(m machine.Machine) string {
	if s, ok := m.(interface{ Stage() string }); ok {
		return s.Stage()
	}
	if !m.Running() {
		return "off"
	}
	stage, err := qemu.Stage(m.Console())
	if err != nil {
		return ""
	}
	return stage
}

// control is the lab's own API, on a unix socket that only its owner may open.
func (d *daemon) control(status func() Status) http.Handler {
	mux := http.NewServeMux()
	answer := func(pattern string, f func(r *http.Request) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			v, err := f(r)
			if err != nil {
				w.WriteHeader(http.StatusBadRequest)
				v = map[string]string{"error": err.Error()}
			}
			_ = json.NewEncoder(w).Encode(v) // the client went away: nobody is left to tell
		})
	}
	answer("GET /status", func(*http.Request) (any, error) { return status(), nil })
	answer("GET /faults", func(*http.Request) (any, error) { return d.faults.List(), nil })
	answer("POST /faults", d.addFault)
	answer("DELETE /faults", func(r *http.Request) (any, error) {
		id, err := strconv.Atoi(r.URL.Query().Get("id"))
		if err != nil {
			return nil, fmt.Errorf("fault id: %w", err)
		}
		return map[string]int{"cleared": d.faults.Clear(id)}, nil
	})
	answer("POST /machines/{name}/power", d.power)
	answer("POST /machines/{name}/disk", d.replaceDisk)
	answer("GET /machines/{name}/ledger", d.ledger)
	answer("GET /impostor", func(*http.Request) (any, error) {
		return Impostor{d.impostor.Contacts(), d.impostor.Logins(), len(d.impostor.Heard())}, nil
	})
	answer("POST /down", func(*http.Request) (any, error) {
		select {
		case <-d.down:
		default:
			close(d.down)
		}
		return map[string]bool{"down": true}, nil
	})
	return mux
}

func (d *daemon) addFault(r *http.Request) (any, error) {
	data, err := io.ReadAll(io.LimitReader(r.Body, 1<<16))
	if err != nil {
		return nil, err
	}
	var f faults.Fault
	if err := strictjson.Decode(data, &f); err != nil {
		return nil, err
	}
	return d.faults.Add(f)
}

func (d *daemon) machine(name string) (machine.Info, error) {
	for _, i := range d.servers() {
		if i.Machine != nil && (i.Name == name || i.ID == name || addrIs(i.Address, name)) {
			return i, nil
		}
	}
	return machine.Info{}, fmt.Errorf("machine %q: no such machine (fleet-lab status lists them)", name)
}

func addrIs(a netip.Addr, s string) bool { return a.IsValid() && a.String() == s }

// power works on the machine behind the provider's back, as a failing power supply does.
func (d *daemon) power(r *http.Request) (any, error) {
	i, err := d.machine(r.PathValue("name"))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), time.Minute)
	defer cancel()
	switch act := r.URL.Query().Get("act"); act {
	case "cycle":
		if err = i.Machine.PowerOff(ctx); err == nil {
			err = i.Machine.PowerOn(ctx)
		}
	case "off":
		err = i.Machine.PowerOff(ctx)
	case "on":
		err = i.Machine.PowerOn(ctx)
	default:
		err = fmt.Errorf("power act %q: expected cycle, off or on", act)
	}
	return map[string]string{"machine": i.Name}, err
}

// Ledger is a scripted machine's account of itself, without what it heard.
type Ledger struct {
	Stage     string                   `json:"stage"`
	Wipes     map[string]int           `json:"wipes"`
	Installs  []string                 `json:"installs"`
	Unlocks   []scripted.UnlockAttempt `json:"unlocks"`
	Boots     []scripted.Boot          `json:"boots"`
	Applies   int                      `json:"applies"`
	Plans     int                      `json:"plans"`
	Seals     int                      `json:"seals"`
	KeysWiped []string                 `json:"keys_wiped"`
}

func (d *daemon) ledger(r *http.Request) (any, error) {
	i, err := d.machine(r.PathValue("name"))
	if err != nil {
		return nil, err
	}
	m, ok := i.Machine.(*scripted.Machine)
	if !ok {
		return nil, fmt.Errorf("machine %s: only scripted machines keep a ledger", i.Name)
	}
	l := m.Ledger()
	return Ledger{m.Stage(), l.Wipes(), l.Installs(), l.Unlocks(), l.Boots(), l.Applies(), l.Plans(), l.Seals(), l.KeysWiped()}, nil
}
