package expression

import (
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/bsonval"
)

// Scope is what an expression can see.
type Scope struct {
	Root bson.D
	Now  time.Time // $$NOW
	Let  bson.D    // a command's let: $$name
}

// Expr is a compiled expression.
type Expr struct{ run eval }

// Eval computes the value; bsonval.Missing{} if the expression names what is not there, or $$REMOVE.
func (e *Expr) Eval(s Scope) (any, error) {
	v, err := e.run(&env{root: s.Root, current: s.Root, now: s.Now, outer: s.Let})
	if err != nil {
		return nil, err
	}
	if err := bsonval.CheckDepth(v); err != nil {
		return nil, err
	}
	return v, nil
}

// Compile compiles an expression.
func Compile(v any) (*Expr, error) {
	if err := bsonval.CheckDepth(v); err != nil {
		return nil, err
	}
	run, err := compile(v)
	if err != nil {
		return nil, err
	}
	return &Expr{run}, nil
}

// eval computes one node.
type eval func(*env) (any, error)

// env is the state of an evaluation: the document and the variables bound so far, innermost first.
type env struct {
	root    bson.D
	current any
	now     time.Time
	outer   bson.D
	bound   *binding
}

type binding struct {
	name  string
	value any
	next  *binding
}

func (e *env) with(name string, value any) *env {
	inner := *e
	inner.bound = &binding{name, value, e.bound}
	return &inner
}

func (e *env) lookup(name string) (any, bool) {
	for b := e.bound; b != nil; b = b.next {
		if b.name == name {
			return b.value, true
		}
	}
	switch name {
	case "ROOT":
		return e.root, true
	case "CURRENT":
		return e.current, true
	case "NOW":
		return bson.NewDateTimeFromTime(e.now), true
	case "REMOVE":
		return bsonval.Missing{}, true
	}
	if i := bsonval.Find(e.outer, name); i >= 0 {
		return e.outer[i].Value, true
	}
	return nil, false
}

func constant(v any) eval { return func(*env) (any, error) { return v, nil } }

func compile(v any) (eval, error) {
	switch x := v.(type) {
	case string:
		if strings.HasPrefix(x, "$") {
			return compilePath(x)
		}
	case bson.D:
		return compileDocument(x)
	case bson.A:
		return compileArray(x)
	}
	return constant(v), nil
}

// compilePath is $a.b, or $$variable.a.b.
func compilePath(s string) (eval, error) {
	name, isVariable := strings.CutPrefix(s, "$$")
	if !isVariable {
		path := bsonval.SplitPath(s[1:])
		if err := checkPath(path); err != nil {
			return nil, err
		}
		return func(e *env) (any, error) { return follow(e.current, path), nil }, nil
	}
	parts := bsonval.SplitPath(name)
	if err := checkPath(parts); err != nil {
		return nil, err
	}
	return func(e *env) (any, error) {
		v, ok := e.lookup(parts[0])
		if !ok {
			return nil, fail(17276, "Use of undefined variable: %s", parts[0])
		}
		return follow(v, parts[1:]), nil
	}, nil
}

func checkPath(path []string) error {
	for _, p := range path {
		switch {
		case p == "":
			return fail(15998, "FieldPath field names may not be empty strings.")
		case strings.HasPrefix(p, "$"):
			return fail(16410, "FieldPath field names may not start with '$'. Consider using $getField or $setField.")
		}
	}
	return nil
}

// follow is what an expression's path leads to: below an array, the values in each of its documents; unlike in a
// query, a number names no element.
func follow(v any, path []string) any {
	if len(path) == 0 {
		return v
	}
	switch x := v.(type) {
	case bson.D:
		return follow(bsonval.Field(x, path[0]), path[1:])
	case bson.A:
		out := bson.A{}
		for _, e := range x {
			if _, ok := e.(bson.D); !ok {
				continue
			}
			if r := follow(e, path); !isMissing(r) {
				out = append(out, r)
			}
		}
		return out
	}
	return bsonval.Missing{}
}

