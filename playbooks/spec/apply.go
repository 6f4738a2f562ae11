package spec

// Node is the whole of what a converged node looks like to `fleet-agent apply`. Anything not named here is left alone.
// Order of application: groups, users, packages, directories, files, sysctl, nftables, release, units, checks.
type Node struct {
	Version  int      `json:"version"` // 1
	Name     string   `json:"name"`
	Packages []string `json:"packages,omitempty"` // Debian package names that must be installed
	Groups   []Group  `json:"groups,omitempty"`
	Users    []User   `json:"users,omitempty"`
	Dirs     []Dir    `json:"dirs,omitempty"`
	Files    []File   `json:"files,omitempty"`
	Sysctl   []Sysctl `json:"sysctl,omitempty"`
	Nftables string   `json:"nftables,omitempty"` // whole ruleset, loaded atomically by nft -f
	Release  *Release `json:"release,omitempty"`
	Units    []Unit   `json:"units,omitempty"`
	Checks   []Check  `json:"checks,omitempty"` // what must answer healthy at the end
}

// Group is a system group.
type Group struct {
	Name string `json:"name"`
}

// User is a system user without login. Home is not created.
type User struct {
	Name   string   `json:"name"`
	Group  string   `json:"group"`
	Groups []string `json:"groups,omitempty"`
	Home   string   `json:"home,omitempty"`
}

// Dir is a directory with its owner and mode; parents are created root:root 0755.
type Dir struct {
	Path  string `json:"path"`
	Mode  uint32 `json:"mode"`
	Owner string `json:"owner"`
	Group string `json:"group"`
}

// File is a regular file. Content travels in the spec (bounded: 1 MiB a file, 16 MiB a spec); what is larger is release
// content. A Secret file's content is never shown in a diff, an event or a log: only its digest changes.
type File struct {
	Path    string   `json:"path"`
	Mode    uint32   `json:"mode"`
	Owner   string   `json:"owner"`
	Group   string   `json:"group"`
	Content []byte   `json:"content"`
	Secret  bool     `json:"secret,omitempty"`
	Restart []string `json:"restart,omitempty"` // units to restart when this file changes
	Reload  []string `json:"reload,omitempty"`  // units to reload instead
}

// Sysctl is one kernel parameter, set now and kept in /etc/sysctl.d/90-fleet.conf.
type Sysctl struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// Unit is a systemd unit file and the state it should be in. Content "" names a unit the system already has.
type Unit struct {
	Name    string `json:"name"`
	Content string `json:"content,omitempty"`
	Enabled bool   `json:"enabled"`
	Running bool   `json:"running"`
	// Release: restart when the release switch changed the binary this unit runs (path below /opt/fleet/current).
	Release string `json:"release,omitempty"`
}

// Release names a content-addressed bundle. It lives at /opt/fleet/releases/<digest hex>/, its blobs at
// /opt/fleet/blobs/<sha256 hex>; /opt/fleet/current and /opt/fleet/previous are symlinks to releases.
type Release struct {
	Digest string        `json:"digest"` // [Release.ManifestDigest]
	Files  []ReleaseFile `json:"files"`
}

// ReleaseFile is one file of a release; it travels as a blob only when the node does not have it.
type ReleaseFile struct {
	Path      string `json:"path"` // relative, clean, e.g. bin/fleet-dns
	Mode      uint32 `json:"mode"`
	SHA256    string `json:"sha256"`
	SizeBytes int64  `json:"size_bytes"`
}

// Check is a service's control socket that must answer GET /health with 200 before apply calls the node converged.
type Check struct {
	Service    string `json:"service"`
	Socket     string `json:"socket"`
	TimeoutSec int    `json:"timeout_sec"`
}

// Applied is the result of apply and of plan.
type Applied struct {
	// Changed names what was done, or in a plan what would be: "file /etc/fleet/dns.json", "unit fleet-dns.service
	// restart". Plan and apply use the same words, so what was shown can be compared with what was done.
	Changed []string `json:"changed"`
	Release string   `json:"release,omitempty"`
	BootID  string   `json:"boot_id"`
}
