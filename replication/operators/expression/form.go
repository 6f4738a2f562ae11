package expression

import (
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/bsonval"
)

// compileForm compiles the operators that decide themselves what is evaluated, and in which scope.
func compileForm(name string, argument any) (run eval, err error, ok bool) {
	switch name {
	case "$literal":
		return constant(argument), nil, true
	case "$and":
		run, err = compileJunction(argument, false)
	case "$or":
		run, err = compileJunction(argument, true)
	case "$cond":
		run, err = compileCond(argument)
	case "$ifNull":
		run, err = compileIfNull(argument)
	case "$switch":
		run, err = compileSwitch(argument)
	case "$let":
		run, err = compileLet(argument)
	case "$filter":
		run, err = compileFilter(argument)
	case "$map":
		run, err = compileMap(argument)
	case "$reduce":
		run, err = compileReduce(argument)
	case "$getField":
		run, err = compileGetField(argument)
	default:
		return nil, nil, false
	}
	return run, err, true
}

func arguments(v any) bson.A {
	if a, ok := v.(bson.A); ok {
		return a
	}
	return bson.A{v}
}

// compileJunction is $and (until one is false) and $or (until one is true).
func compileJunction(argument any, until bool) (eval, error) {
	all, err := compileAll(arguments(argument))
	return func(e *env) (any, error) {
		for _, run := range all {
			v, err := run(e)
			if err != nil {
				return nil, err
			}
			if Truthy(v) == until {
				return until, nil
			}
		}
		return !until, nil
	}, err
}

// named takes the fields of an operator's document; every key in required must be there, no key but those and the
// optional ones may be.
func named(name string, argument any, required []string, optional ...string) (map[string]eval, bson.D, error) {
	d, ok := argument.(bson.D)
	if !ok {
		return nil, nil, fail(bsonval.FailedToParse, "%s only supports an object as its argument", name)
	}
	out := map[string]eval{}
	for _, f := range d {
		if !contains(required, f.Key) && !contains(optional, f.Key) {
			return nil, nil, fail(bsonval.FailedToParse, "Unrecognized parameter to %s: %s", name, f.Key)
		}
		if f.Key == "as" || f.Key == "vars" || f.Key == "branches" {
			continue // names and lists, no expressions
		}
		run, err := compile(f.Value)
		if err != nil {
			return nil, nil, err
		}
		out[f.Key] = run
	}
	for _, key := range required {
		if bsonval.Find(d, key) < 0 {
			return nil, nil, fail(bsonval.FailedToParse, "Missing '%s' parameter to %s", key, name)
		}
	}
	return out, d, nil
}

func contains(list []string, s string) bool {
	for _, e := range list {
		if e == s {
			return true
		}
	}
	return false
}

func compileCond(argument any) (eval, error) {
	if list, ok := argument.(bson.A); ok {
		if len(list) != 3 {
			return nil, fail(16020, "Expression $cond takes exactly 3 arguments. %d were passed in.", len(list))
		}
		argument = bson.D{{Key: "if", Value: list[0]}, {Key: "then", Value: list[1]}, {Key: "else", Value: list[2]}}
	}
	parts, _, err := named("$cond", argument, []string{"if", "then", "else"})
	return func(e *env) (any, error) {
		v, err := parts["if"](e)
		if err != nil {
			return nil, err
		}
		if Truthy(v) {
			return parts["then"](e)
		}
		return parts["else"](e)
	}, err
}

func compileIfNull(argument any) (eval, error) {
	list, ok := argument.(bson.A)
	if !ok || len(list) < 2 {
		return nil, fail(1257300, "$ifNull needs at least two arguments")
	}
	all, err := compileAll(list)
	return func(e *env) (any, error) {
		for _, run := range all[:len(all)-1] {
			if v, err := run(e); err != nil || !nullish(v) {
				return v, err
			}
		}
		return all[len(all)-1](e)
	}, err
}

type branch struct{ when, then eval }

func compileSwitch(argument any) (eval, error) {
	parts, d, err := named("$switch", argument, []string{"branches"}, "default")
	if err != nil {
		return nil, err
	}
	list, ok := bsonval.Field(d, "branches").(bson.A)
	if !ok || len(list) == 0 {
		return nil, fail(40068, "$switch requires at least one branch.")
	}
	branches := make([]branch, len(list))
	for i, v := range list {
		b, _, err := named("$switch", v, []string{"case", "then"})
		if err != nil {
			return nil, err
		}
		branches[i] = branch{b["case"], b["then"]}
	}
	return func(e *env) (any, error) { return choose(e, branches, parts["default"]) }, nil
}

func choose(e *env, branches []branch, otherwise eval) (any, error) {
	for _, b := range branches {
		v, err := b.when(e)
		if err != nil {
			return nil, err
		}
		if Truthy(v) {
			return b.then(e)
		}
	}
	if otherwise == nil {
		return nil, fail(40066, "$switch could not find a matching branch for an input, and no default was specified.")
	}
	return otherwise(e)
}

