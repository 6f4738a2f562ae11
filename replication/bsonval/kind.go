package bsonval

import (
	"fmt"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// Missing stands for a field that a document does not have. It is no value a document can hold.
type Missing struct{}

// TypeMissing is the type of Missing: the byte that ends a BSON document.
const TypeMissing bson.Type = 0

// TypeOf is the BSON type of a value.
func TypeOf(v any) bson.Type {
	t, ok := typeOf(v)
	if !ok {
		panic(fmt.Sprintf("bsonval: a %T is not a value; Normalize it first", v))
	}
	return t
}

func typeOf(v any) (_ bson.Type, ok bool) {
	switch v.(type) {
	case float64:
		return bson.TypeDouble, true
	case string:
		return bson.TypeString, true
	case bson.D:
		return bson.TypeEmbeddedDocument, true
	case bson.A:
		return bson.TypeArray, true
	case int32:
		return bson.TypeInt32, true
	case int64:
		return bson.TypeInt64, true
	case bool:
		return bson.TypeBoolean, true
	case nil:
		return bson.TypeNull, true
	case bson.ObjectID:
		return bson.TypeObjectID, true
	case bson.DateTime:
		return bson.TypeDateTime, true
	case bson.Binary:
		return bson.TypeBinary, true
	case bson.Timestamp:
		return bson.TypeTimestamp, true
	case bson.Decimal128:
		return bson.TypeDecimal128, true
	case bson.Regex:
		return bson.TypeRegex, true
	case Missing:
		return TypeMissing, true
	}
	return rareType(v)
}

func rareType(v any) (_ bson.Type, ok bool) {
	switch v.(type) {
	case bson.MinKey:
		return bson.TypeMinKey, true
	case bson.MaxKey:
		return bson.TypeMaxKey, true
	case bson.Undefined:
		return bson.TypeUndefined, true
	case bson.Symbol:
		return bson.TypeSymbol, true
	case bson.JavaScript:
		return bson.TypeJavaScript, true
	case bson.CodeWithScope:
		return bson.TypeCodeWithScope, true
	case bson.DBPointer:
		return bson.TypeDBPointer, true
	}
	return 0, false
}

// IsNumber says whether v is of one of the four numeric types.
func IsNumber(v any) bool {
	switch v.(type) {
	case int32, int64, float64, bson.Decimal128:
		return true
	}
	return false
}

// rank is the place of a type in MongoDB's comparison order; types of one rank compare by value ("Comparison/Sort
// Order" in the manual).
func rank(t bson.Type) int {
	switch t {
	case bson.TypeMinKey:
		return -1
	case TypeMissing, bson.TypeUndefined:
		return 0
	case bson.TypeNull:
		return 5
	case bson.TypeDouble, bson.TypeInt32, bson.TypeInt64, bson.TypeDecimal128:
		return 10
	case bson.TypeString, bson.TypeSymbol:
		return 15
	case bson.TypeEmbeddedDocument:
		return 20
	case bson.TypeArray:
		return 25
	case bson.TypeBinary:
		return 30
	case bson.TypeObjectID:
		return 35
	case bson.TypeBoolean:
		return 40
	case bson.TypeDateTime:
		return 45
	case bson.TypeTimestamp:
		return 47
	case bson.TypeRegex:
		return 50
	case bson.TypeDBPointer:
		return 55
	case bson.TypeJavaScript:
		return 60
	case bson.TypeCodeWithScope:
		return 65
	}
	return 127 // MaxKey
}

// Rank is the place of v's type in MongoDB's comparison order: values of different rank never equal each other, and a
// query's $lt, $gt … only compare within a rank.
func Rank(v any) int { return rank(TypeOf(v)) }

// typeNames are the aliases of $type and the names in error messages.
func typeName(t bson.Type) string {
	switch t {
	case TypeMissing:
		return "missing"
	case bson.TypeDouble:
		return "double"
	case bson.TypeEmbeddedDocument:
		return "object"
	case bson.TypeBinary:
		return "binData"
	case bson.TypeObjectID:
		return "objectId"
	case bson.TypeBoolean:
		return "bool"
	case bson.TypeDateTime:
		return "date"
	case bson.TypeRegex:
		return "regex"
	case bson.TypeDBPointer:
		return "dbPointer"
	case bson.TypeJavaScript:
		return "javascript"
	case bson.TypeCodeWithScope:
		return "javascriptWithScope"
	case bson.TypeInt32:
		return "int"
	case bson.TypeInt64:
		return "long"
	case bson.TypeDecimal128:
		return "decimal"
	case bson.TypeMinKey:
		return "minKey"
	case bson.TypeMaxKey:
		return "maxKey"
	}
	return strings.ToLower(t.String()) // string, array, undefined, null, symbol, timestamp
}

// TypeName is MongoDB's alias for the type of v, "missing" for a field that is not there.
func TypeName(v any) string { return typeName(TypeOf(v)) }

// TypeByName is the type of an alias; "number" is not one type and not found here.
func TypeByName(name string) (bson.Type, bool) {
	for t := 1; t <= 255; t++ {
		if t := bson.Type(t); t.IsValid() && typeName(t) == name {
			return t, true
		}
	}
	return 0, false
}
