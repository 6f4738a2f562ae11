package scripted

import (
	"encoding/json"
	"time"
)

// The messages of docs/protocols/exchange.md, read from that document and not from the operator's types.

type request struct {
	V    int             `json:"v"`
	ID   int             `json:"id"`
	Op   string          `json:"op"`
	Spec json.RawMessage `json:"spec,omitempty"`
}

type blobHeader struct {
	Blob      string `json:"blob"`
	SizeBytes int64  `json:"size_bytes"`
	Encoding  string `json:"encoding"`
	Peer      *peer  `json:"peer"`
}

type event struct {
	V      int          `json:"v"`
	ID     int          `json:"id"`
	Time   time.Time    `json:"time"`
	Kind   string       `json:"kind"`
	Step   string       `json:"step,omitempty"`
	Status string       `json:"status,omitempty"`
	Text   string       `json:"text,omitempty"`
	Done   int64        `json:"done,omitempty"`
	Total  int64        `json:"total,omitempty"`
	Blobs  []blob       `json:"blobs,omitempty"`
	Accept []string     `json:"accept,omitempty"`
	Data   any          `json:"data,omitempty"`
	Error  *remoteError `json:"error,omitempty"`
}

type remoteError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

func (e *remoteError) Error() string { return e.Code + ": " + e.Message }

type blob struct {
	SHA256    string `json:"sha256"`
	SizeBytes int64  `json:"size_bytes"`
	Direct    bool   `json:"direct,omitempty"`
}

type peer struct {
	Node        string `json:"node"`
	Addr        string `json:"addr"`
	Certificate string `json:"certificate"`
	Receiver    string `json:"receiver"`
	Token       string `json:"token"`
	StallSec    int    `json:"stall_sec"`
}

type shareSpec struct {
	Version int    `json:"version"`
	Port    int    `json:"port"`
	Secret  []byte `json:"secret"`
	Seconds int    `json:"seconds"`
}

type shared struct {
	Port        int    `json:"port"`
	Certificate string `json:"certificate"`
}

type network struct {
	MAC       string   `json:"mac"`
	Addresses []string `json:"addresses"`
	Gateway4  string   `json:"gateway4,omitempty"`
	Gateway6  string   `json:"gateway6,omitempty"`
	DNS       []string `json:"dns,omitempty"`
}

type installSpec struct {
	Version        int      `json:"version"`
	Node           string   `json:"node"`
	Fleet          string   `json:"fleet"`
	Run            string   `json:"run"`
	Serials        []string `json:"serials"`
	KnownSerials   []string `json:"known_serials"`
	MinGB          int      `json:"min_gb"`
	Image          blob     `json:"image"`
	InstallKey     []byte   `json:"install_key"`
	AuthorizedKeys []string `json:"authorized_keys"`
	UserCA         string   `json:"user_ca"`
	Network        *network `json:"network"`
	PrevMarker     string   `json:"prev_marker"`
	Emulated       bool     `json:"emulated"`
}

type installed struct {
	Run              string     `json:"run"`
	Disks            []wireDisk `json:"disks"`
	Wiped            []string   `json:"wiped"`
	InitramfsHostKey string     `json:"initramfs_host_key"`
	SystemHostKey    string     `json:"system_host_key"`
	Network          network    `json:"network"`
	LUKSUUID         string     `json:"luks_uuid"`
}

type wireDisk struct {
	Serial    string `json:"serial"`
	WWN       string `json:"wwn,omitempty"`
	Model     string `json:"model,omitempty"`
	SizeBytes int64  `json:"size_bytes"`
	Path      string `json:"path"`
	Marker    string `json:"marker,omitempty"`
	Content   string `json:"content,omitempty"`
}

type facts struct {
	Rescue    bool       `json:"rescue"`
	Hostname  string     `json:"hostname"`
	BootID    string     `json:"boot_id"`
	Firmware  string     `json:"firmware"`
	MemoryMB  int        `json:"memory_mb"`
	Disks     []wireDisk `json:"disks"`
	Network   network    `json:"network"`
	Node      string     `json:"node,omitempty"`
	Sealed    bool       `json:"sealed"`
	UnixMilli int64      `json:"unix_milli"`
	RootLUKS  bool       `json:"root_luks"`
	Release   string     `json:"release,omitempty"`
	Spent     int        `json:"spent_shares,omitempty"`

	BootChanged string `json:"boot_changed,omitempty"`
}

type sealSpec struct {
	Version          int    `json:"version"`
	Node             string `json:"node"`
	InstallKey       []byte `json:"install_key"`
	MachineKey       []byte `json:"machine_key"`
	RecoveryKey      []byte `json:"recovery_key"`
	InitramfsHostKey []byte `json:"initramfs_host_key"`
	SystemHostKey    []byte `json:"system_host_key"`
}

type sealed struct {
	Slots         []string `json:"slots"`
	InstallSlot   string   `json:"install_slot"`
	InitramfsSHA  string   `json:"initramfs_sha256"`
	SystemHostKey string   `json:"system_host_key"`
}

type wipeSpec struct {
	Version int      `json:"version"`
	Node    string   `json:"node"`
	Serials []string `json:"serials"`
}

type wiped struct {
	Devices   []string `json:"devices"`
	SlotsLeft int      `json:"slots_left"`
}

// nodeSpec is what a node should look like. Parts are kept as they came: only whether they changed matters here.
type nodeSpec struct {
	Version  int               `json:"version"`
	Name     string            `json:"name"`
	Packages []string          `json:"packages"`
	Groups   []json.RawMessage `json:"groups"`
	Users    []json.RawMessage `json:"users"`
	Dirs     []json.RawMessage `json:"dirs"`
	Files    []json.RawMessage `json:"files"`
	Sysctl   []json.RawMessage `json:"sysctl"`
	Nftables string            `json:"nftables"`
	Release  *struct {
		Digest string `json:"digest"`
		Files  []struct {
			Path      string `json:"path"`
			Mode      uint32 `json:"mode"`
			SHA256    string `json:"sha256"`
			SizeBytes int64  `json:"size_bytes"`
		} `json:"files"`
	} `json:"release"`
	Units  []json.RawMessage `json:"units"`
	Checks []struct {
		Service    string `json:"service"`
		Socket     string `json:"socket"`
		TimeoutSec int    `json:"timeout_sec"`
	} `json:"checks"`
}

type applied struct {
	Changed []string `json:"changed"`
	Release string   `json:"release,omitempty"`
	BootID  string   `json:"boot_id"`
}
