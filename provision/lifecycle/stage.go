package lifecycle

import (
	"popfleet/inventory/vault"
	"popfleet/playbooks/spec"
	"popfleet/provision/provider"
)

// Stage is where a node is in its life.
type Stage string

// The stages, in order; Silent, Unknown and Quarantined stand beside them.
const (
	Absent      Stage = "absent"      // no server carries the node's labels
	Rented      Stage = "rented"      // a server, off or with a system that is not ours
	Rescue      Stage = "rescue"      // proven to run the provider's rescue system
	Locked      Stage = "locked"      // installed, in the initramfs with the pinned key
	Booted      Stage = "booted"      // our system with its install-time secrets
	Sealed      Stage = "sealed"      // lasting secrets in place; how it is set up was not asked or differs
	Converged   Stage = "converged"   // nothing differs from its spec
	Serving     Stage = "serving"     // and it serves
	Silent      Stage = "silent"      // installed, but nothing answers: booting, or dead
	Unknown     Stage = "unknown"     // could not be observed
	Quarantined Stage = "quarantined" // must not be touched without a person
)

// Observation is one look at a node.
type Observation struct {
	Node      string
	Stage     Stage
	Server    provider.Server
	Installed bool // an installation on this very server has been completed
	Pending   bool // an installation was begun and not completed
	Facts     *spec.Facts
	HostKey   string   // fingerprint of the key that answered
	Trust     string   // pinned or tofu
	Changes   []string // what converge would change, when it was asked
	Asked     bool     // Changes is known
	Why       error    // of unknown and quarantined, and of a converged node that does not serve

	state vault.NodeState
	after Op // the operation this run did last: a silent machine after unlock is booting
}

// evidence is what the journal keeps of an observation; it holds no secret.
type evidence struct {
	Server  string   `json:"server,omitempty"`
	Address string   `json:"address,omitempty"`
	HostKey string   `json:"host_key,omitempty"`
	Trust   string   `json:"trust,omitempty"`
	BootID  string   `json:"boot_id,omitempty"`
	Changes []string `json:"changes,omitempty"`
	Why     string   `json:"why,omitempty"`
}

func (o Observation) evidence() evidence {
	e := evidence{Server: o.Server.ID, HostKey: o.HostKey, Trust: o.Trust, Changes: o.Changes}
	if o.Server.Addr4.IsValid() {
		e.Address = o.Server.Addr4.String()
	}
	if o.Facts != nil {
		e.BootID = o.Facts.BootID
	}
	if o.Why != nil {
		e.Why = o.Why.Error()
	}
	return e
}

// aboutServer is s when it speaks of the server with this id, and a blank page when the server is another one.
func aboutServer(s vault.NodeState, id string) vault.NodeState {
	if s.ServerID == id {
		return s
	}
	return vault.NodeState{ServerID: id}
}

// installed: the machine's reports of its host keys have been written down, or replaced by the vault's.
func installed(s vault.NodeState) bool {
	return s.InstallRun != "" && s.SystemHostKey != "" && s.InitramfsHostKey != ""
}
