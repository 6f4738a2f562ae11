package mongosim

import (
	"context"
	"errors"
	"fmt"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/bsonval"
	"popfleet/replication/mongosim/fault"
	"popfleet/replication/mongosim/store"
	"popfleet/replication/wire"
)

// Codes of the server's error_codes.yml that are answered here.
const (
	codeBadValue          = 2
	codeFailedToParse     = 9
	codeTypeMismatch      = 14
	codeIllegalOperation  = 20
	codeNamespaceNotFound = 26
	codeIndexNotFound     = 27
	codeCursorNotFound    = 43
	codeNamespaceExists   = 48
	codeMaxTimeMSExpired  = 50
	codeCommandNotFound   = 59
	codeWriteConcern      = 64
	codeCannotCreateIndex = 67
	codeInvalidOptions    = 72
	codeInvalidNamespace  = 73
	codeIndexOptions      = 85
	codeIndexKeySpecs     = 86
	codeNotImplemented    = 238
	codeParallelArrays    = 171
	codeTxnTooOld         = 225
	codeNotPrimary        = 10107
	codeDuplicateKey      = 11000
	codeStateChange       = 11602
	codeNotPrimaryNoOk    = 13435
	codeOutOfDiskSpace    = 14031
	codeInvalidIDField    = 53
	codeCursorInUse       = 12051
	codeUnknownField      = 40415
	codeMissingField      = 40414
	codeUnrecognizedStage = 40324
	codeChangeStream      = 40573
	codeInvalidLength     = 16
)

var codeNames = map[int32]string{codeBadValue: "BadValue", codeFailedToParse: "FailedToParse", codeTypeMismatch: "TypeMismatch",
	codeIllegalOperation: "IllegalOperation", codeNamespaceNotFound: "NamespaceNotFound", codeIndexNotFound: "IndexNotFound",
	codeCursorNotFound: "CursorNotFound", codeNamespaceExists: "NamespaceExists", codeMaxTimeMSExpired: "MaxTimeMSExpired",
	codeCommandNotFound: "CommandNotFound", codeWriteConcern: "WriteConcernFailed", codeCannotCreateIndex: "CannotCreateIndex",
	codeInvalidOptions: "InvalidOptions", codeInvalidNamespace: "InvalidNamespace", codeIndexOptions: "IndexOptionsConflict",
	codeIndexKeySpecs: "IndexKeySpecsConflict", codeNotImplemented: "NotImplemented", codeParallelArrays: "CannotIndexParallelArrays",
	codeTxnTooOld: "TransactionTooOld", codeNotPrimary: "NotWritablePrimary", codeDuplicateKey: "DuplicateKey",
	codeStateChange: "InterruptedDueToReplStateChange", codeNotPrimaryNoOk: "NotPrimaryNoSecondaryOk",
	codeOutOfDiskSpace: "OutOfDiskSpace", codeInvalidIDField: "InvalidIdField", codeCursorInUse: "CursorInUse",
	codeInvalidLength: "InvalidLength", 79: "UnknownReplWriteConcern", 100: "UnsatisfiableWriteConcern"}

// failure makes a command's error; codes without a name of their own are called after their number, as the server does.
func failure(code int32, format string, args ...any) *wire.CommandError {
	name := codeNames[code]
	if name == "" {
		name = fmt.Sprintf("Location%d", code)
	}
	return &wire.CommandError{Code: code, Name: name, Message: fmt.Sprintf(format, args...)}
}

// refused is how a whole command or option that mongosim lacks is answered.
func refused(what string) error {
	return failure(codeNotImplemented, "%s: mongosim does not have it", what)
}

// asCommandError gives every error of the rooms below its code. What cuts a connection stays as it is.
func asCommandError(err error) error {
	var (
		own   *wire.CommandError
		value *bsonval.Error
		dup   *store.DuplicateKey
	)
	switch {
	case err == nil, errors.As(err, &own), errors.Is(err, fault.ErrCut), errors.Is(err, fault.ErrSilence), errors.Is(err, fault.ErrDropped):
		return err
	case errors.As(err, &value):
		return &wire.CommandError{Code: value.Code, Name: value.Name, Message: value.Message}
	case errors.As(err, &dup):
		return failure(codeDuplicateKey, "%s", dup)
	case errors.Is(err, errMaxTime):
		return failure(codeMaxTimeMSExpired, "operation exceeded time limit")
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	}
	return asStoreError(err)
}

func asStoreError(err error) error {
	for _, c := range []struct {
		is   error
		code int32
	}{
		{store.ErrEra, codeStateChange}, {store.ErrFull, codeOutOfDiskSpace}, {store.ErrNoNamespace, codeNamespaceNotFound},
		{store.ErrExists, codeNamespaceExists}, {store.ErrTxnTooOld, codeTxnTooOld}, {store.ErrSystemIndex, codeInvalidOptions},
		{store.ErrNoIndex, codeIndexNotFound}, {store.ErrParallel, codeParallelArrays},
	} {
		if errors.Is(err, c.is) {
			return failure(c.code, "%s", err)
		}
	}
	return failure(1, "%s", err)
}

// endsBatch says that no further statement of a batch runs: the command as a whole failed.
func endsBatch(err error) bool {
	var ce *wire.CommandError
	if !errors.As(err, &ce) {
		return true // the connection or the caller's patience ended
	}
	switch ce.Code {
	case codeStateChange, codeMaxTimeMSExpired, codeNotPrimary, 1:
		return true
	}
	return false
}

// retryable are the codes after which drivers try a write with a txnNumber again (the specification's list, as far as
// they occur here); the server marks them with a label.
func retryable(code int32) bool {
	switch code {
	case codeStateChange, codeNotPrimary, codeNotPrimaryNoOk, 6, 7, 89, 91, 189, 262, 9001, 11600, 13436:
		return true
	}
	return false
}

// writeError is one entry of a reply's writeErrors.
func writeError(index int, err error) bson.D {
	var ce *wire.CommandError
	converted := asCommandError(err)
	if !errors.As(converted, &ce) {
		ce = failure(1, "%s", converted)
	}
	d := bson.D{{Key: "index", Value: int32(index)}, {Key: "code", Value: ce.Code}}
	if dup := new(store.DuplicateKey); errors.As(err, &dup) {
		d = append(d, bson.E{Key: "keyPattern", Value: dup.Pattern}, bson.E{Key: "keyValue", Value: dup.Value})
	}
	return append(d, bson.E{Key: "errmsg", Value: ce.Message})
}
