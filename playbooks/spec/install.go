package spec

// Install is what `fleet-agent` needs in the rescue system to turn a machine into a locked, encrypted Debian.
//
// The link it travels on may be tofu (a provider that publishes no rescue host key), so nothing in it outlives the
// install: InstallKey opens the only LUKS slot until Seal replaces it over the pinned system link, and both host keys
// are made on the node, their public halves reported in Installed.
type Install struct {
	Version        int      `json:"version"` // 1
	Node           string   `json:"node"`
	Fleet          string   `json:"fleet"`
	Run            string   `json:"run"`               // id of this installation; the marker left on the disks
	Serials        []string `json:"serials,omitempty"` // disks to wipe; empty: all fixed disks, one or two
	MinGB          int      `json:"min_gb,omitempty"`
	Image          Blob     `json:"image"` // tar.zst, see provision/image
	InstallKey     []byte   `json:"install_key"`
	AuthorizedKeys []string `json:"authorized_keys"`       // for initramfs unlock (fleet key)
	UserCA         string   `json:"user_ca"`               // SSH CA trusted for root logins on the system
	Network        *Network `json:"network,omitempty"`     // nil: what the running rescue system has
	PrevMarker     string   `json:"prev_marker,omitempty"` // marker the journal expects on disks already ours
	// KnownSerials are the disks that the journal knows this very machine to have had. When one of them is missing and
	// Serials names none, it is another machine or another disk, and nothing is wiped.
	KnownSerials []string `json:"known_serials,omitempty"`
	Emulated     bool     `json:"emulated,omitempty"`
}

// Blob is content named by digest. In a need it may also say where to go on, and from whom not.
type Blob struct {
	SHA256    string `json:"sha256"`
	SizeBytes int64  `json:"size_bytes"`
	Offset    int64  `json:"offset,omitempty"` // so many bytes are there already
	Direct    bool   `json:"direct,omitempty"` // what a peer passed on was not what its digest says: from the operator only
}

// Network is how a machine reaches the world, found by MAC, never by interface name.
type Network struct {
	MAC       string   `json:"mac"`
	Addresses []string `json:"addresses"`          // CIDR: 198.18.0.10/32, 2001:db8::10/64
	Gateway4  string   `json:"gateway4,omitempty"` // may be off-link
	Gateway6  string   `json:"gateway6,omitempty"` // fe80::1
	DNS       []string `json:"dns,omitempty"`
}

// Installed is the result of an installation.
type Installed struct {
	Run              string   `json:"run"`
	Disks            []Disk   `json:"disks"`
	Wiped            []string `json:"wiped"`              // serials wiped by this run (a rerun that found its marker wipes none)
	InitramfsHostKey string   `json:"initramfs_host_key"` // authorized_keys form, made on the node
	SystemHostKey    string   `json:"system_host_key"`
	Network          Network  `json:"network"`
	LUKSUUID         string   `json:"luks_uuid"`
}

// Disk is a block device as the machine names it for good.
type Disk struct {
	Serial    string `json:"serial"`
	WWN       string `json:"wwn,omitempty"`
	Model     string `json:"model,omitempty"`
	SizeBytes int64  `json:"size_bytes"`
	Path      string `json:"path"`               // /dev/nvme0n1, for people; never used to address
	Marker    string `json:"marker,omitempty"`   // run id of the installation found on it
	Content   string `json:"content,omitempty"`  // what is on it in words: "empty", "fleet node fsn-1", "linux: ext4 …"
	Bootable  bool   `json:"bootable,omitempty"` // firmware could start something from it
}

// Facts is what a machine says of itself, in rescue or booted.
type Facts struct {
	Rescue    bool    `json:"rescue"` // true only when the machine proves it runs a provider's rescue system
	Hostname  string  `json:"hostname"`
	BootID    string  `json:"boot_id"`
	Firmware  string  `json:"firmware"` // bios | uefi
	MemoryMB  int     `json:"memory_mb"`
	Disks     []Disk  `json:"disks"`
	Network   Network `json:"network"`
	Node      string  `json:"node,omitempty"` // from /etc/fleet/node.json on an installed system
	Sealed    bool    `json:"sealed"`
	UnixMilli int64   `json:"unix_milli"`
	// RootLUKS is true when / is on an opened LUKS2 device (checked through /sys and cryptsetup status, not config).
	RootLUKS bool   `json:"root_luks"`
	Release  string `json:"release,omitempty"`
	// SpentShares is the generation of peers' shares that this boot was opened with; 0: another key opened it.
	SpentShares int `json:"spent_shares,omitempty"`
	// BootChanged is the digest of what the last package run of this boot that changed it left to boot from: a reason to
	// ask for [OpBootChanges], and no proof of anything.
	BootChanged string `json:"boot_changed,omitempty"`
}

// Seal gives a freshly installed node its lasting secrets, over the link pinned to its system host key. It is
// idempotent: every part is checked before it is done, and the install slot is destroyed last.
type Seal struct {
	Version          int    `json:"version"` // 1
	Node             string `json:"node"`
	InstallKey       []byte `json:"install_key"`
	MachineKey       []byte `json:"machine_key"`        // 32 random bytes as text, used as they are, 44 characters; slot with pbkdf2, 1000 iterations, prefer
	RecoveryKey      []byte `json:"recovery_key"`       // text a person can type; slot with argon2id, fixed parameters
	InitramfsHostKey []byte `json:"initramfs_host_key"` // OpenSSH private key PEM, ed25519
	SystemHostKey    []byte `json:"system_host_key"`
}

// Sealed is the result of Seal.
type Sealed struct {
	Slots         []string `json:"slots"`        // "machine pbkdf2", "recovery argon2id"
	InstallSlot   string   `json:"install_slot"` // "destroyed"
	InitramfsSHA  string   `json:"initramfs_sha256"`
	SystemHostKey string   `json:"system_host_key"`
}

// Wipe destroys every key slot of the node's LUKS header and proves that no slot is left. Node must match.
type Wipe struct {
	Version int      `json:"version"` // 1
	Node    string   `json:"node"`
	Serials []string `json:"serials"`
}

// Wiped is the result of Wipe.
type Wiped struct {
	Devices   []string `json:"devices"`
	SlotsLeft int      `json:"slots_left"` // 0, or it is an error
}
