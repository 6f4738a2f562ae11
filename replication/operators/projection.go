package operators

import (
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/bsonval"
	"popfleet/replication/operators/expression"
)

// Projection is a compiled projection. It may be used by many goroutines at once.
type Projection struct {
	root      *selection
	inclusion bool
	position  []string // the path of a.$, if there is one
	vars      Variables
}

// CompileProjection compiles the projection of a find or a findAndModify. An empty one keeps everything.
func CompileProjection(spec bson.D, vars ...Variables) (*Projection, error) {
	if err := bsonval.CheckDepth(spec); err != nil {
		return nil, err
	}
	p, err := parseProjection(spec, true)
	if err != nil {
		return nil, err
	}
	for _, v := range vars {
		p.vars = v
	}
	return p, nil
}

// Apply is what the projection leaves of a document. at is where the filter met it, for a.$.
func (p *Projection) Apply(d bson.D, at Positions) (bson.D, error) {
	return p.project(d, p.vars.bind(d), at)
}

// selection is one name of a projection's tree.
type selection struct {
	name  string
	leaf  func(v any, scope expression.Scope) (any, error) // nil for a branch
	late  bool                                             // goes to the end, even if the document has the field
	below []*selection
}

func (n *selection) find(name string) *selection {
	for _, c := range n.below {
		if c.name == name {
			return c
		}
	}
	return nil
}

func keep(v any, _ expression.Scope) (any, error) { return v, nil }

func drop(any, expression.Scope) (any, error) { return bsonval.Missing{}, nil }

// projectionParser collects the tree and finds out whether fields are named to stay or to go.
type projectionParser struct {
	p        *Projection
	find     bool // not $project: $slice, $elemMatch and a.$ are allowed
	decided  bool // inclusion is settled by a field other than _id
	idStays  bool
	idNamed  bool
	trimming bool // $slice: keeps the other fields unless something says otherwise
}

func parseProjection(spec bson.D, find bool) (*Projection, error) {
	pp := &projectionParser{p: &Projection{root: &selection{}}, find: find, idStays: true}
	for _, e := range spec {
		if err := pp.field(e.Key, e.Value); err != nil {
			return nil, err
		}
	}
	p := pp.p
	if !pp.decided && !pp.trimming && pp.idNamed {
		p.inclusion = pp.idStays
	}
	if p.inclusion && pp.idStays && p.root.find("_id") == nil {
		p.root.below = append(p.root.below, &selection{name: "_id", leaf: keep})
	}
	if p.inclusion && !pp.idStays || !p.inclusion && pp.idStays && pp.idNamed {
		p.root.forget("_id")
	}
	return p, nil
}

func (n *selection) forget(name string) {
	for i, c := range n.below {
		if c.name == name && c.below == nil {
			n.below = append(n.below[:i], n.below[i+1:]...)
			return
		}
	}
}

func (pp *projectionParser) field(dotted string, v any) error {
	path := bsonval.SplitPath(dotted)
	if pp.find && path[len(path)-1] == "$" && len(path) > 1 {
		path = path[:len(path)-1]
		if pp.p.position != nil {
			return bsonval.Errorf(31276, "Cannot specify more than one positional projection per query.")
		}
		pp.p.position = path
		if stays, ok := staysOrGoes(v); !ok || !stays {
			return bsonval.Errorf(31395, "positional projection cannot be used with a literal or exclusion")
		}
	}
	for _, part := range path {
		if part == "" || strings.HasPrefix(part, "$") {
			return bsonval.Errorf(16410, "FieldPath field names may not be empty or start with '$': '%s'", dotted)
		}
	}
	if stays, ok := staysOrGoes(v); ok {
		return pp.plain(path, stays)
	}
	if d, ok := v.(bson.D); ok && (len(d) == 0 || !strings.HasPrefix(d[0].Key, "$")) {
		return pp.nested(dotted, d)
	}
	return pp.special(path, v)
}

// staysOrGoes reads true, false and numbers.
func staysOrGoes(v any) (stays, ok bool) {
	if b, isBool := v.(bool); isBool {
		return b, true
	}
	return expression.Truthy(v), bsonval.IsNumber(v)
}

func (pp *projectionParser) nested(dotted string, d bson.D) error {
	if len(d) == 0 {
		return bsonval.Errorf(51270, "An empty sub-projection is not a valid value. Found empty object at path %s", dotted)
	}
	for _, e := range d {
		if err := pp.field(dotted+"."+e.Key, e.Value); err != nil {
			return err
		}
	}
	return nil
}

