package spec

// OpPeerKey gives a sealed, running node the key that its peers can open it with, or takes it away.
const OpPeerKey = "peer-key" // PeerKey → PeerKeyed

// Steps of changing the peers' key. Each is idempotent. The operator keeps the new key before the first, calls it the
// current one between them, and gives the peers their shares of it before the second: until then old shares open too.
const (
	PeerKeyAdd    = "add"    // put Key into a slot beside others of its kind, expect Commitments
	PeerKeyRetire = "retire" // expect Commitments, then destroy every slot of its kind but Key's; without Key, all
)

// PeerKey is one step. It travels over the pinned system link only; the peers' key itself never leaves the operator and
// the node's header, and no peer ever has more than a share.
type PeerKey struct {
	Version    int    `json:"version"` // 1
	Node       string `json:"node"`
	Step       string `json:"step"`
	MachineKey []byte `json:"machine_key"` // opens a machine slot now; authorises the step
	Key        []byte `json:"key,omitempty"`
	Current    []byte `json:"current,omitempty"` // in force until now: adding another key leaves it alone
	// Commitments is what the initramfs expects, as docs/protocols/peer-unlock.md draws it; empty with no Key.
	Commitments string `json:"commitments,omitempty"`
	// Logins are those of the peers that Commitments names, no more and no fewer.
	Logins []PeerLogin `json:"logins,omitempty"`
}

// PeerLogin lets one peer hand over its share in the initramfs, and do nothing else.
type PeerLogin struct {
	Node string `json:"node"`
	Key  string `json:"key"` // authorized_keys form
}

// PeerKeyed is the result of PeerKey.
type PeerKeyed struct {
	Slots        []string `json:"slots"` // "1 machine pbkdf2", "2 recovery argon2id", "4 peers pbkdf2"
	InitramfsSHA string   `json:"initramfs_sha256"`
}
