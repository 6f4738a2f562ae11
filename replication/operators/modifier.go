package operators

import (
	"slices"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/bsonval"
)

// modifier is one operator on one path.
type modifier struct {
	op    string
	path  []string
	apply action
}

// action does an operator at a concrete path.
type action func(c *change, path []string) error

func compileModifiers(d bson.D, filters map[string]node) (*Update, error) {
	u := &Update{filters: filters}
	for _, e := range d {
		if err := u.addOperator(e); err != nil {
			return nil, err
		}
	}
	if err := checkIdentifiers(u.modifiers, filters); err != nil {
		return nil, err
	}
	slices.SortStableFunc(u.modifiers, func(a, b modifier) int { return comparePaths(a.path, b.path) })
	if err := checkConflicts(u.modifiers); err != nil {
		return nil, err
	}
	u.dynamic = slices.ContainsFunc(u.modifiers, func(m modifier) bool { return isDynamic(m.path) })
	if u.dynamic {
		return u, checkMixed(u.modifiers)
	}
	return u, nil
}

func (u *Update) addOperator(e bson.E) error {
	parse, known := parserOf(e.Key)
	if !known {
		return bsonval.Errorf(bsonval.FailedToParse, "Unknown modifier: %s. Expected a valid update modifier or pipeline-style update specified as an array", e.Key)
	}
	fields, ok := e.Value.(bson.D)
	if !ok {
		return bsonval.Errorf(bsonval.FailedToParse, "Modifiers operate on fields but we found type %s instead. For example: {$mod: {<field>: ...}} not {%s: ...}", bsonval.TypeName(e.Value), e.Key)
	}
	for _, f := range fields {
		path := bsonval.SplitPath(f.Key)
		if err := checkUpdatePath(f.Key, path); err != nil {
			return err
		}
		if e.Key == "$rename" {
			if err := u.addRename(f.Key, path, f.Value); err != nil {
				return err
			}
			continue
		}
		apply, err := parse(f.Key, f.Value)
		if err != nil {
			return err
		}
		u.modifiers = append(u.modifiers, modifier{op: e.Key, path: path, apply: apply})
	}
	return nil
}

// parserOf finds what compiles an operator's argument for one field.
func parserOf(op string) (func(name string, v any) (action, error), bool) {
	switch op {
	case "$set":
		return parseSet, true
	case "$setOnInsert":
		return parseSetOnInsert, true
	case "$unset":
		return parseUnset, true
	case "$inc":
		return parseInc, true
	case "$mul":
		return parseMul, true
	case "$min":
		return parseBound(Min), true
	case "$max":
		return parseBound(Max), true
	case "$currentDate":
		return parseCurrentDate, true
	case "$bit":
		return parseBit, true
	case "$push":
		return parsePush, true
	case "$addToSet":
		return parseAddToSet, true
	case "$pop":
		return parsePop, true
	case "$pull":
		return parsePull, true
	case "$pullAll":
		return parsePullAll, true
	case "$rename":
		return nil, true
	}
	return nil, false
}

func parseSet(_ string, v any) (action, error) {
	return func(c *change, path []string) error {
		if _, err := c.at(path); err != nil {
			return err
		}
		return c.emit(Effect{Kind: Set, Path: path, Value: v})
	}, nil
}

func parseSetOnInsert(name string, v any) (action, error) {
	set, err := parseSet(name, v)
	return func(c *change, path []string) error {
		if !c.in.Insert {
			return nil
		}
		return set(c, path)
	}, err
}

// parseUnset: a field goes, an array's element becomes null.
func parseUnset(string, any) (action, error) {
	return func(c *change, path []string) error {
		v, err := c.at(path)
		if err != nil {
			return nil // the server lets an $unset pass where nothing can be
		}
		if _, missing := v.(bsonval.Missing); missing && c.throughArray(path) {
			return nil // past an array's end there is nothing to remember
		}
		if _, inArray := bsonval.Get(c.doc, path[:len(path)-1]).(bson.A); inArray {
			return c.emit(Effect{Kind: Set, Path: path})
		}
		return c.emit(Effect{Kind: Unset, Path: path})
	}, nil
}

