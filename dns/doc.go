// Package dns is the authoritative DNS server of the fleet's zone: it answers names with the nodes that live, the
// nearest first. What lives it hears from the local transport (package feed). It never resolves for others, never
// asks anybody, never transfers the zone, and never gives an empty answer for a name that has nodes: a lost feed leaves
// the last map in force, across restarts too, and a map in which nobody serves is answered with everybody.
package dns
