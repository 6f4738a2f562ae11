// Package bsonval is what the replication room knows of BSON values: their order, their equality, their arithmetic, how
// to reach into them by path, and what the server would refuse of them.
//
// A value is what the driver's bson package decodes into an any when the target is a bson.D: float64, string, bson.D,
// bson.A, bson.Binary, bson.Undefined, bson.ObjectID, bool, bson.DateTime, nil (null), bson.Regex, bson.DBPointer,
// bson.JavaScript, bson.Symbol, bson.CodeWithScope, int32, bson.Timestamp, int64, bson.Decimal128, bson.MinKey and
// bson.MaxKey; Missing{} stands for a field that is not there. Nothing else is a value: Normalize turns the Go types
// people write by hand (int, time.Time, []byte …) into it, Decode reads it from bytes. A foreign Go type handed to
// Compare, Canonical and the like is a programming error and panics; bytes from outside cannot bring one.
//
// Values are never changed in place: Set and Unset return a document that shares what did not change with the old one.
// Whoever holds a document may keep it. Errors are *Error with the code a MongoDB server answers with.
package bsonval
