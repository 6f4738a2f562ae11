package operators

import (
	"slices"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/bsonval"
	"popfleet/replication/operators/expression"
)

// array is the array at path: nil and not found if nothing is there, an error of the given code if something else is.
func (c *change) array(path []string, code bsonval.Code) (a bson.A, found bool, err error) {
	v, err := c.at(path)
	if err != nil {
		return nil, false, err
	}
	if _, missing := v.(bsonval.Missing); missing {
		return nil, false, nil
	}
	a, ok := v.(bson.A)
	if !ok {
		return nil, false, bsonval.Errorf(code, "Cannot apply %s to a non-array value: the field '%s' is of type %s in document {_id: %v}",
			c.op, strings.Join(path, "."), bsonval.TypeName(v), bsonval.Field(c.doc, "_id"))
	}
	return a, true, nil
}

// push is a compiled $push.
type push struct {
	values   bson.A
	position *int64
	slice    *int64
	less     func(a, b any) int // nil: no $sort
}

func parsePush(_ string, v any) (action, error) {
	d, ok := v.(bson.D)
	if !ok || bsonval.Find(d, "$each") < 0 {
		return push{values: bson.A{v}}.apply, nil
	}
	var p push
	for i, e := range d {
		if bsonval.Find(d, e.Key) != i {
			return nil, refuse("Only one %s is supported.", e.Key)
		}
		if err := p.clause(e); err != nil {
			return nil, err
		}
	}
	return p.apply, nil
}

func (p *push) clause(e bson.E) (err error) {
	switch e.Key {
	case "$each":
		a, ok := e.Value.(bson.A)
		if !ok {
			return refuse("The argument to $each in $push must be an array but it was of type: %s", bsonval.TypeName(e.Value))
		}
		p.values = a
	case "$slice":
		p.slice, err = wholeClause(e)
	case "$position":
		p.position, err = wholeClause(e)
	case "$sort":
		p.less, err = parsePushSort(e.Value)
	default:
		return refuse("Unrecognized clause in $push: %s", e.Key)
	}
	return err
}

func wholeClause(e bson.E) (*int64, error) {
	n, ok := bsonval.ToExactInt64(e.Value)
	if !ok {
		return nil, refuse("The value for %s must be an integer value but was given type: %s", e.Key, bsonval.TypeName(e.Value))
	}
	return &n, nil
}

// parsePushSort compares whole elements (1, -1) or fields of elements that are documents; an element without the field
// counts as null there. Arrays inside elements are not searched.
func parsePushSort(v any) (func(a, b any) int, error) {
	if bsonval.IsNumber(v) {
		sign, err := direction(v)
		return func(a, b any) int { return sign * bsonval.Compare(a, b) }, err
	}
	d, ok := v.(bson.D)
	if !ok {
		return nil, refuse("The $sort is invalid: use 1/-1 to sort the whole element, or {field:1/-1} to sort embedded fields")
	}
	if len(d) == 0 {
		return nil, refuse("The $sort pattern is empty when it should be a set of fields.")
	}
	keys := make([]sortKey, len(d))
	for i, e := range d {
		sign, err := direction(e.Value)
		if err != nil {
			return nil, err
		}
		keys[i] = sortKey{path: bsonval.SplitPath(e.Key), sign: sign}
		if slices.Contains(keys[i].path, "") {
			return nil, refuse("The $sort field is a dotted field but has an empty part: %s", e.Key)
		}
	}
	return func(a, b any) int { return compareElements(keys, a, b) }, nil
}

func direction(v any) (int, error) {
	if n, ok := bsonval.ToExactInt64(v); ok && (n == 1 || n == -1) {
		return int(n), nil
	}
	return 0, refuse("The $sort element value must be either 1 or -1")
}

func compareElements(keys []sortKey, a, b any) int {
	for _, k := range keys {
		if c := k.sign * bsonval.Compare(elementKey(a, k.path), elementKey(b, k.path)); c != 0 {
			return c
		}
	}
	return 0
}

func elementKey(v any, path []string) any {
	d, _ := v.(bson.D)
	key := bsonval.Get(d, path)
	if _, missing := key.(bsonval.Missing); missing {
		return nil
	}
	return key
}

func (p push) apply(c *change, path []string) error {
	array, _, err := c.array(path, bsonval.BadValue)
	if err != nil {
		return err
	}
	at := p.index(len(array))
	if p.less == nil {
		err = c.emit(Effect{Kind: Push, Path: path, Values: p.values, Index: at})
	} else {
		err = p.insertSorted(c, path, array, at)
	}
	if err != nil || p.slice == nil {
		return err
	}
	return p.cut(c, path)
}

func (p push) index(length int) int {
	switch n := int64(length); {
	case p.position == nil || *p.position >= n:
		return length
	case *p.position >= 0:
		return int(*p.position)
	default:
		return int(n + max(*p.position, -n))
	}
}

