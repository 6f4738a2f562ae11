package spec

// OpBootChanges tells what runs of the package manager did to what the node boots from, in the boot that runs. It only
// reads.
const OpBootChanges = "boot-changes" // nil → BootChanges

// BootChanges are the changes that package runs made, oldest first. What changed otherwise is in none of them: the chain
// is broken there, or does not end at Manifest.
type BootChanges struct {
	BootID string `json:"boot_id,omitempty"` // the boot in which they were declared; empty when there are none
	// UnderWay names the package run that is going on; Manifest is absent then.
	UnderWay string       `json:"under_way,omitempty"`
	Changes  []BootChange `json:"changes,omitempty"`
	// Manifest is what the node would boot from now; absent when there are no changes.
	Manifest *BootManifest `json:"manifest,omitempty"`
}

// BootChange is what one package run did: it began with From and ended with the manifest whose digest is To.
type BootChange struct {
	From      BootManifest `json:"from"`
	To        string       `json:"to"`
	Packages  []string     `json:"packages"` // "linux-image-amd64 6.1.123-1", at most MaxRunPackages, then "and more"
	UnixMilli int64        `json:"unix_milli"`
}

// Bounds of what a node tells.
const (
	MaxBootChanges = 8 // more are joined, the oldest first
	MaxRunPackages = 40
)
