// Package mongosim is a database for tests and measurements: it speaks MongoDB's wire protocol, keeps everything in
// memory, and is exact where the proxy in front of it has to be trusted: a write changes one document and all its
// indexes in one step, a retry by lsid and txnNumber answers what the first attempt did, and what is acknowledged
// survives what its write concern says and nothing more.
//
// What a real server does by bad luck happens here on demand, see [Faults]: writes that land after their sender gave
// up, power cuts, failovers with rollback, connections cut before or after the effect, full disks.
//
// It is no mongod and refuses by name what it lacks: transactions over several documents, change streams, text and
// geographic indexes, capped collections, views, collation, validators. It never writes to disk: "journalled" is a mark
// in memory that a power cut respects. Statements about real servers need real servers.
package mongosim
