package spec

// OpRotate exchanges the machine key of a sealed, running node.
const (
	OpRotate = "rotate"  // Rotate → Rotated
	OpKeyBox = "key-box" // KeyBox or nil → KeyBox; one that is given is kept
)

// Steps of a rotation. Each is idempotent. The operator writes down between them that the added key is the current one:
// whenever a rotation is cut, the key that the operator calls current opens the disk.
const (
	RotateAdd    = "add"    // put Other beside Current, and prove that it opens
	RotateRetire = "retire" // destroy Other, and prove that only Current and the recovery key are left
)

// Rotate is one step. It travels over the pinned system link only.
type Rotate struct {
	Version int    `json:"version"` // 1
	Node    string `json:"node"`
	Step    string `json:"step"`
	Current []byte `json:"current"` // opens a machine slot now; authorises the step
	Other   []byte `json:"other"`   // to add, or to destroy
	// Box, with retire, is Current sealed for the operator's other copies of the secrets folder. The node keeps it, on the
	// encrypted root, before it destroys the other key; it can't read it.
	Box []byte `json:"box,omitempty"`
}

// MaxBoxBytes bounds a box.
const MaxBoxBytes = 8 << 10

// KeyBox is what one copy of the operator's secrets folder leaves for the others; empty before the first.
type KeyBox struct {
	Box []byte `json:"box,omitempty"`
}

// Rotated is the result of Rotate.
type Rotated struct {
	Slots []string `json:"slots"` // "1 machine pbkdf2", "2 recovery argon2id"
	Slot  int      `json:"slot"`  // of the added key, or of the one that is left
}

// Error codes of a rotation.
const (
	CodeStaleKey    = "stale_key"    // Current opens no machine slot: the operator's secrets are older than the node
	CodeForeignSlot = "foreign_slot" // a slot holds a key that this operator does not know: another one rotates
)
