package vault

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"popfleet/internal/shares"
	"popfleet/inventory"
)

// ShareState is the key that a node's peers can open it with, and how far its exchange is.
type ShareState struct {
	Generation int         // the newest number that was ever given out
	Current    *PeerShares // proven on the node; what its peers hold or are to hold. nil: peers can't open it
	Next       *PeerShares // to be put on the node beside Current
	Retiring   bool        // the node's header may hold older keys of this kind still
}

// PeerShares is one cutting of one node's peer key.
type PeerShares struct {
	Install string // run id of the installation it was made for
	Spent   bool   // it was put together, outside of the operator's hands: to be replaced
	set     shares.Generation
	logins  []string // public halves, beside set.Shares
}

// Holder is a node that is to have a share, and the key it logs in with to hand it over.
type Holder struct{ Node, Login string }

// Generation is its number.
func (p PeerShares) Generation() int { return p.set.Number }

// Threshold is how many shares open the node.
func (p PeerShares) Threshold() int { return p.set.Threshold }

// Key is the passphrase of the peers' slot.
func (p PeerShares) Key() inventory.Secret { return inventory.SecretText(p.set.Key) }

// Commit says in public what its shares have to be.
func (p PeerShares) Commit() shares.Commitment { return p.set.Commit() }

// Holders are the nodes that have its shares.
func (p PeerShares) Holders() (out []Holder) {
	for i, s := range p.set.Shares {
		out = append(out, Holder{s.Peer, p.logins[i]})
	}
	return out
}

// Share is what the peer called name is to hand over.
func (p PeerShares) Share(name string) (inventory.Secret, bool) {
	for _, s := range p.set.Shares {
		if s.Peer == name {
			return inventory.SecretText(s.Line), true
		}
	}
	return inventory.Secret{}, false
}

// String says nothing of what is secret in it.
func (p PeerShares) String() string {
	return fmt.Sprintf("generation %d, %d of %d", p.set.Number, p.set.Threshold, len(p.set.Shares))
}

// GoString is String.
func (p PeerShares) GoString() string { return p.String() }

// ShareWish is how a node is to be opened by its peers; Threshold 0 is not at all.
type ShareWish struct {
	Install   string
	Threshold int
	Holders   []Holder
}

func (p *PeerShares) fits(w ShareWish) bool {
	if p == nil || p.Spent || p.Install != w.Install || p.set.Threshold != w.Threshold || len(p.set.Shares) != len(w.Holders) {
		return false
	}
	have := p.Holders()
	return !slices.ContainsFunc(w.Holders, func(h Holder) bool { return !slices.Contains(have, h) })
}

// storedShares is nodes/NODE/shares.age.
type storedShares struct {
	Generation int             `json:"generation"`
	Current    *storedShareSet `json:"current,omitempty"`
	Next       *storedShareSet `json:"next,omitempty"`
	Retiring   bool            `json:"retiring,omitempty"`
}

type storedShareSet struct {
	Install    string        `json:"install"`
	Generation int           `json:"generation"`
	Threshold  int           `json:"threshold"`
	Spent      bool          `json:"spent,omitempty"`
	Key        string        `json:"key"`
	Shares     []storedShare `json:"shares"`
}

type storedShare struct {
	Peer  string `json:"peer"`
	Login string `json:"login"`
	Line  string `json:"line"`
}

func (s *storedShareSet) open(node string) *PeerShares {
	if s == nil {
		return nil
	}
	p := &PeerShares{Install: s.Install, Spent: s.Spent,
		set: shares.Generation{Node: node, Number: s.Generation, Threshold: s.Threshold, Key: s.Key}}
	for i, sh := range s.Shares {
		p.set.Shares = append(p.set.Shares, shares.Share{Peer: sh.Peer, Index: i + 1, Line: sh.Line})
		p.logins = append(p.logins, sh.Login)
	}
	return p
}

func (p *PeerShares) stored() *storedShareSet {
	if p == nil {
		return nil
	}
	s := &storedShareSet{Install: p.Install, Generation: p.set.Number, Threshold: p.set.Threshold, Spent: p.Spent, Key: p.set.Key}
	for i, sh := range p.set.Shares {
		s.Shares = append(s.Shares, storedShare{sh.Peer, p.logins[i], sh.Line})
	}
	return s
}

const sharesFile = "shares.age"