func isMissing(v any) bool {
	_, ok := v.(bsonval.Missing)
	return ok
}

// nullish is null, undefined and missing: most operators answer null to them.
func nullish(v any) bool {
	switch v.(type) {
	case nil, bson.Undefined, bsonval.Missing:
		return true
	}
	return false
}

// Truthy is how an expression, and $exists, take a value for a boolean: false, null, undefined, missing and zero are
// false, all else is true.
func Truthy(v any) bool {
	if b, ok := v.(bool); ok {
		return b
	}
	return !nullish(v) && !(bsonval.IsNumber(v) && bsonval.Compare(v, int32(0)) == 0)
}

func compileArray(a bson.A) (eval, error) {
	all, err := compileAll(a)
	return func(e *env) (any, error) {
		out, err := evalAll(e, all)
		for i, v := range out {
			if isMissing(v) {
				out[i] = nil
			}
		}
		return bson.A(out), err
	}, err
}

func compileAll(a bson.A) ([]eval, error) {
	out := make([]eval, len(a))
	for i, v := range a {
		run, err := compile(v)
		if err != nil {
			return nil, err
		}
		out[i] = run
	}
	return out, nil
}

func evalAll(e *env, all []eval) ([]any, error) {
	out := make([]any, len(all))
	for i, run := range all {
		v, err := run(e)
		if err != nil {
			return nil, err
		}
		out[i] = v
	}
	return out, nil
}

func compileDocument(d bson.D) (eval, error) {
	if len(d) > 0 && strings.HasPrefix(d[0].Key, "$") {
		if len(d) > 1 {
			return nil, fail(15983, "An object representing an expression must have exactly one field: %v", d)
		}
		return compileOperator(d[0].Key, d[0].Value)
	}
	fields := make([]eval, len(d))
	for i, f := range d {
		if strings.HasPrefix(f.Key, "$") || strings.Contains(f.Key, ".") || f.Key == "" {
			return nil, fail(16410, "field name '%s' is not allowed in an object of an expression", f.Key)
		}
		run, err := compile(f.Value)
		if err != nil {
			return nil, err
		}
		fields[i] = run
	}
	return func(e *env) (any, error) {
		out := make(bson.D, 0, len(d))
		for i, run := range fields {
			v, err := run(e)
			if err != nil {
				return nil, err
			}
			if !isMissing(v) {
				out = append(out, bson.E{Key: d[i].Key, Value: v})
			}
		}
		return out, nil
	}, nil
}

// operator is an expression operator whose arguments are all evaluated before it.
type operator struct {
	least, most int // arguments; most < 0 is any number
	apply       func(name string, args []any) (any, error)
}

func compileOperator(name string, argument any) (eval, error) {
	if run, err, ok := compileForm(name, argument); ok {
		return run, err
	}
	op, ok := find(name)
	if !ok {
		return nil, bsonval.Errorf(bsonval.UnknownExpression, "Unrecognized expression '%s'", name)
	}
	list, isList := argument.(bson.A)
	if !isList {
		list = bson.A{argument}
	}
	if len(list) < op.least || op.most >= 0 && len(list) > op.most {
		return nil, fail(16020, "Expression %s takes at least %d and at most %d arguments, but %d were passed in.", name, op.least, op.most, len(list))
	}
	args, err := compileAll(list)
	return func(e *env) (any, error) {
		values, err := evalAll(e, args)
		if err != nil {
			return nil, err
		}
		return op.apply(name, values)
	}, err
}

func find(name string) (operator, bool) {
	for _, family := range []func(string) (operator, bool){comparisons, arithmetic, texts, arrays, sets, documents, conversions} {
		if op, ok := family(name); ok {
			return op, true
		}
	}
	return operator{}, false
}

func fail(code bsonval.Code, format string, args ...any) error {
	return bsonval.Errorf(code, format, args...)
}
