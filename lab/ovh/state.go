package ovh

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"popfleet/lab/books"
	"popfleet/lab/machine"
	"popfleet/lab/ovh/shop"
)

// state is everything the provider knows. Every access is under OVH.mu.
type state struct {
	path string

	LastID        int64                   `json:"last_id"`
	Servers       []*server               `json:"servers"` // oldest first
	Tasks         map[int64]*task         `json:"tasks"`
	Interventions map[int64]*intervention `json:"interventions"`
	Reverses      map[string]string       `json:"reverses"` // by address
	SSHKeys       map[string]string       `json:"ssh_keys"` // by name
	Credentials   []*credential           `json:"credentials"`
	Shop          *shop.Shop              `json:"shop"`
	Mails         []Mail                  `json:"mails"`
}

// server is what is remembered of a server; its wire form is made from it on demand.
type server struct {
	ID      int64     `json:"id"`
	Service string    `json:"service"`
	Created time.Time `json:"created"`
	OS      string    `json:"os"`
	Choices
	Expired bool      `json:"expired,omitempty"`
	Ends    bool      `json:"ends,omitempty"`  // termination was confirmed: gone at its expiration
	Token   string    `json:"token,omitempty"` // of a termination, sent by e-mail
	Order   *Delivery `json:"order,omitempty"` // what it came from; nil for those of Options.Machines
	Struck  []int     `json:"struck,omitempty"`

	rented  Rented
	machine machine.Machine
	silent  time.Time // since when it does not answer
	told    bool      // an intervention was opened for this silence
}

// Choices are what the account's owner sets by PUT.
type Choices struct {
	BootID         *int64  `json:"boot_id"` // sticky: it is what every start boots until it is set back
	BootScript     *string `json:"boot_script"`
	EFIPath        *string `json:"efi_path"`
	RescueMail     *string `json:"rescue_mail"`
	RescueKey      *string `json:"rescue_key"` // kept until it is cleared
	RootDevice     *string `json:"root_device"`
	Monitoring     bool    `json:"monitoring"`
	NoIntervention bool    `json:"no_intervention"`
	State          string  `json:"state"`
}

// names are all by which faults know it.
func (s *server) names() []string {
	c := s.rented.Machine
	return []string{s.Service, c.Label, c.Name, c.Address.String()}
}

// Mail is a message to the account's owner, which no program of his reads.
type Mail struct {
	At      time.Time `json:"at"`
	To      string    `json:"to"`
	Subject string    `json:"subject"`
	Text    string    `json:"text"`
}

func newState(path string) *state {
	return &state{
		path: path, LastID: 1000,
		Tasks: map[int64]*task{}, Interventions: map[int64]*intervention{}, Reverses: map[string]string{},
		SSHKeys: map[string]string{}, Shop: shop.New(),
	}
}

func loadState(path string) (*state, error) {
	st := newState(path)
	return st, books.Load(path, st)
}

func (st *state) save() error { return books.Save(st.path, st) }

// save is called after every change, with mu held. A lab that can't write its state says so and goes on.
func (o *OVH) save() {
	if err := o.state.save(); err != nil {
		o.opt.Log.Error("save lab state", "error", err)
	}
}

// change is a change of the books by others than a call.
func (o *OVH) change(f func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f()
	o.save()
}

func (st *state) nextID() int64 {
	st.LastID++
	return st.LastID
}

func (st *state) servers() []*server { return st.Servers }

func (st *state) named(service string) *server {
	for _, s := range st.Servers {
		if s.Service == service {
			return s
		}
	}
	return nil
}

// owning finds the server an address block belongs to. A bare address is a block of one.
func (st *state) owning(block string) (*server, netip.Prefix) {
	p, err := netip.ParsePrefix(block)
	if err != nil {
		a, err := netip.ParseAddr(block)
		if err != nil {
			return nil, netip.Prefix{}
		}
		p = netip.PrefixFrom(a, a.BitLen())
	}
	for _, s := range st.Servers {
		if slices.Contains(s.blocks(), p.Masked()) {
			return s, p.Masked()
		}
	}
	return nil, p
}

// blocks are the addresses routed to the server.
func (s *server) blocks() []netip.Prefix {
	c := s.rented.Machine
	out := []netip.Prefix{netip.PrefixFrom(c.Address, 32)}
	if c.Prefix6.IsValid() {
		out = append(out, c.Prefix6.Masked())
	}
	return out
}

func (st *state) mail(at time.Time, to, subject, text string) {
	st.Mails = append(st.Mails, Mail{at, to, subject, text})
}

// Mails are what the provider wrote to the account's owner, oldest first: rescue passwords, termination tokens.
func (o *OVH) Mails() []Mail {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.state.Mails)
}

func sorted[K cmp.Ordered, V any](m map[K]V) []K {
	return slices.SortedFunc(maps.Keys(m), cmp.Compare[K])
}

func ptr[T any](v T) *T { return &v }

func text(p *string) string {
	if p == nil {
		return ""
	}
	return strings.TrimSpace(*p)
}