// Shares returns the state of the peers' key of the node called name; the zero value when it never had one.
func (v *Vault) Shares(name string) (ShareState, error) {
	if err := checkName("node", name); err != nil {
		return ShareState{}, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.shares(name)
}

func (v *Vault) shares(name string) (ShareState, error) {
	var s storedShares
	err := v.get(nodeFile(name, sharesFile), &s)
	if errors.Is(err, fs.ErrNotExist) {
		return ShareState{}, nil
	}
	return ShareState{s.Generation, s.Current.open(name), s.Next.open(name), s.Retiring}, err
}

// WantShares makes the state of the node called name follow the wish, on disk before it is returned. A cutting that
// fits is kept; else Next is another one, of a key made anew. What then has to happen on the node, in this order: put
// Next beside Current and [Vault.CommitShares]; give the holders their shares of Current; while Retiring, destroy all
// keys of this kind but Current's and [Vault.EndShares].
func (v *Vault) WantShares(name string, w ShareWish) (ShareState, error) {
	return v.reshare(name, func(s *ShareState) error {
		switch {
		case w.Threshold == 0:
			s.Retiring = s.Retiring || s.Current != nil || s.Next != nil
			s.Current, s.Next = nil, nil
			return nil
		case s.Next.fits(w):
			return nil
		case s.Current.fits(w):
			s.Retiring = s.Retiring || s.Next != nil // it may have been put on the node
			s.Next = nil
			return nil
		}
		if s.Current != nil && s.Current.Install != w.Install {
			s.Current = nil // gone with the installation
		}
		var err error
		s.Next, err = cutShares(name, s.Generation+1, w)
		s.Generation++
		return err
	})
}

func cutShares(name string, number int, w ShareWish) (*PeerShares, error) {
	p := &PeerShares{Install: w.Install}
	var peers []string
	for _, h := range w.Holders {
		peers, p.logins = append(peers, h.Node), append(p.logins, h.Login)
	}
	set, err := shares.New(name, number, w.Threshold, peers, nil)
	p.set = set
	return p, err
}

// CommitShares makes the next key the current one. Call it when the node has proven that it opens its disk.
func (v *Vault) CommitShares(name string, generation int) (ShareState, error) {
	return v.reshare(name, func(s *ShareState) error {
		if s.Next == nil || s.Next.Generation() != generation {
			return fmt.Errorf("node %s: %w", name, ErrRotated)
		}
		s.Current, s.Next, s.Retiring = s.Next, nil, true
		return nil
	})
}

// EndShares says that the node's header holds no key of this kind but that of generation, 0 for none at all.
func (v *Vault) EndShares(name string, generation int) (ShareState, error) {
	return v.reshare(name, func(s *ShareState) error {
		if s.Next != nil || number(s.Current) != generation {
			return fmt.Errorf("node %s: %w", name, ErrRotated)
		}
		s.Retiring = false
		return nil
	})
}

// SpendShares says that the peers put the key of generation together: the next [Vault.WantShares] replaces it.
func (v *Vault) SpendShares(name string, generation int) (ShareState, error) {
	return v.reshare(name, func(s *ShareState) error {
		if number(s.Current) == generation && s.Current != nil {
			s.Current.Spent = true
		}
		return nil
	})
}

func number(p *PeerShares) int {
	if p == nil {
		return 0
	}
	return p.Generation()
}

// reshare changes the state alone among all processes on this folder. An error of change leaves it as it was.
func (v *Vault) reshare(name string, change func(*ShareState) error) (s ShareState, err error) {
	if err := checkName("node", name); err != nil {
		return s, err
	}
	err = v.exclusive(name, func() error {
		if s, err = v.shares(name); err != nil {
			return err
		}
		before := s
		if s.Current != nil {
			c := *s.Current
			s.Current = &c
		}
		if err := change(&s); err != nil {
			return err
		}
		if same(before, s) {
			return nil
		}
		return v.put(nodeFile(name, sharesFile), storedShares{s.Generation, s.Current.stored(), s.Next.stored(), s.Retiring})
	})
	if err != nil {
		return ShareState{}, fmt.Errorf("peers' shares of %s: %w", name, err)
	}
	return s, nil
}

func same(a, b ShareState) bool {
	spent := func(p *PeerShares) bool { return p != nil && p.Spent }
	return a.Generation == b.Generation && number(a.Current) == number(b.Current) && number(a.Next) == number(b.Next) &&
		spent(a.Current) == spent(b.Current) && a.Retiring == b.Retiring
}

// PeerLogin is the key that the node called name logs in with at other nodes' initramfs, to hand over its share.
func (v *Vault) PeerLogin(name string) (KeyPair, error) {
	if err := checkName("node", name); err != nil {
		return KeyPair{}, err
	}
	k, err := once(v, nodeFile(name, "peer.age"), func() (storedKey, error) { return newStoredKey(v.fleet + " " + name + " peer") })
	return k.pair(), err
}

// Ward is a node that another one holds a share of.
type Ward struct {
	Node    string
	HostKey string // the initramfs' pinned key
	Share   inventory.Secret
}

// Wards are those of nodes that the node called name holds a share of now and may hand it over: not those that a person
// said never to unlock or to leave alone, nor those that are not believed. held is whether shares are in use at all.
func (v *Vault) Wards(name string, nodes []string) (wards []Ward, held bool, err error) {
	for _, n := range nodes {
		s, err := v.Shares(n)
		if err != nil {
			return nil, false, err
		}
		held = held || s.Generation > 0
		if s.Current == nil {
			continue
		}
		line, ok := s.Current.Share(name)
		if !ok {
			continue
		}
		pin, err := v.pushable(n, s.Current.Install)
		if err != nil {
			return nil, false, err
		}
		if pin != "" {
			wards = append(wards, Ward{n, pin, line})
		}
	}
	return wards, held, nil
}

// pushable is the initramfs' key of a node that shares may be sent to, or "".
func (v *Vault) pushable(name, install string) (pin string, err error) {
	state, err := v.NodeState(name)
	if err != nil {
		return "", err
	}
	said, err := v.UnlockState(name)
	if err != nil {
		return "", err
	}
	if said.Never.Holds(v.now()) || said.Suspect != nil || state.Quarantine != nil || !state.Sealed || state.InstallRun != install {
		return "", nil
	}
	return state.InitramfsHostKey, nil
}
