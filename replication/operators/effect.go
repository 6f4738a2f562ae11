package operators

import (
	"slices"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/bsonval"
)

// Kind is what an effect does at its path.
type Kind uint8

// The kinds of effects.
const (
	Set      Kind = iota + 1 // Value
	Unset                    // the field goes
	Inc                      // Value is added; a missing field becomes Value
	Min                      // Value, if less than what is there
	Max                      // Value, if greater than what is there
	Push                     // Values are inserted at Index of the array; a missing field becomes an array
	AddToSet                 // those of Values that no element equals are appended; a missing field becomes an array
	Pull                     // the elements at Indexes go; Values are what they were
	Pop                      // as Pull, the first or the last element
)

func (k Kind) String() string {
	names := [...]string{"", "set", "unset", "inc", "min", "max", "push", "addToSet", "pull", "pop"}
	if int(k) < len(names) {
		return names[k]
	}
	return "unknown"
}

// Effect is one thing an update does to a document, resolved where it was evaluated: no filter, no positional operator,
// no clock. The effects of an update applied in their order to the before-image give the after-image, but for the order
// of top-level fields after a replacement or a pipeline.
//
// Path goes through documents by name and through arrays by the index an element had at that moment; which components
// are indexes can be read off the document. It never goes through a scalar, and never past an array's end: what an
// update writes there is a Push with the padding.
//
// An update that changes nothing still has effects: a $set to the value that is there is a write that a concurrent one
// must be ordered against, a $max below the value is a bound that outlives it, an $unset of a missing field likewise.
// Only pulls and pops that find nothing have none.
type Effect struct {
	Kind    Kind
	Op      string // the operator as sent, "$mul"; "replace" and "pipeline" for those
	Path    []string
	Value   any
	Values  bson.A
	Index   int
	Indexes []int // ascending
	Coarse  bool  // the operator's meaning was lost in resolving it: concurrent ones do not merge
}

// Apply is the document after the effect.
func (e Effect) Apply(d bson.D) (bson.D, error) {
	switch e.Kind {
	case Set:
		return bsonval.Set(d, e.Path, e.Value)
	case Unset:
		return bsonval.Unset(d, e.Path), nil
	}
	was := bsonval.Get(d, e.Path)
	now, err := e.changed(was)
	if err != nil {
		return nil, err
	}
	return bsonval.Set(d, e.Path, now)
}

// ApplyEffects is the document after all of them, in order.
func ApplyEffects(d bson.D, effects []Effect) (_ bson.D, err error) {
	for _, e := range effects {
		if d, err = e.Apply(d); err != nil {
			return nil, err
		}
	}
	return d, nil
}

func (e Effect) changed(was any) (any, error) {
	_, missing := was.(bsonval.Missing)
	switch {
	case e.Kind == Inc && !missing:
		return bsonval.Add(was, e.Value)
	case e.Kind == Min && !missing && bsonval.Compare(was, e.Value) <= 0:
		return was, nil
	case e.Kind == Max && !missing && bsonval.Compare(was, e.Value) >= 0:
		return was, nil
	case e.Kind == Inc || e.Kind == Min || e.Kind == Max:
		return e.Value, nil
	}
	array, ok := was.(bson.A)
	if !ok && !missing {
		return nil, refuse("%s of a value of type %s", e.Kind, bsonval.TypeName(was))
	}
	return e.changedArray(array)
}

func (e Effect) changedArray(array bson.A) (any, error) {
	switch e.Kind {
	case Push:
		if e.Index < 0 || e.Index > len(array) {
			return nil, refuse("push at %d of an array of %d", e.Index, len(array))
		}
		out := make(bson.A, 0, len(array)+len(e.Values))
		return append(append(append(out, array[:e.Index]...), e.Values...), array[e.Index:]...), nil
	case AddToSet:
		return addMissing(array, e.Values), nil
	}
	return without(array, e.Indexes)
}

// fewElements is up to where comparing beats a map.
const fewElements = 16

func addMissing(array, values bson.A) bson.A {
	out := make(bson.A, len(array), len(array)+len(values))
	copy(out, array)
	if len(array)*len(values) <= fewElements {
		for _, v := range values {
			if !slices.ContainsFunc(out, func(e any) bool { return bsonval.Equal(e, v) }) {
				out = append(out, v)
			}
		}
		return out
	}
	seen := make(map[string]bool, len(array)+len(values))
	for _, e := range array {
		seen[string(bsonval.Canonical(e))] = true
	}
	for _, v := range values {
		if key := string(bsonval.Canonical(v)); !seen[key] {
			seen[key] = true
			out = append(out, v)
		}
	}
	return out
}

func without(array bson.A, indexes []int) (bson.A, error) {
	out := make(bson.A, 0, max(0, len(array)-len(indexes)))
	for i, e := range array {
		if len(indexes) > 0 && indexes[0] == i {
			indexes = indexes[1:]
			continue
		}
		out = append(out, e)
	}
	if len(indexes) > 0 {
		return nil, refuse("removal of element %d of an array of %d", indexes[0], len(array))
	}
	return out, nil
}
