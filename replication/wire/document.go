package wire

import (
	"bytes"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// minDocumentBytes is an empty document: its length and the closing zero.
const minDocumentBytes = 5

// CheckDocument walks a document that came by another way than a message: its length must be exactly that of raw.
func CheckDocument(raw bson.Raw, l Limits) error {
	w := walker{b: raw, limits: l}
	end, err := w.document(0, len(raw))
	if err == nil && end != len(raw) {
		return malformed(end, "%d bytes behind the document", len(raw)-end)
	}
	return err
}

// walker proves that documents in b are well formed: every length lies inside what holds it, every type is known, every
// string ends with its zero.
type walker struct {
	b      []byte
	limits Limits
}

// document walks the one that starts at from and has to end by limit; it tells where it ends.
func (w *walker) document(from, limit int) (int, error) {
	return w.nested(from, limit, 1)
}

func (w *walker) nested(from, limit, depth int) (int, error) {
	if depth > w.limits.Depth {
		return 0, malformed(from, "nested deeper than %d", w.limits.Depth)
	}
	if limit-from < minDocumentBytes {
		return 0, malformed(from, "document cut off")
	}
	size := int(int32At(w.b, from))
	if size < minDocumentBytes || size > limit-from || size > w.limits.DocumentBytes {
		return 0, malformed(from, "document of %d bytes in %d, at most %d", size, limit-from, w.limits.DocumentBytes)
	}
	end := from + size
	at := from + 4
	for at < end-1 {
		kind := bson.Type(w.b[at])
		if kind == 0 {
			return 0, malformed(at, "document ends %d bytes early", end-1-at)
		}
		name := bytes.IndexByte(w.b[at+1:end-1], 0)
		if name < 0 {
			return 0, malformed(at, "field name without end")
		}
		next, err := w.value(kind, at+1+name+1, end-1, depth)
		if err != nil {
			return 0, err
		}
		at = next
	}
	if w.b[end-1] != 0 {
		return 0, malformed(end-1, "document without end")
	}
	return end, nil
}

// fixed is the size of each type that has one.
func fixed(kind bson.Type) (int, bool) {
	switch kind {
	case bson.TypeNull, bson.TypeUndefined, bson.TypeMinKey, bson.TypeMaxKey:
		return 0, true
	case bson.TypeBoolean:
		return 1, true
	case bson.TypeInt32:
		return 4, true
	case bson.TypeDouble, bson.TypeDateTime, bson.TypeTimestamp, bson.TypeInt64:
		return 8, true
	case bson.TypeObjectID:
		return 12, true
	case bson.TypeDecimal128:
		return 16, true
	}
	return 0, false
}

func (w *walker) value(kind bson.Type, at, limit, depth int) (int, error) {
	if size, ok := fixed(kind); ok {
		if size > limit-at {
			return 0, malformed(at, "value of type 0x%02x cut off", byte(kind))
		}
		if kind == bson.TypeBoolean && w.b[at] > 1 {
			return 0, malformed(at, "boolean %d", w.b[at])
		}
		return at + size, nil
	}
	switch kind {
	case bson.TypeString, bson.TypeJavaScript, bson.TypeSymbol:
		return w.text(at, limit)
	case bson.TypeEmbeddedDocument, bson.TypeArray:
		return w.nested(at, limit, depth+1)
	case bson.TypeBinary:
		return w.binary(at, limit)
	case bson.TypeRegex:
		pattern, err := w.cstring(at, limit)
		if err != nil {
			return 0, err
		}
		return w.cstring(pattern, limit)
	case bson.TypeDBPointer:
		end, err := w.text(at, limit)
		if err == nil && limit-end < 12 {
			return 0, malformed(end, "DBPointer cut off")
		}
		return end + 12, err
	case bson.TypeCodeWithScope:
		return w.codeWithScope(at, limit, depth)
	}
	return 0, malformed(at, "unknown type 0x%02x", byte(kind))
}

func (w *walker) text(at, limit int) (int, error) {
	if limit-at < 5 {
		return 0, malformed(at, "string cut off")
	}
	size := int(int32At(w.b, at))
	if size < 1 || size > limit-at-4 {
		return 0, malformed(at, "string of %d bytes in %d", size, limit-at-4)
	}
	end := at + 4 + size
	if w.b[end-1] != 0 {
		return 0, malformed(end-1, "string without end")
	}
	return end, nil
}

func (w *walker) cstring(at, limit int) (int, error) {
	end := bytes.IndexByte(w.b[at:limit], 0)
	if end < 0 {
		return 0, malformed(at, "string without end")
	}
	return at + end + 1, nil
}

// oldBinary has a second length inside (BSON binary subtype 2).
const oldBinary = 2

func (w *walker) binary(at, limit int) (int, error) {
	if limit-at < 5 {
		return 0, malformed(at, "binary cut off")
	}
	size := int(int32At(w.b, at))
	if size < 0 || size > limit-at-5 {
		return 0, malformed(at, "binary of %d bytes in %d", size, limit-at-5)
	}
	if w.b[at+4] == oldBinary && (size < 4 || int(int32At(w.b, at+5)) != size-4) {
		return 0, malformed(at+5, "lengths of an old binary differ")
	}
	return at + 5 + size, nil
}

func (w *walker) codeWithScope(at, limit, depth int) (int, error) {
	if limit-at < 4+5+minDocumentBytes {
		return 0, malformed(at, "code with scope cut off")
	}
	size := int(int32At(w.b, at))
	if size < 4+5+minDocumentBytes || size > limit-at {
		return 0, malformed(at, "code with scope of %d bytes in %d", size, limit-at)
	}
	code, err := w.text(at+4, at+size)
	if err != nil {
		return 0, err
	}
	end, err := w.nested(code, at+size, depth+1)
	if err == nil && end != at+size {
		return 0, malformed(end, "%d bytes behind a scope", at+size-end)
	}
	return end, err
}
