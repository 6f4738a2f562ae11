package operators

import (
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/bsonval"
	"popfleet/replication/operators/expression"
)

func refuse(format string, args ...any) error {
	return bsonval.Errorf(bsonval.BadValue, format, args...)
}

func parseFilter(d bson.D) (node, error) {
	if err := bsonval.CheckDepth(d); err != nil {
		return nil, err
	}
	return parseConditions(d)
}

// parseConditions is a document of conditions, all of which must be met.
func parseConditions(d bson.D) (node, error) {
	all := make(allOf, 0, len(d))
	for _, e := range d {
		n, err := parseCondition(e)
		if err != nil {
			return nil, err
		}
		if n != nil {
			all = append(all, n)
		}
	}
	if len(all) == 1 {
		return all[0], nil
	}
	return all, nil
}

func parseCondition(e bson.E) (node, error) {
	if !strings.HasPrefix(e.Key, "$") {
		return parseField(e.Key, e.Value)
	}
	switch e.Key {
	case "$and":
		return parseList(e, func(n []node) node { return allOf(n) })
	case "$or":
		return parseList(e, func(n []node) node { return anyOf(n) })
	case "$nor":
		return parseList(e, func(n []node) node { return not{anyOf(n)} })
	case "$expr":
		expr, err := expression.Compile(e.Value)
		return computed{expr}, err
	case "$comment":
		return nil, nil
	case "$where", "$text", "$jsonSchema", "$alwaysTrue", "$alwaysFalse", "$sampleRate":
		return nil, refuse("top level operator %s is not supported", e.Key)
	}
	return nil, refuse("unknown top level operator: %s. If you have a field name that starts with a '$' symbol, consider using $getField or $setField.", e.Key)
}

func parseList(e bson.E, join func([]node) node) (node, error) {
	list, ok := e.Value.(bson.A)
	if !ok {
		return nil, refuse("%s must be an array", e.Key)
	}
	if len(list) == 0 {
		return nil, refuse("$and/$or/$nor must be a nonempty array")
	}
	nodes := make([]node, len(list))
	for i, v := range list {
		d, ok := v.(bson.D)
		if !ok {
			return nil, refuse("$or/$and/$nor entries need to be full objects")
		}
		n, err := parseConditions(d)
		if err != nil {
			return nil, err
		}
		nodes[i] = n
	}
	return join(nodes), nil
}

// isOperators says whether a condition's value is a document of operators rather than a document to be equal to. DBRefs
// are values.
func isOperators(v any) (bson.D, bool) {
	d, ok := v.(bson.D)
	if !ok || len(d) == 0 || !strings.HasPrefix(d[0].Key, "$") {
		return nil, false
	}
	switch d[0].Key {
	case "$ref", "$id", "$db":
		return nil, false
	}
	return d, true
}

func parseField(path string, v any) (node, error) {
	parts := bsonval.SplitPath(path)
	if ops, ok := isOperators(v); ok {
		return parseOperators(parts, ops)
	}
	if r, ok := v.(bson.Regex); ok {
		return regexField(parts, r.Pattern, r.Options)
	}
	return equality(parts, v)
}

func equality(path []string, v any) (node, error) {
	if _, ok := v.(bson.Undefined); ok {
		return nil, refuse("cannot compare to undefined")
	}
	return field{path: path, into: true, test: comparison{op: "$eq", with: v}}, nil
}

func parseOperators(path []string, ops bson.D) (node, error) {
	all := make(allOf, 0, len(ops))
	for _, op := range ops {
		n, err := parseOperator(path, op, ops)
		if err != nil {
			return nil, err
		}
		if n != nil {
			all = append(all, n)
		}
	}
	if len(all) == 1 {
		return all[0], nil
	}
	return all, nil
}

// parseOperator is one operator on a path; siblings are for $regex, which looks for its $options.
func parseOperator(path []string, op bson.E, siblings bson.D) (node, error) {
	switch op.Key {
	case "$eq":
		return equality(path, op.Value)
	case "$gt", "$gte", "$lt", "$lte":
		return parseComparison(path, op)
	case "$ne":
		return parseNotEqual(path, op.Value)
	case "$in":
		return parseIn(path, op)
	case "$nin":
		n, err := parseIn(path, op)
		return not{n}, err
	case "$not":
		return parseNot(path, op.Value)
	case "$exists":
		return parseExists(path, op.Value), nil
	case "$comment":
		return nil, nil
	}
	return parseRareOperator(path, op, siblings)
}