func (c *change) throughArray(path []string) bool {
	for i := 1; i < len(path); i++ {
		if _, ok := bsonval.Get(c.doc, path[:i]).(bson.A); ok {
			return true
		}
	}
	return false
}

func parseInc(name string, by any) (action, error) {
	if !bsonval.IsNumber(by) {
		return nil, bsonval.Errorf(bsonval.TypeMismatch, "Cannot increment with non-numeric argument: {%s: %v}", name, by)
	}
	return func(c *change, path []string) error {
		if _, _, err := c.number(path, bsonval.Add, by); err != nil {
			return err
		}
		return c.emit(Effect{Kind: Inc, Path: path, Value: by})
	}, nil
}

func parseMul(name string, by any) (action, error) {
	if !bsonval.IsNumber(by) {
		return nil, bsonval.Errorf(bsonval.TypeMismatch, "Cannot multiply with non-numeric argument: {%s: %v}", name, by)
	}
	return func(c *change, path []string) error {
		product, _, err := c.number(path, bsonval.Mul, by)
		if err != nil {
			return err
		}
		return c.emit(Effect{Kind: Set, Path: path, Value: product, Coarse: true})
	}, nil
}

// number is what an arithmetic operator makes of the number at path, a missing one being zero.
func (c *change) number(path []string, op func(a, b any) (any, error), by any) (result, was any, err error) {
	was, err = c.at(path)
	if err != nil {
		return nil, nil, err
	}
	if _, missing := was.(bsonval.Missing); missing {
		was = int32(0)
	}
	if !bsonval.IsNumber(was) {
		return nil, nil, bsonval.Errorf(bsonval.TypeMismatch, "Cannot apply %s to a value of non-numeric type. {_id: %v} has the field '%s' of non-numeric type %s",
			c.op, bsonval.Field(c.doc, "_id"), path[len(path)-1], bsonval.TypeName(was))
	}
	result, err = op(was, by)
	if err != nil {
		return nil, nil, refuse("Failed to apply %s operations to current value (%v) for document {_id: %v}: %v", c.op, was, bsonval.Field(c.doc, "_id"), err)
	}
	return result, was, nil
}

func parseBound(kind Kind) func(string, any) (action, error) {
	return func(_ string, v any) (action, error) {
		return func(c *change, path []string) error {
			if _, err := c.at(path); err != nil {
				return err
			}
			return c.emit(Effect{Kind: kind, Path: path, Value: v})
		}, nil
	}
}

func parseCurrentDate(name string, v any) (action, error) {
	kind := "date"
	if d, ok := v.(bson.D); ok && len(d) == 1 && d[0].Key == "$type" {
		kind, _ = d[0].Value.(string)
	} else if _, ok := v.(bool); !ok {
		return nil, refuse("%s is not valid type for $currentDate. Please use a boolean ('true') or a $type expression ({$type: 'timestamp/date'}).", bsonval.TypeName(v))
	}
	if kind != "date" && kind != "timestamp" {
		return nil, refuse("The '$type' string field is required to be 'date' or 'timestamp': {$currentDate: {%s: ...}}", name)
	}
	return func(c *change, path []string) error {
		if _, err := c.at(path); err != nil {
			return err
		}
		var now any = bson.NewDateTimeFromTime(c.in.Now)
		if kind == "timestamp" {
			now = c.in.timestamp()
		}
		return c.emit(Effect{Kind: Set, Path: path, Value: now, Coarse: true})
	}, nil
}

func (in ApplyInput) timestamp() bson.Timestamp {
	if in.Timestamp.IsZero() {
		return bson.Timestamp{T: uint32(in.Now.Unix()), I: 1}
	}
	return in.Timestamp
}

// bitStep is one of and, or, xor with its operand.
type bitStep struct {
	name string
	by   any
}

