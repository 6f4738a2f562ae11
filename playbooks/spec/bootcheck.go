package spec

// Ops about the next boot. Both only read; neither reboots anything.
const (
	OpBootCheck    = "boot-check"    // BootCheckRequest or nil → BootCheck
	OpBootManifest = "boot-manifest" // nil → BootManifest
)

// BootCheckRequest asks whether a node would come back from a reboot. Every field may be empty; what is then not
// compared is said by the check that would have.
type BootCheckRequest struct {
	Node string `json:"node,omitempty"` // the machine must say it is this one
	// InitramfsHostKey is the pinned public half, in authorized_keys form, that the next boot must show on port 2222.
	InitramfsHostKey string `json:"initramfs_host_key,omitempty"`
	// AuthorizedKeys are keys that must be able to hand over the disk key in the initramfs, in authorized_keys form.
	AuthorizedKeys []string `json:"authorized_keys,omitempty"`
	// Key is tried on the LUKS header without opening anything; it must open a slot. It travels over the pinned system
	// link only.
	Key []byte `json:"key,omitempty"`
	// Peers is what was given to the node's peers; nil: not known, as while it is being exchanged.
	Peers *BootPeers `json:"peers,omitempty"`
}

// BootPeers is whom the initramfs is to take shares of, and what it commits to (docs/protocols/peer-unlock.md). The zero
// value is nobody.
type BootPeers struct {
	Commitments string      `json:"commitments,omitempty"`
	Logins      []PeerLogin `json:"logins,omitempty"`
}

// BootCheck is the answer: every check that was made, in the order of a boot.
type BootCheck struct {
	Node      string      `json:"node,omitempty"`
	BootID    string      `json:"boot_id"`
	UnixMilli int64       `json:"unix_milli"`
	Kernel    string      `json:"kernel,omitempty"` // version that would boot next
	Running   string      `json:"running,omitempty"`
	Checks    []BootProof `json:"checks"`
	// Manifest is the digest of [BootManifest] at the time of the check.
	Manifest string `json:"manifest,omitempty"`
}

// BootProof is one check. Why says what was seen, whether it passed or not; Do is what an operator does when it did not.
type BootProof struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	Why  string `json:"why"`
	Do   string `json:"do,omitempty"`
	// Warn marks a finding that does not keep the node from coming back (a mirror with one member left boots); it is OK.
	Warn bool `json:"warn,omitempty"`
}

// OK tells whether the node would come back.
func (b BootCheck) OK() bool { return len(b.Checks) > 0 && len(b.Failed()) == 0 }

// Failed are the checks that did not pass.
func (b BootCheck) Failed() (failed []BootProof) {
	for _, c := range b.Checks {
		if !c.OK {
			failed = append(failed, c)
		}
	}
	return failed
}

// BootManifest is what a node boots from, by content: whoever changes a boot loader, a kernel or an initramfs changes
// it; a resync of a mirror, a mount or a time stamp does not.
type BootManifest struct {
	Files  []BootFile `json:"files"` // in order of Path
	Digest string     `json:"digest"`
}

// BootFile is one file, boot sector or loader partition.
type BootFile struct {
	// Path is where it is: "boot/grub/grub.cfg", "disk SERIAL/esp/EFI/BOOT/BOOTX64.EFI", "disk SERIAL/mbr".
	Path      string `json:"path"`
	SizeBytes int64  `json:"size_bytes"`
	SHA256    string `json:"sha256"`
}