// insertSorted inserts the new elements where the order puts them. As long as the old ones keep their order among
// themselves, that is all; otherwise the array is set as a whole.
func (p push) insertSorted(c *change, path []string, array bson.A, at int) error {
	merged := slices.Insert(slices.Clone(array), at, p.values...)
	order := make([]int, len(merged))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int { return p.less(merged[i], merged[j]) })
	last := -1
	var inserts []Effect
	for i, from := range order {
		if from >= at && from < at+len(p.values) {
			inserts = append(inserts, Effect{Kind: Push, Path: path, Values: bson.A{merged[from]}, Index: i})
			continue
		}
		if from < last {
			return c.emit(Effect{Kind: Set, Path: path, Value: permuted(merged, order), Coarse: true})
		}
		last = from
	}
	if inserts == nil {
		inserts = []Effect{{Kind: Push, Path: path}} // makes the array, if it is missing
	}
	for _, e := range inserts {
		if err := c.emit(e); err != nil {
			return err
		}
	}
	return nil
}

func permuted(a bson.A, order []int) bson.A {
	out := make(bson.A, len(a))
	for i, from := range order {
		out[i] = a[from]
	}
	return out
}

// cut removes what $slice leaves out: all but the first n, or but the last -n.
func (p push) cut(c *change, path []string) error {
	array, _, err := c.array(path, bsonval.BadValue)
	if err != nil {
		return err
	}
	kept := len(expression.Slice(array, *p.slice))
	from, to := kept, len(array)
	if *p.slice < 0 {
		from, to = 0, len(array)-kept
	}
	return c.remove(Pull, path, array, func(i int, _ any) bool { return i >= from && i < to })
}

// remove emits the removal of the elements for which gone holds, if there are any.
func (c *change) remove(kind Kind, path []string, array bson.A, gone func(i int, v any) bool) error {
	e := Effect{Kind: kind, Path: path}
	for i, v := range array {
		if gone(i, v) {
			e.Indexes, e.Values = append(e.Indexes, i), append(e.Values, v)
		}
	}
	if e.Indexes == nil {
		return nil
	}
	return c.emit(e)
}

func parseAddToSet(name string, v any) (action, error) {
	values := bson.A{v}
	if d, ok := v.(bson.D); ok && len(d) > 0 && d[0].Key == "$each" {
		each, ok := d[0].Value.(bson.A)
		if !ok {
			return nil, bsonval.Errorf(bsonval.TypeMismatch, "The argument to $each in $addToSet must be an array but it was of type %s", bsonval.TypeName(d[0].Value))
		}
		if len(d) > 1 {
			return nil, refuse("Found unexpected fields after $each in $addToSet: {%s: ...}", name)
		}
		values = each
	}
	values = addMissing(nil, values) // once each
	return func(c *change, path []string) error {
		if _, _, err := c.array(path, bsonval.BadValue); err != nil {
			return err
		}
		return c.emit(Effect{Kind: AddToSet, Path: path, Values: values})
	}, nil
}

func parsePop(name string, v any) (action, error) {
	n, ok := bsonval.ToExactInt64(v)
	if !ok || n != 1 && n != -1 {
		return nil, bsonval.Errorf(bsonval.FailedToParse, "$pop expects 1 or -1, found: {%s: %v}", name, v)
	}
	return func(c *change, path []string) error {
		array, _, err := c.array(path, bsonval.TypeMismatch)
		if err != nil {
			return err
		}
		at := 0
		if n > 0 {
			at = len(array) - 1
		}
		return c.remove(Pop, path, array, func(i int, _ any) bool { return i == at })
	}, nil
}

func parsePullAll(_ string, v any) (action, error) {
	list, ok := v.(bson.A)
	if !ok {
		return nil, refuse("$pullAll requires an array argument but was given a %s", bsonval.TypeName(v))
	}
	gone := make(map[string]bool, len(list))
	for _, v := range list {
		gone[string(bsonval.Canonical(v))] = true
	}
	return pulling(func(_ *evaluation, e any) bool { return gone[string(bsonval.Canonical(e))] }), nil
}

// parsePull: a document is a filter for elements that are documents, or, if it begins with an operator, a condition on
// the element itself; a regular expression is a condition too; anything else must equal the element as a whole.
func parsePull(_ string, v any) (action, error) {
	if d, ok := v.(bson.D); ok {
		if len(d) == 0 || !isPathOperator(d[0].Key) {
			return pullDocuments(d)
		}
		n, err := parseOperators([]string{""}, d)
		return pullWrapped(n), err
	}
	if r, ok := v.(bson.Regex); ok {
		n, err := regexField([]string{""}, r.Pattern, r.Options)
		return pullWrapped(n), err
	}
	return pulling(func(_ *evaluation, e any) bool { return bsonval.Equal(e, v) }), nil
}

func isPathOperator(key string) bool {
	switch key {
	case "$and", "$or", "$nor", "$expr", "$comment", "$ref", "$id", "$db":
		return false
	}
	return strings.HasPrefix(key, "$")
}

func pullDocuments(d bson.D) (action, error) {
	n, err := parseConditions(d)
	return pulling(func(run *evaluation, e any) bool {
		doc, ok := e.(bson.D)
		return ok && n.match(run, doc)
	}), err
}

func pullWrapped(n node) action {
	return pulling(func(run *evaluation, e any) bool { return n.match(run, bson.D{{Key: "", Value: e}}) })
}

func pulling(gone func(run *evaluation, e any) bool) action {
	return func(c *change, path []string) error {
		array, _, err := c.array(path, bsonval.BadValue)
		if err != nil {
			return err
		}
		run := &evaluation{vars: Variables{Now: c.in.Now, Let: c.in.Let}}
		if err := c.remove(Pull, path, array, func(_ int, e any) bool { return gone(run, e) }); err != nil {
			return err
		}
		return run.err
	}
}
