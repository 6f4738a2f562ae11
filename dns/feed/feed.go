// Package feed is the message the DNS server accepts: the whole live map of the fleet, as one JSON line per snapshot on
// a unix stream socket. The newest snapshot replaces the one before; a closed stream leaves the last one in force. The
// transport writes it, dns reads it, and neither imports anything else of the other.
package feed

import (
	"net/netip"
	"time"
)

// States a node can be in. Only Serving nodes are put in answers while any is left.
const (
	Serving  = "serving"
	Draining = "draining"
	Full     = "full"
	Failing  = "failing" // alive, but what it serves is not: the application behind it does not answer
	Dead     = "dead"    // not heard of
)

// Map is one snapshot: every node the sender knows, live or not.
type Map struct {
	V       int       `json:"v"` // 1
	From    string    `json:"from"`
	Version uint64    `json:"version"` // grows by one per snapshot of this sender's process
	Time    time.Time `json:"time"`
	Nodes   []Node    `json:"nodes"`
}

// Node is a node's place in the answers.
type Node struct {
	Name      string       `json:"name"`
	PoP       string       `json:"pop"`
	State     string       `json:"state"`
	Addresses []netip.Addr `json:"addresses"` // public, IPv4 and IPv6
	Lat       float64      `json:"lat"`
	Lon       float64      `json:"lon"`
}
