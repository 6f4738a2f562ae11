package operators

import (
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/bsonval"
	"popfleet/replication/operators/expression"
)

// Error is a refusal with MongoDB's code.
type Error = bsonval.Error

// Variables are what expressions may name besides the document: $$NOW, and the names of a command's let.
type Variables struct {
	Now time.Time
	Let bson.D
}

func (v Variables) bind(root bson.D) expression.Scope {
	return expression.Scope{Root: root, Now: v.Now, Let: v.Let}
}

// Positions is what a match leaves for the positional operator: the index of the array element by which the filter's
// last condition on an array was met. The zero value is none.
type Positions struct {
	index int
	found bool
}

// At is the position of an element, for tests and for callers that know it otherwise.
func At(index int) Positions { return Positions{index: index, found: true} }

// Index is the element's index, if an array element was what matched.
func (p Positions) Index() (int, bool) { return p.index, p.found }

// Filter is a compiled query filter. It may be used by many goroutines at once.
type Filter struct {
	root node
	vars Variables
}

// CompileFilter compiles a query filter. At most one Variables may be given, for $expr. What is not supported is
// refused by name.
func CompileFilter(filter bson.D, vars ...Variables) (*Filter, error) {
	root, err := parseFilter(filter)
	if err != nil {
		return nil, err
	}
	f := &Filter{root: root}
	for _, v := range vars {
		f.vars = v
	}
	return f, nil
}

// Match says whether the document meets the filter. An error can only come from $expr.
func (f *Filter) Match(doc bson.D) (bool, Positions, error) {
	run := &evaluation{vars: f.vars, record: true}
	matched := f.root.match(run, doc) && run.err == nil
	if !matched {
		return false, Positions{}, run.err
	}
	return true, run.position, nil
}

// evaluation is the state of one match.
type evaluation struct {
	vars     Variables
	record   bool // positions count: not below $not, $nor
	position Positions
	err      error // the first; it ends the match as unmet
}

func (run *evaluation) note(offset int) {
	if run.record && offset != noOffset {
		run.position = At(offset)
	}
}

// unrecorded evaluates f without leaving positions.
func (run *evaluation) unrecorded(f func() bool) bool {
	was := run.record
	run.record = false
	defer func() { run.record = was }()
	return f()
}

// node is one condition of a filter. single is the same condition on a value that stands alone: the element that
// $elemMatch looks at.
type node interface {
	match(run *evaluation, d bson.D) bool
	single(run *evaluation, v any) bool
}

type allOf []node

func (n allOf) match(run *evaluation, d bson.D) bool {
	for _, child := range n {
		if !child.match(run, d) {
			return false
		}
	}
	return true
}

func (n allOf) single(run *evaluation, v any) bool {
	for _, child := range n {
		if !child.single(run, v) {
			return false
		}
	}
	return true
}

type anyOf []node

func (n anyOf) match(run *evaluation, d bson.D) bool {
	for _, child := range n {
		if child.match(run, d) {
			return true
		}
	}
	return false
}

func (n anyOf) single(run *evaluation, v any) bool {
	for _, child := range n {
		if child.single(run, v) {
			return true
		}
	}
	return false
}

type not struct{ node }

func (n not) match(run *evaluation, d bson.D) bool {
	met := run.unrecorded(func() bool { return n.node.match(run, d) })
	return !met && run.err == nil
}

func (n not) single(run *evaluation, v any) bool {
	met := run.unrecorded(func() bool { return n.node.single(run, v) })
	return !met && run.err == nil
}

type never struct{}

func (never) match(*evaluation, bson.D) bool { return false }
func (never) single(*evaluation, any) bool   { return false }

// computed is $expr.
type computed struct{ expr *expression.Expr }

func (n computed) match(run *evaluation, d bson.D) bool {
	v, err := n.expr.Eval(run.vars.bind(d))
	if err != nil && run.err == nil {
		run.err = err
	}
	return err == nil && expression.Truthy(v)
}

func (n computed) single(*evaluation, any) bool { return false }

// field is a predicate on what a path leads to.
type field struct {
	path []string
	into bool // an array at the end stands for its elements too
	test predicate
}

func (n field) match(run *evaluation, d bson.D) bool {
	return walk(d, n.path, n.into, func(v any, offset int) bool {
		if !n.test.met(run, v) {
			return false
		}
		run.note(offset)
		return true
	})
}

func (n field) single(run *evaluation, v any) bool { return n.test.met(run, v) }
