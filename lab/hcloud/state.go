package hcloud

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"popfleet/lab/books"
	"popfleet/lab/machine"
)

// state is everything the provider knows. Every access is under Cloud.mu.
type state struct {
	path string

	LastID     int64                `json:"last_id"`
	Servers    map[int64]*server    `json:"servers"`
	Actions    map[int64]*action    `json:"actions"`
	SSHKeys    map[int64]*sshKey    `json:"ssh_keys"`
	Networks   map[int64]*network   `json:"networks"`
	Firewalls  map[int64]*firewall  `json:"firewalls"`
	Groups     map[int64]*group     `json:"placement_groups"`
	PrimaryIPs map[int64]*primaryIP `json:"primary_ips"`
}

// server is what is remembered of a server; its wire form is made from it on demand.
type server struct {
	ID         int64             `json:"id"`
	Name       string            `json:"name"`
	Status     string            `json:"status"`
	Created    time.Time         `json:"created"`
	Type       string            `json:"type"`
	Image      string            `json:"image"`
	Location   string            `json:"location"`
	Labels     map[string]string `json:"labels"`
	SSHKeys    []string          `json:"ssh_keys"` // public keys, as they were at create
	UserData   string            `json:"user_data,omitempty"`
	Protect    bool              `json:"protect"`
	Nets       []privateNet      `json:"nets,omitempty"`
	Firewalls  []int64           `json:"firewalls,omitempty"`
	Group      int64             `json:"group,omitempty"`
	IPv4       int64             `json:"ipv4,omitempty"` // primary IP ids
	IPv6       int64             `json:"ipv6,omitempty"`
	MAC        string            `json:"mac"`
	Rescue     *rescue           `json:"rescue,omitempty"`
	Restart    bool              `json:"restart,omitempty"` // a soft reboot waits for the guest to stop
	StartAfter bool              `json:"start_after,omitempty"`

	machine machine.Machine
}

type rescue struct {
	Keys     []string  `json:"keys"`
	Password string    `json:"password"`
	Expires  time.Time `json:"expires"`
}

func (s *server) rescueOn(now time.Time) bool { return s.Rescue != nil && now.Before(s.Rescue.Expires) }

func newState(path string) *state {
	return &state{
		path: path, LastID: 1000,
		Servers: map[int64]*server{}, Actions: map[int64]*action{}, SSHKeys: map[int64]*sshKey{},
		Networks: map[int64]*network{}, Firewalls: map[int64]*firewall{}, Groups: map[int64]*group{},
		PrimaryIPs: map[int64]*primaryIP{},
	}
}

func loadState(path string) (*state, error) {
	st := newState(path)
	return st, books.Load(path, st)
}

func (st *state) save() error { return books.Save(st.path, st) }

func (st *state) nextID() int64 {
	st.LastID++
	return st.LastID
}

func (st *state) servers() []*server { return byID(st.Servers) }

func byID[T any](m map[int64]*T) []*T {
	ids := slices.SortedFunc(maps.Keys(m), cmp.Compare[int64])
	out := make([]*T, 0, len(ids))
	for _, id := range ids {
		out = append(out, m[id])
	}
	return out
}

// save is called after every change, with mu held. A lab that can't write its state says so and goes on.
func (c *Cloud) save() {
	if err := c.state.save(); err != nil {
		c.opt.Log.Error("save lab state", "error", err)
	}
}