func parseBit(name string, v any) (action, error) {
	d, ok := v.(bson.D)
	if !ok {
		return nil, refuse("The $bit modifier is not compatible with a %s. You must pass in an embedded document: {$bit: {field: {and/or/xor: #}}", bsonval.TypeName(v))
	}
	if len(d) == 0 {
		return nil, refuse("You must pass in at least one bitwise operation. The format is: {$bit: {field: {and/or/xor: #}}")
	}
	var steps []bitStep
	for _, e := range d {
		if e.Key != "and" && e.Key != "or" && e.Key != "xor" {
			return nil, refuse("The $bit modifier only supports 'and', 'or', and 'xor', not '%s' which is an unknown operator: {%s: ...}", e.Key, name)
		}
		if !isInteger(e.Value) {
			return nil, refuse("The $bit modifier field must be an Integer(32/64 bit); a '%s' is not supported here: {%s: ...}", bsonval.TypeName(e.Value), e.Key)
		}
		steps = append(steps, bitStep{e.Key, e.Value})
	}
	return func(c *change, path []string) error { return c.bit(path, steps) }, nil
}

func isInteger(v any) bool {
	switch v.(type) {
	case int32, int64:
		return true
	}
	return false
}

func (c *change) bit(path []string, steps []bitStep) error {
	v, err := c.at(path)
	if err != nil {
		return err
	}
	if _, missing := v.(bsonval.Missing); missing {
		v = int32(0)
	}
	if !isInteger(v) {
		return refuse("Cannot apply $bit to a value of non-integral type. {_id: %v} has the field %s of non-integer type %s",
			bsonval.Field(c.doc, "_id"), path[len(path)-1], bsonval.TypeName(v))
	}
	for _, s := range steps {
		v = s.apply(v)
	}
	return c.emit(Effect{Kind: Set, Path: path, Value: v, Coarse: true})
}

func (s bitStep) apply(v any) any {
	a, aShort := v.(int32)
	b, bShort := s.by.(int32)
	if aShort && bShort {
		return int32(bitwise(s.name, int64(a), int64(b)))
	}
	x, _ := bsonval.ToInt64(v)
	y, _ := bsonval.ToInt64(s.by)
	return bitwise(s.name, x, y)
}

func bitwise(name string, a, b int64) int64 {
	switch name {
	case "and":
		return a & b
	case "or":
		return a | b
	}
	return a ^ b
}

// addRename adds two modifiers, so that both paths take part in conflicts: the one on the source does the work.
func (u *Update) addRename(name string, from []string, v any) error {
	to, ok := v.(string)
	if !ok {
		return refuse("The 'to' field for $rename must be a string: %s: %v", name, v)
	}
	target := bsonval.SplitPath(to)
	if err := checkUpdatePath(to, target); err != nil {
		return err
	}
	switch {
	case isDynamic(from):
		return refuse("The source field for $rename may not be dynamic: %s", name)
	case isDynamic(target):
		return refuse("The destination field for $rename may not be dynamic: %s", to)
	case name == to:
		return refuse("The source and target field for $rename must differ: %s: %q", name, to)
	}
	u.modifiers = append(u.modifiers,
		modifier{op: "$rename", path: from, apply: func(c *change, path []string) error { return c.rename(path, target) }},
		modifier{op: "$rename", path: target, apply: func(*change, []string) error { return nil }})
	return nil
}

func (c *change) rename(from, to []string) error {
	v, err := c.at(from)
	if _, missing := v.(bsonval.Missing); missing || err != nil {
		return nil // nothing there: nothing to do, as the server has it
	}
	if err := c.checkRenamePath("source", from); err != nil {
		return err
	}
	if err := c.checkRenamePath("destination", to); err != nil {
		return err
	}
	if _, err := c.at(to); err != nil {
		return err
	}
	if err := c.emit(Effect{Kind: Set, Path: to, Value: v, Coarse: true}); err != nil {
		return err
	}
	return c.emit(Effect{Kind: Unset, Path: from, Coarse: true})
}

func (c *change) checkRenamePath(role string, path []string) error {
	for i := 1; i < len(path); i++ {
		if _, ok := bsonval.Get(c.doc, path[:i]).(bson.A); ok {
			return refuse("The %s field cannot be an array element, '%s' in doc with _id: %v has an array field called '%s'",
				role, strings.Join(path, "."), bsonval.Field(c.doc, "_id"), path[i-1])
		}
	}
	return nil
}
