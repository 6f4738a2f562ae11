// Package oracle holds no code but a test: replication/operators compared, case by random case, with mingo, an
// independent implementation of MongoDB's language that runs in Node. Install it with
//
//	npm ci --prefix replication/operators/oracle
//
// Without node or the module the test is skipped and says so. The seed and the number of cases are flags:
//
//	go test ./replication/operators/oracle -v -args -seed 7 -cases 120000
package oracle
