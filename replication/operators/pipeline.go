package operators

import (
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/bsonval"
	"popfleet/replication/operators/expression"
)

// stage is one step of a pipeline update.
type stage func(d bson.D, in ApplyInput) (bson.D, error)

func (in ApplyInput) scope(d bson.D) expression.Scope {
	return expression.Scope{Root: d, Now: in.Now, Let: in.Let}
}

func parsePipeline(list bson.A) ([]stage, error) {
	stages := make([]stage, len(list))
	for i, v := range list {
		d, ok := v.(bson.D)
		if !ok {
			return nil, bsonval.Errorf(bsonval.TypeMismatch, "Each element of the 'pipeline' array must be an object")
		}
		if len(d) != 1 {
			return nil, bsonval.Errorf(40323, "A pipeline stage specification object must contain exactly one field.")
		}
		s, err := parseStage(d[0].Key, d[0].Value)
		if err != nil {
			return nil, err
		}
		stages[i] = s
	}
	return stages, nil
}

func parseStage(name string, v any) (stage, error) {
	switch name {
	case "$set", "$addFields":
		return parseAddFields(name, v)
	case "$unset":
		return parseUnsetStage(v)
	case "$project":
		return parseProjectStage(v)
	case "$replaceWith":
		return parseReplaceStage(v)
	case "$replaceRoot":
		d, ok := v.(bson.D)
		if !ok || len(d) != 1 || d[0].Key != "newRoot" {
			return nil, bsonval.Errorf(40229, "expected an object with the one field newRoot as specification for $replaceRoot stage")
		}
		return parseReplaceStage(d[0].Value)
	}
	return nil, bsonval.Errorf(bsonval.PipelineStageRefused, "%s is not allowed to be used within an update", name)
}

func (u *Update) runPipeline(before bson.D, in ApplyInput) (bson.D, []Effect, error) {
	d := before
	for _, s := range u.pipeline {
		next, err := s(d, in)
		if err != nil {
			return nil, nil, err
		}
		d = next
	}
	if err := checkReplacement(d); err != nil {
		return nil, nil, err
	}
	return replace(before, d, "pipeline")
}

func parseReplaceStage(v any) (stage, error) {
	expr, err := expression.Compile(v)
	return func(d bson.D, in ApplyInput) (bson.D, error) {
		r, err := expr.Eval(in.scope(d))
		if err != nil {
			return nil, err
		}
		out, ok := r.(bson.D)
		if !ok {
			return nil, bsonval.Errorf(40228, "'newRoot' expression must evaluate to an object, but resulting value was of type: %s", bsonval.TypeName(r))
		}
		return out, nil
	}, err
}

func parseUnsetStage(v any) (stage, error) {
	list, ok := v.(bson.A)
	if !ok {
		list = bson.A{v}
	}
	if len(list) == 0 {
		return nil, bsonval.Errorf(31119, "$unset specification must be a string or an array with at least one field")
	}
	spec := bson.D{}
	for _, v := range list {
		name, ok := v.(string)
		if !ok || name == "" || strings.HasPrefix(name, "$") {
			return nil, bsonval.Errorf(31120, "$unset specification must be a string or an array containing only string values")
		}
		spec = append(spec, bson.E{Key: name, Value: int32(0)})
	}
	return projectionStage(spec)
}

func parseProjectStage(v any) (stage, error) {
	d, ok := v.(bson.D)
	if !ok || len(d) == 0 {
		return nil, bsonval.Errorf(51272, "$project specification must be an object with at least one field")
	}
	return projectionStage(d)
}

func projectionStage(spec bson.D) (stage, error) {
	p, err := parseProjection(spec, false)
	return func(d bson.D, in ApplyInput) (bson.D, error) { return p.project(d, in.scope(d), Positions{}) }, err
}

// addition is the tree of $set's fields: a leaf computes, a branch goes on below a name. Branches keep the order in
// which they were written.
type addition struct {
	name  string
	expr  *expression.Expr // nil for a branch
	below []*addition
}

func parseAddFields(name string, v any) (stage, error) {
	d, ok := v.(bson.D)
	if !ok {
		return nil, bsonval.Errorf(40272, "%s specification stage must be an object, got %s", name, bsonval.TypeName(v))
	}
	if len(d) == 0 {
		return nil, bsonval.Errorf(40177, "Invalid %s :: caused by :: specification must have at least one field", name)
	}
	root := &addition{}
	for _, e := range d {
		if err := root.add(name, e.Key, e.Value); err != nil {
			return nil, err
		}
	}
	return func(d bson.D, in ApplyInput) (bson.D, error) { return root.fields(d, in.scope(d)) }, nil
}

// add puts a field's specification into the tree; a document that is no expression stands for the paths below it.
func (n *addition) add(stage, dotted string, v any) error {
	for _, part := range bsonval.SplitPath(dotted) {
		if part == "" || strings.HasPrefix(part, "$") {
			return bsonval.Errorf(16410, "Invalid %s :: caused by :: FieldPath field names may not be empty or start with '$': '%s'", stage, dotted)
		}
		child := n.child(part)
		if child.expr != nil {
			return specificationConflict(stage, dotted)
		}
		n = child
	}
	if d, ok := v.(bson.D); ok && (len(d) == 0 || !strings.HasPrefix(d[0].Key, "$")) {
		if len(d) == 0 {
			return bsonval.Errorf(40180, "Invalid %s :: caused by :: an empty object is not a valid value. Found empty object at path %s", stage, dotted)
		}
		for _, e := range d {
			if err := n.add(stage, e.Key, e.Value); err != nil {
				return err
			}
		}
		return nil
	}
	if len(n.below) > 0 {
		return specificationConflict(stage, dotted)
	}
	expr, err := expression.Compile(v)
	n.expr = expr
	return err
}

func specificationConflict(stage, dotted string) error {
	return bsonval.Errorf(40176, "Invalid %s :: caused by :: specification contains two conflicting paths at %s", stage, dotted)
}

func (n *addition) child(name string) *addition {
	for _, c := range n.below {
		if c.name == name {
			return c
		}
	}
	c := &addition{name: name}
	n.below = append(n.below, c)
	return c
}

// fields is d with the computed fields; expressions see the document as it was before the stage.
func (n *addition) fields(d bson.D, scope expression.Scope) (bson.D, error) {
	out := append(make(bson.D, 0, len(d)+len(n.below)), d...)
	for _, c := range n.below {
		v, err := c.value(bsonval.Field(d, c.name), scope)
		if err != nil {
			return nil, err
		}
		out = putField(out, c.name, v)
	}
	return out, nil
}

// putField sets, adds, or for a missing value removes a field of a document that is ours.
func putField(d bson.D, name string, v any) bson.D {
	i := bsonval.Find(d, name)
	_, gone := v.(bsonval.Missing)
	switch {
	case gone && i >= 0:
		return append(d[:i], d[i+1:]...)
	case gone:
		return d
	case i >= 0:
		d[i].Value = v
		return d
	}
	return append(d, bson.E{Key: name, Value: v})
}

// value is what a field becomes: computed, or gone into; an array is gone into element by element, and what is no
// document becomes one.
func (n *addition) value(was any, scope expression.Scope) (any, error) {
	if n.expr != nil {
		return n.expr.Eval(scope)
	}
	switch x := was.(type) {
	case bson.D:
		return n.fields(x, scope)
	case bson.A:
		out := make(bson.A, len(x))
		for i, e := range x {
			v, err := n.value(e, scope)
			if err != nil {
				return nil, err
			}
			out[i] = v
		}
		return out, nil
	}
	return n.fields(nil, scope)
}
