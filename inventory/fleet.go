// Package inventory says what should exist: the fleet file, its PoPs, nodes and services, the identities and pinned
// keys of both, and the secrets at rest. It holds values, parsing and validation. It never talks to a network and
// never changes anything but files under the operator's folder; a bad file is refused whole, with every problem listed
// at once.
package inventory

import (
	"net/netip"
	"time"
)

// Fleet is the fleet file (fleet.yaml), version 1. Zero values mean "not said"; [Default] fills them.
type Fleet struct {
	Version     int                 `yaml:"version" json:"version"`
	Name        string              `yaml:"name" json:"name"`     // DNS label, names cloud objects and certificates
	Domain      string              `yaml:"domain" json:"domain"` // the zone our DNS answers, no trailing dot
	Release     string              `yaml:"release,omitempty" json:"release,omitempty"`
	Providers   map[string]Provider `yaml:"providers,omitempty" json:"providers,omitempty"`
	Controllers []Controller        `yaml:"controllers" json:"controllers"`
	Operators   []Operator          `yaml:"operators,omitempty" json:"operators,omitempty"`
	Defaults    Machine             `yaml:"defaults,omitempty" json:"defaults,omitempty"`
	PoPs        []PoP               `yaml:"pops" json:"pops"`
	Unlock      Unlock              `yaml:"unlock,omitempty" json:"unlock,omitempty"`
	Services    Services            `yaml:"services,omitempty" json:"services,omitempty"`
}

// Unlock says when a node that waits in its initramfs is handed its key without a person.
type Unlock struct {
	RecentlyAlive time.Duration `yaml:"recently_alive,omitempty" json:"recently_alive,omitempty"` // it was heard at most this long before it fell silent; default 15m
	CrossCheck    string        `yaml:"cross_check,omitempty" json:"cross_check,omitempty"`       // what the provider says is asked when-possible (default), or required
	Peers         int           `yaml:"peers,omitempty" json:"peers,omitempty"`                   // so many other nodes together unlock it with no controller; 0 (default) is none
}

// Provider is where one provider's API is and how its credentials are obtained. They themselves are never in a file of
// ours.
type Provider struct {
	Endpoint string `yaml:"endpoint,omitempty" json:"endpoint,omitempty"` // default: the provider's public API
	// prints the token (hetznercloud), user:password (hetznerrobot) or application key:application secret:consumer key
	// (ovh); default: environment, HCLOUD_TOKEN, HROBOT_USER and HROBOT_PASSWORD, OVH_APPLICATION_KEY and so on
	TokenCommand string `yaml:"token_command,omitempty" json:"token_command,omitempty"`
}

// Controller is a controller daemon as agents reach it.
type Controller struct {
	Name    string         `yaml:"name" json:"name"`
	Address netip.AddrPort `yaml:"address" json:"address"`
}

// Operator is a person who may log in to nodes and hold the vault's passphrase.
type Operator struct {
	Name   string `yaml:"name" json:"name"`
	SSHKey string `yaml:"ssh_key" json:"ssh_key"` // one line of authorized_keys, without options
}

// Machine is what a node's server should be; said in defaults, in a PoP or at a node, the nearest wins.
type Machine struct {
	Provider   string  `yaml:"provider,omitempty" json:"provider,omitempty"`       // hetznercloud, hetznerrobot or ovh
	Server     string  `yaml:"server,omitempty" json:"server,omitempty"`           // at a node: the dedicated server it lives on; Robot's number or OVH's service name
	ServerType string  `yaml:"server_type,omitempty" json:"server_type,omitempty"` // cx23
	Location   string  `yaml:"location,omitempty" json:"location,omitempty"`       // fsn1
	Elsewhere  []Offer `yaml:"elsewhere,omitempty" json:"elsewhere,omitempty"`     // taken in order when there is no room for server_type at location
	Image      string  `yaml:"image,omitempty" json:"image,omitempty"`             // what the provider puts on first; debian-12
	Disks      Disks   `yaml:"disks,omitempty" json:"disks,omitempty"`
}

// Offer is a server type at a location.
type Offer struct {
	ServerType string `yaml:"server_type" json:"server_type"`
	Location   string `yaml:"location" json:"location"`
}

// Disks picks what is wiped: serials or WWNs, never sda. Empty: every fixed disk, and it must be one or two.
type Disks struct {
	Serials []string `yaml:"serials,omitempty" json:"serials,omitempty"`
	MinGB   int      `yaml:"min_gb,omitempty" json:"min_gb,omitempty"` // refuse smaller; default 8
}

// PoP is a site, named after its city code.
type PoP struct {
	Name    string  `yaml:"name" json:"name"`
	Place   Place   `yaml:"place,omitempty" json:"place,omitempty"`
	Machine Machine `yaml:"machine,omitempty" json:"machine,omitempty"`
	Nodes   []Node  `yaml:"nodes" json:"nodes"`
}

// Place is a point on earth in degrees, for nearest-first DNS answers.
type Place struct {
	Lat float64 `yaml:"lat" json:"lat"`
	Lon float64 `yaml:"lon" json:"lon"`
}

// Node is one clone. Its name is <pop>-<number>.
type Node struct {
	Name    string  `yaml:"name" json:"name"`
	Machine Machine `yaml:"machine,omitempty" json:"machine,omitempty"`
}

// Services says what differs from the services' own defaults.
type Services struct {
	Store     Store     `yaml:"store,omitempty" json:"store,omitempty"`
	DNS       DNS       `yaml:"dns,omitempty" json:"dns,omitempty"`
	App       App       `yaml:"app,omitempty" json:"app,omitempty"`
	Transport Transport `yaml:"transport,omitempty" json:"transport,omitempty"`
}

// Store is the database behind the replicator: "embedded" (default) or a mongodb:// URI that takes its place.
type Store struct {
	URI string `yaml:"uri,omitempty" json:"uri,omitempty"`
}

// DNS is the zone's authoritative server on every node.
type DNS struct {
	TTL  time.Duration `yaml:"ttl,omitempty" json:"ttl,omitempty"`   // of A and AAAA answers; default 30s
	MMDB string        `yaml:"mmdb,omitempty" json:"mmdb,omitempty"` // path of a city database in the operator's folder
}

// App is the application every node runs.
type App struct {
	Binary string            `yaml:"binary,omitempty" json:"binary,omitempty"` // name in the release; default "comments"
	Env    map[string]string `yaml:"env,omitempty" json:"env,omitempty"`
}

// Transport is the TLS edge.
type Transport struct {
	Names []string `yaml:"names,omitempty" json:"names,omitempty"` // host names served besides domain
}
