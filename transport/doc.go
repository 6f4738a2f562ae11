// Package transport is the edge of a node: it takes clients' HTTPS to the application beside it, keeps in touch with
// every other transport (package mesh), and tells the local dns who lives (package popfleet/dns/feed). It never serves
// content of its own, never resolves names, and stores nothing. Without peers it serves alone; without the application
// it says so to clients and to the fleet; without dns it goes on.
package transport
