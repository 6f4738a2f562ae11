// Package front accepts MongoDB clients for the proxy. It greets as a mongos, because only then do drivers send
// retryable writes and their read preference; it logs users in by SCRAM-SHA-256 against stored keys; it bounds how many
// connect and how long a message may take. Every command that is not about the connection itself goes to a Handler,
// with its session, times and preferences read out and validated.
//
// It never looks into documents, keeps no cursor and no session, and never retries. A message that breaks the protocol
// closes its connection with one log line; a command that fails is answered and the connection goes on. One connection
// is served by one goroutine, one command at a time, as the protocol has it.
package front