// checkVariable holds the server's rule for names that users give: they begin with a lower-case letter (CURRENT may be
// bound too, which is not supported here).
func checkVariable(name string) error {
	if name == "" || strings.ContainsAny(name, "$.") || name[0] < 'a' || name[0] > 'z' {
		return fail(16868, "'%s' starts with an invalid character for a user variable name", name)
	}
	return nil
}

func compileLet(argument any) (eval, error) {
	parts, d, err := named("$let", argument, []string{"vars", "in"})
	if err != nil {
		return nil, err
	}
	vars, ok := bsonval.Field(d, "vars").(bson.D)
	if !ok {
		return nil, fail(10065, "invalid parameter: expected an object (vars)")
	}
	values := make([]eval, len(vars))
	for i, f := range vars {
		if err := checkVariable(f.Key); err != nil {
			return nil, err
		}
		if values[i], err = compile(f.Value); err != nil {
			return nil, err
		}
	}
	return func(e *env) (any, error) {
		inner := e
		for i, f := range vars {
			v, err := values[i](e) // in the outer scope
			if err != nil {
				return nil, err
			}
			inner = inner.with(f.Key, v)
		}
		return parts["in"](inner)
	}, nil
}

// element is the name $filter and $map bind each element to.
func element(d bson.D) (string, error) {
	if bsonval.Find(d, "as") < 0 {
		return "this", nil
	}
	name, _ := bsonval.Field(d, "as").(string)
	return name, checkVariable(name)
}

func compileFilter(argument any) (eval, error) {
	parts, d, err := named("$filter", argument, []string{"input", "cond"}, "as", "limit")
	if err != nil {
		return nil, err
	}
	as, err := element(d)
	return func(e *env) (any, error) {
		list, limit, err := filterInput(e, parts)
		if err != nil || list == nil {
			return nil, err
		}
		out := bson.A{}
		for _, v := range list {
			if int64(len(out)) == limit {
				break
			}
			keep, err := parts["cond"](e.with(as, v))
			if err != nil {
				return nil, err
			}
			if Truthy(keep) {
				out = append(out, v)
			}
		}
		return out, nil
	}, err
}

// filterInput is the array, nil for a null one, and how many elements are wanted, -1 for all.
func filterInput(e *env, parts map[string]eval) (bson.A, int64, error) {
	list, err := inputArray(e, parts["input"], "$filter", 28651)
	if err != nil || parts["limit"] == nil {
		return list, -1, err
	}
	v, err := parts["limit"](e)
	if err != nil || nullish(v) {
		return list, -1, err
	}
	n, ok := bsonval.ToExactInt64(v)
	if !ok || n < 1 {
		return nil, 0, fail(327392, "$filter: limit must be greater than 0: %v", v)
	}
	return list, n, nil
}

// inputArray evaluates an operand that must be an array; null, missing and undefined give nil.
func inputArray(e *env, run eval, name string, code bsonval.Code) (bson.A, error) {
	v, err := run(e)
	if err != nil || nullish(v) {
		return nil, err
	}
	a, ok := v.(bson.A)
	if !ok {
		return nil, fail(code, "input to %s must be an array not %s", name, bsonval.TypeName(v))
	}
	return a, nil
}

func compileMap(argument any) (eval, error) {
	parts, d, err := named("$map", argument, []string{"input", "in"}, "as")
	if err != nil {
		return nil, err
	}
	as, err := element(d)
	return func(e *env) (any, error) {
		list, err := inputArray(e, parts["input"], "$map", 16883)
		if err != nil || list == nil {
			return nil, err
		}
		out := make(bson.A, len(list))
		for i, v := range list {
			r, err := parts["in"](e.with(as, v))
			if err != nil {
				return nil, err
			}
			if !isMissing(r) {
				out[i] = r
			}
		}
		return out, nil
	}, err
}

func compileReduce(argument any) (eval, error) {
	parts, _, err := named("$reduce", argument, []string{"input", "initialValue", "in"})
	return func(e *env) (any, error) {
		list, err := inputArray(e, parts["input"], "$reduce", 40080)
		if err != nil || list == nil {
			return nil, err
		}
		value, err := parts["initialValue"](e)
		for _, v := range list {
			if err != nil {
				return nil, err
			}
			value, err = parts["in"](e.with("this", v).with("value", value))
		}
		return value, err
	}, err
}

// compileGetField reads a field whose name may hold dots or begin with $.
func compileGetField(argument any) (eval, error) {
	d, ok := argument.(bson.D)
	if !ok || bsonval.Find(d, "field") < 0 {
		d = bson.D{{Key: "field", Value: argument}, {Key: "input", Value: "$$CURRENT"}}
	}
	parts, _, err := named("$getField", d, []string{"field", "input"})
	return func(e *env) (any, error) {
		name, err := parts["field"](e)
		if err != nil {
			return nil, err
		}
		key, ok := name.(string)
		if !ok {
			return nil, fail(3041704, "$getField requires 'field' to evaluate to type String, but got %s", bsonval.TypeName(name))
		}
		v, err := parts["input"](e)
		if err != nil || v == nil {
			return nil, err
		}
		in, _ := v.(bson.D)
		return bsonval.Field(in, key), nil
	}, err
}
