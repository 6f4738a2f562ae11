// Package expression evaluates MongoDB's aggregation expressions on one document: what a pipeline update, a computed
// projection and $expr need. It is pure: the time of $$NOW comes with the Scope, there is no randomness, no I/O and no
// server-side JavaScript.
//
// An expression is compiled once and evaluated often, by many goroutines at once. An operator that is not implemented
// is refused by name when it is compiled (code 168); what an operator can't do with its arguments is an error of the
// evaluation, with the server's code where it has one.
package expression
