package robot

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"popfleet/lab/books"
	"popfleet/lab/machine"
)

// Server status as the API words it.
const (
	ready     = "ready"
	inProcess = "in process"
	cancelled = "cancelled" // of a transaction
)

// state is everything the provider knows. Every access is under Robot.mu.
type state struct {
	path string

	Servers      map[int]*server    `json:"servers"`
	Keys         map[string]*sshKey `json:"keys"`    // by fingerprint
	Reverse      map[string]string  `json:"reverse"` // names by address
	Transactions []*transaction     `json:"transactions"`
}

// server is what is remembered of a server; its wire form is made from it on demand.
type server struct {
	Number   int         `json:"number"`
	Name     string      `json:"name"`
	Status   string      `json:"status"`
	Rented   time.Time   `json:"rented"`
	Manual   bool        `json:"manual,omitempty"`   // a technician was asked for
	Rescue   *activation `json:"rescue,omitempty"`   // waits for the next boot
	Last     *activation `json:"last,omitempty"`     // the newest that was booted
	Delivery *delivery   `json:"delivery,omitempty"` // the rescue system it is handed over in; waits for the first boot
	NoIPv4   bool        `json:"no_ipv4,omitempty"`
	Restart  bool        `json:"restart,omitempty"` // a software reset waits for the guest to stop

	hw      Machine
	machine machine.Machine
	wake    chan struct{} // closed and made anew when a start under way is overtaken by another act of power
}

// activation is one order to boot the rescue system.
type activation struct {
	OS       string      `json:"os"`
	Arch     int         `json:"arch"`
	Keys     []sshKey    `json:"keys"`
	Password string      `json:"password,omitempty"`
	BootTime *time.Time  `json:"boot_time,omitempty"`
	HostKeys []publicKey `json:"host_keys,omitempty"`
	TellKeys time.Time   `json:"tell_keys"` // host keys are published from here on
}

type delivery struct {
	Transaction string   `json:"transaction"`
	Keys        []sshKey `json:"keys"`
	Password    string   `json:"password,omitempty"`
}

func (s *server) info() machine.Info {
	name := s.Name
	if name == "" {
		name = s.hw.Config.Label
	}
	return machine.Info{
		Provider: machine.HetznerRobot, ID: strconv.Itoa(s.Number), Name: name, Status: s.Status, Rescue: s.Rescue != nil,
		Address: s.hw.Config.Address, Prefix6: s.hw.Config.Prefix6, Machine: s.machine,
	}
}

// names are all by which faults may mean the server.
func (s *server) names() []string {
	return append(s.info().Names(), s.hw.Config.Name, s.hw.Config.Label)
}

func (s *server) owns(a netip.Addr) bool { return s.info().Has(a) && !(a.Is4() && s.NoIPv4) }

func newState(path string) *state {
	return &state{path: path, Servers: map[int]*server{}, Keys: map[string]*sshKey{}, Reverse: map[string]string{}}
}

func loadState(path string) (*state, error) {
	st := newState(path)
	return st, books.Load(path, st)
}

func (st *state) save() error { return books.Save(st.path, st) }

func (st *state) servers() []*server {
	out := make([]*server, 0, len(st.Servers))
	for _, n := range slices.Sorted(maps.Keys(st.Servers)) {
		out = append(out, st.Servers[n])
	}
	return out
}

// save is called after every change, with mu held. A lab that can't write its state says so and goes on.
func (r *Robot) save() {
	if err := r.state.save(); err != nil {
		r.opt.Log.Error("save lab state", "error", err)
	}
}

func (r *Robot) change(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
	r.save()
}