func (pp *projectionParser) plain(path []string, stays bool) error {
	leaf := &selection{leaf: drop}
	if stays {
		leaf.leaf = keep
	}
	if len(path) == 1 && path[0] == "_id" {
		pp.idNamed, pp.idStays = true, stays
		return pp.insert(path, leaf)
	}
	if err := pp.decide(path, stays); err != nil {
		return err
	}
	return pp.insert(path, leaf)
}

func (pp *projectionParser) decide(path []string, inclusion bool) error {
	if pp.decided && pp.p.inclusion != inclusion {
		if inclusion {
			return bsonval.Errorf(31253, "Cannot do inclusion on field %s in exclusion projection", strings.Join(path, "."))
		}
		return bsonval.Errorf(31254, "Cannot do exclusion on field %s in inclusion projection", strings.Join(path, "."))
	}
	pp.decided, pp.p.inclusion = true, inclusion
	return nil
}

func (pp *projectionParser) insert(path []string, leaf *selection) error {
	n := pp.p.root
	for i, name := range path {
		if n.leaf != nil {
			return pathCollision(path)
		}
		c := n.find(name)
		last := i == len(path)-1
		switch {
		case c != nil && last:
			return pathCollision(path)
		case c == nil:
			c = &selection{name: name}
			if last {
				c = leaf
				c.name = name
			}
			n.below = append(n.below, c)
		}
		n = c
	}
	return nil
}

func pathCollision(path []string) error {
	return bsonval.Errorf(bsonval.ProjectionCollision, "Path collision at %s", strings.Join(path, "."))
}

func (pp *projectionParser) special(path []string, v any) error {
	d, ok := v.(bson.D)
	if pp.find && ok && len(d) == 1 {
		switch d[0].Key {
		case "$slice":
			return pp.slice(path, d[0].Value)
		case "$elemMatch":
			return pp.elemMatch(path, d[0].Value)
		case "$meta":
			return refuse("projection $meta is not supported")
		}
	}
	expr, err := expression.Compile(v)
	if err != nil {
		return err
	}
	if pp.decided && !pp.p.inclusion {
		return bsonval.Errorf(31252, "Cannot use an expression for field %s in an exclusion projection", strings.Join(path, "."))
	}
	pp.decided, pp.p.inclusion = true, true
	late := true
	if len(path) == 1 && path[0] == "_id" {
		pp.idNamed, late = true, false
	}
	return pp.insert(path, &selection{late: late, leaf: func(_ any, scope expression.Scope) (any, error) { return expr.Eval(scope) }})
}

func (pp *projectionParser) slice(path []string, v any) error {
	bounds, ok := v.(bson.A)
	if !ok {
		bounds = bson.A{v}
	}
	numbers := make([]int64, len(bounds))
	for i, b := range bounds {
		if numbers[i], ok = bsonval.ToInt64(b); !ok {
			return bsonval.Errorf(28667, "Invalid $slice syntax: expected numbers, got %s", bsonval.TypeName(b))
		}
	}
	if len(numbers) == 0 || len(numbers) > 2 || len(numbers) == 2 && numbers[1] <= 0 {
		return bsonval.Errorf(28667, "Invalid $slice syntax: expected one number, or two of which the second is positive")
	}
	pp.trimming = true
	return pp.insert(path, &selection{leaf: func(v any, _ expression.Scope) (any, error) {
		a, ok := v.(bson.A)
		switch {
		case !ok:
			return v, nil
		case len(numbers) == 1:
			return expression.Slice(a, numbers[0]), nil
		}
		return expression.SliceFrom(a, numbers[0], numbers[1]), nil
	}})
}

func (pp *projectionParser) elemMatch(path []string, v any) error {
	if len(path) > 1 {
		return bsonval.Errorf(31275, "Cannot use $elemMatch projection on a nested field.")
	}
	n, err := parseElemMatch(path, v)
	if err != nil {
		return err
	}
	test := n.(field).test.(elemMatch)
	if err := pp.decide(path, true); err != nil {
		return err
	}
	return pp.insert(path, &selection{late: true, leaf: func(v any, scope expression.Scope) (any, error) {
		a, _ := v.(bson.A)
		run := &evaluation{vars: Variables{Now: scope.Now, Let: scope.Let}}
		for _, e := range a {
			if test.element(run, e) {
				return bson.A{e}, run.err
			}
		}
		return bsonval.Missing{}, run.err
	}})
}
