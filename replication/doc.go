// Package replication is the database proxy between the application and its node's store. Today it forwards the MongoDB
// wire protocol unchanged (splice) and keeps a link to every peer (peers), so that reachability, round trip and clock
// offset of each directed pair are real. It does not replicate yet and says so: status has "replicating": false, and a
// write stays on the node that took it.
package replication
