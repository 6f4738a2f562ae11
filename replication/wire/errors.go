package wire

import (
	"errors"
	"fmt"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"
)

// FormatError is bytes that are not this protocol, or that are beyond the limits. Nothing was done with them.
type FormatError struct {
	What   string
	Offset int // from the start of the message, after decompression
}

func (e *FormatError) Error() string {
	return fmt.Sprintf("malformed message: %s at byte %d", e.What, e.Offset)
}

func malformed(offset int, format string, args ...any) error {
	return &FormatError{What: fmt.Sprintf(format, args...), Offset: offset}
}

// CommandError is a command's failure as a server tells it: {ok: 0, code, codeName, errmsg, errorLabels}.
type CommandError struct {
	Code    int32
	Name    string // codeName; drivers and people read it, code decides
	Message string
	Labels  []string // errorLabels, such as RetryableWriteError
}

func (e *CommandError) Error() string { return fmt.Sprintf("%s (%s, %d)", e.Message, e.Name, e.Code) }

// Codes this room answers with; the names are the server's own.
const (
	CodeBadValue             = 2
	CodeUnauthorized         = 13
	CodeAuthenticationFailed = 18
	CodeCursorNotFound       = 43
	CodeMaxTimeMSExpired     = 50
	CodeCommandNotFound      = 59
	CodeMechanismUnavailable = 334
	CodeShutdownInProgress   = 91
	CodeInternalError        = 1
)

// Document is the reply that carries the error.
func (e *CommandError) Document() bson.Raw {
	index, doc := bsoncore.AppendDocumentStart(nil)
	doc = bsoncore.AppendDoubleElement(doc, "ok", 0)
	doc = bsoncore.AppendStringElement(doc, "errmsg", e.Message)
	doc = bsoncore.AppendInt32Element(doc, "code", e.Code)
	if e.Name != "" {
		doc = bsoncore.AppendStringElement(doc, "codeName", e.Name)
	}
	if len(e.Labels) > 0 {
		var at int32
		at, doc = bsoncore.AppendArrayElementStart(doc, "errorLabels")
		for i, label := range e.Labels {
			doc = bsoncore.AppendStringElement(doc, indexKey(i), label)
		}
		doc, _ = bsoncore.AppendArrayEnd(doc, at)
	}
	doc, _ = bsoncore.AppendDocumentEnd(doc, index)
	return bson.Raw(doc)
}

// ReplyError is the error a reply tells of, nil for ok: 1. Errors of single writes (writeErrors) are no error of the
// command.
func ReplyError(reply bson.Raw) error {
	ok, err := reply.LookupErr("ok")
	if err != nil {
		return errors.New("reply without ok")
	}
	if n, numeric := ok.AsFloat64OK(); (numeric && n != 0) || (ok.Type == bson.TypeBoolean && ok.Boolean()) {
		return nil
	}
	e := &CommandError{Message: "command failed"}
	if code, is := reply.Lookup("code").AsInt64OK(); is {
		e.Code = int32(code)
	}
	if name, is := reply.Lookup("codeName").StringValueOK(); is {
		e.Name = name
	}
	if text, is := reply.Lookup("errmsg").StringValueOK(); is {
		e.Message = text
	}
	e.Labels = texts(reply.Lookup("errorLabels"))
	return e
}

func texts(array bson.RawValue) (all []string) {
	list, is := array.ArrayOK()
	if !is {
		return nil
	}
	values, err := list.Values()
	if err != nil {
		return nil
	}
	for _, v := range values {
		if s, is := v.StringValueOK(); is {
			all = append(all, s)
		}
	}
	return all
}