func parseRareOperator(path []string, op bson.E, siblings bson.D) (node, error) {
	switch op.Key {
	case "$type":
		return parseType(path, op.Value)
	case "$mod":
		return parseMod(path, op.Value)
	case "$regex":
		return parseRegex(path, op.Value, siblings)
	case "$options":
		if bsonval.Find(siblings, "$regex") < 0 {
			return nil, refuse("$options needs a $regex")
		}
		return nil, nil
	case "$size":
		return parseSize(path, op.Value)
	case "$all":
		return parseAll(path, op.Value)
	case "$elemMatch":
		return parseElemMatch(path, op.Value)
	case "$bitsAllSet", "$bitsAllClear", "$bitsAnySet", "$bitsAnyClear":
		return parseBits(path, op)
	case "$near", "$nearSphere", "$within", "$geoWithin", "$geoIntersects", "$geoNear", "$maxDistance", "$minDistance":
		return nil, refuse("operator %s is not supported", op.Key)
	}
	return nil, refuse("unknown operator: %s", op.Key)
}

func parseComparison(path []string, op bson.E) (node, error) {
	switch op.Value.(type) {
	case bson.Regex:
		return nil, refuse("Can't have RegEx as arg to predicate over field '%s'.", strings.Join(path, "."))
	case bson.Undefined:
		return nil, refuse("cannot compare to undefined")
	}
	return field{path: path, into: true, test: comparison{op: op.Key, with: op.Value}}, nil
}

func parseNotEqual(path []string, v any) (node, error) {
	if _, ok := v.(bson.Regex); ok {
		return nil, refuse("Can't have regex as arg to $ne.")
	}
	n, err := equality(path, v)
	return not{n}, err
}

func parseNot(path []string, v any) (node, error) {
	switch x := v.(type) {
	case bson.Regex:
		n, err := regexField(path, x.Pattern, x.Options)
		return not{n}, err
	case bson.D:
		if len(x) == 0 {
			return nil, refuse("$not argument must be a non-empty object")
		}
		n, err := parseOperators(path, x)
		return not{n}, err
	}
	return nil, refuse("$not needs a regex or a document")
}

func parseExists(path []string, v any) node {
	n := field{path: path, test: exists{}}
	if expression.Truthy(v) {
		return n
	}
	return not{n}
}

func parseAll(path []string, v any) (node, error) {
	list, ok := v.(bson.A)
	if !ok {
		return nil, refuse("$all needs an array")
	}
	if len(list) == 0 {
		return never{}, nil
	}
	all := make(allOf, len(list))
	elemMatch := isElemMatch(list[0])
	for i, v := range list {
		if isElemMatch(v) != elemMatch {
			return nil, refuse("no $ expressions in $all")
		}
		n, err := parseAllMember(path, v)
		if err != nil {
			return nil, err
		}
		all[i] = n
	}
	return all, nil
}

func isElemMatch(v any) bool {
	d, ok := v.(bson.D)
	return ok && len(d) > 0 && d[0].Key == "$elemMatch"
}

func parseAllMember(path []string, v any) (node, error) {
	if isElemMatch(v) {
		return parseElemMatch(path, v.(bson.D)[0].Value)
	}
	if _, ok := isOperators(v); ok {
		return nil, refuse("no $ expressions in $all")
	}
	if r, ok := v.(bson.Regex); ok {
		return regexField(path, r.Pattern, r.Options)
	}
	return equality(path, v)
}

// parseElemMatch tells the two forms apart by the first key: operators test the element itself, anything else tests
// the element as a document.
func parseElemMatch(path []string, v any) (node, error) {
	d, ok := v.(bson.D)
	if !ok {
		return nil, refuse("$elemMatch needs an Object")
	}
	_, operators := isOperators(d)
	if operators && d[0].Key != "$and" && d[0].Key != "$or" && d[0].Key != "$nor" && d[0].Key != "$expr" {
		n, err := parseOperators(nil, d)
		return field{path: path, test: elemMatch{values: true, of: n}}, err
	}
	n, err := parseConditions(d)
	return field{path: path, test: elemMatch{of: n}}, err
}
