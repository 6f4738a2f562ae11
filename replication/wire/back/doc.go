// Package back is the proxy's way to its backend: a bounded pool of connections for one service user, one command in
// flight on each, every command with a deadline. Replies lie in memory that goes back to the pool when released.
//
// It never retries: whether a command that failed may be sent again is for the write path to say, and Error.Sent tells
// what it needs for that. A command the backend refuses (ok: 0) is a reply, not an error. A connection that failed, ran
// into its deadline or broke the protocol is closed, never used again.
package back
