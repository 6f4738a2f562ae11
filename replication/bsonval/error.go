package bsonval

import "fmt"

// Code is one of MongoDB's error codes (src/mongo/base/error_codes.yml of the server, "Error Codes" in its manual).
type Code int32

// The codes this room answers with.
const (
	BadValue               Code = 2
	FailedToParse          Code = 9
	TypeMismatch           Code = 14
	Overflow               Code = 15
	InvalidLength          Code = 16
	PathNotViable          Code = 28
	ConflictingUpdates     Code = 40
	DollarPrefixedField    Code = 52
	InvalidIDField         Code = 53
	NotSingleValueField    Code = 54
	EmptyFieldName         Code = 56
	ImmutableField         Code = 66
	ConversionFailure      Code = 241
	ObjectTooLarge         Code = 10334
	RegexInvalid           Code = 51091
	ProjectionMixed        Code = 31254
	ProjectionCollision    Code = 31250
	PipelineStageRefused   Code = 72
	UnknownExpression      Code = 168
	ExpressionArgumentType Code = 16554
)

// Error is a refusal as the client gets it.
type Error struct {
	Code    int32
	Name    string // MongoDB's name of the code
	Message string
}

func (e *Error) Error() string { return fmt.Sprintf("%s (%d): %s", e.Name, e.Code, e.Message) }

// Errorf makes an Error of a code.
func Errorf(c Code, format string, args ...any) *Error {
	return &Error{Code: int32(c), Name: c.String(), Message: fmt.Sprintf(format, args...)}
}

// String is the name the server gives the code; codes of single assertions have a name made of their number.
func (c Code) String() string {
	switch c {
	case BadValue:
		return "BadValue"
	case FailedToParse:
		return "FailedToParse"
	case TypeMismatch:
		return "TypeMismatch"
	case Overflow:
		return "Overflow"
	case InvalidLength:
		return "InvalidLength"
	case PathNotViable:
		return "PathNotViable"
	case ConflictingUpdates:
		return "ConflictingUpdateOperators"
	case DollarPrefixedField:
		return "DollarPrefixedFieldName"
	case InvalidIDField:
		return "InvalidIdField"
	case NotSingleValueField:
		return "NotSingleValueField"
	case EmptyFieldName:
		return "EmptyFieldName"
	case ImmutableField:
		return "ImmutableField"
	case PipelineStageRefused:
		return "InvalidOptions"
	case UnknownExpression:
		return "InvalidPipelineOperator"
	case ConversionFailure:
		return "ConversionFailure"
	case ObjectTooLarge:
		return "BSONObjectTooLarge"
	}
	return fmt.Sprintf("Location%d", int32(c))
}
