package aggregate

import (
	"slices"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/bsonval"
	"popfleet/replication/operators"
	"popfleet/replication/operators/expression"
)

// output is one accumulated field of a $group.
type output struct {
	name, op string
	expr     *expression.Expr
}

// grouping is one $group.
type grouping struct {
	key     *expression.Expr
	outputs []output
	vars    operators.Variables
}

func compileGroup(v any, vars operators.Variables) (stage, error) {
	d, ok := v.(bson.D)
	if !ok {
		return nil, refuse(15947, "a group's fields must be specified in an object")
	}
	g := grouping{vars: vars}
	for _, f := range d {
		var err error
		if f.Key == "_id" {
			g.key, err = expression.Compile(f.Value)
		} else {
			err = g.output(f)
		}
		if err != nil {
			return nil, err
		}
	}
	if g.key == nil {
		return nil, refuse(15955, "a group specification must include an _id")
	}
	return buffered(g.run), nil
}

func (g *grouping) output(f bson.E) error {
	d, ok := f.Value.(bson.D)
	if !ok || len(d) != 1 {
		return refuse(40234, "The field '%s' must be an accumulator object", f.Key)
	}
	switch d[0].Key {
	case "$sum", "$avg", "$min", "$max", "$first", "$last", "$push", "$addToSet", "$mergeObjects":
	case "$count":
		if empty, is := d[0].Value.(bson.D); !is || len(empty) > 0 {
			return refuse(9, "$count takes no arguments, i.e. $count:{}")
		}
		d = bson.D{{Key: "$sum", Value: int32(1)}}
	case "$stdDevPop", "$stdDevSamp", "$top", "$topN", "$bottom", "$bottomN", "$firstN", "$lastN", "$minN", "$maxN",
		"$accumulator", "$median", "$percentile":
		return refuse(238, "group operator %s: mongosim does not have it", d[0].Key)
	default:
		return refuse(15952, "unknown group operator '%s'", d[0].Key)
	}
	expr, err := expression.Compile(d[0].Value)
	g.outputs = append(g.outputs, output{name: f.Key, op: d[0].Key, expr: expr})
	return err
}

// bucket is one group on its way.
type bucket struct {
	id    any
	cells []cell
}

func (g *grouping) run(docs []bson.D) ([]bson.D, error) {
	buckets, order := map[string]*bucket{}, []*bucket(nil)
	for _, doc := range docs {
		scope := expression.Scope{Root: doc, Now: g.vars.Now, Let: g.vars.Let}
		id, err := g.key.Eval(scope)
		if err != nil {
			return nil, err
		}
		if _, missing := id.(bsonval.Missing); missing {
			id = nil
		}
		k := string(bsonval.Canonical(id))
		b := buckets[k]
		if b == nil {
			b = &bucket{id: id, cells: make([]cell, len(g.outputs))}
			buckets[k], order = b, append(order, b)
		}
		for i, o := range g.outputs {
			v, err := o.expr.Eval(scope)
			if err != nil {
				return nil, err
			}
			if err := b.cells[i].add(o.op, v); err != nil {
				return nil, err
			}
		}
	}
	return g.results(order)
}

func (g *grouping) results(order []*bucket) ([]bson.D, error) {
	out := make([]bson.D, len(order))
	for i, b := range order {
		out[i] = bson.D{{Key: "_id", Value: b.id}}
		for j, o := range g.outputs {
			v, err := b.cells[j].result(o.op)
			if err != nil {
				return nil, err
			}
			out[i] = append(out[i], bson.E{Key: o.name, Value: v})
		}
	}
	return out, nil
}

// cell is one accumulator's state.
type cell struct {
	value any
	n     int64 // values taken
	list  bson.A
	seen  map[string]struct{}
}

func (c *cell) add(op string, v any) error {
	_, missing := v.(bsonval.Missing)
	switch op {
	case "$first":
		if c.n == 0 {
			c.value = present(v)
		}
		c.n++
	case "$last":
		c.value = present(v)
	case "$push":
		if !missing {
			c.list = append(c.list, v)
		}
	case "$addToSet":
		c.addToSet(v, missing)
	case "$mergeObjects":
		return c.merge(v)
	case "$min", "$max":
		c.extreme(op, v, missing)
	default:
		return c.sum(v)
	}
	return nil
}

func present(v any) any {
	if _, missing := v.(bsonval.Missing); missing {
		return nil
	}
	return v
}

func (c *cell) extreme(op string, v any, missing bool) {
	if missing || v == nil {
		return
	}
	if c.n++; c.n > 1 {
		if order := bsonval.Compare(v, c.value); op == "$min" && order >= 0 || op == "$max" && order <= 0 {
			return
		}
	}
	c.value = v
}

func (c *cell) addToSet(v any, missing bool) {
	k := string(bsonval.Canonical(v))
	if _, twice := c.seen[k]; missing || twice {
		return
	}
	if c.seen == nil {
		c.seen = map[string]struct{}{}
	}
	c.seen[k] = struct{}{}
	c.list = append(c.list, v)
}

func (c *cell) merge(v any) error {
	d, ok := v.(bson.D)
	if !ok {
		if present(v) == nil {
			return nil
		}
		return refuse(40400, "$mergeObjects requires object inputs, but input is of type %s", bsonval.TypeName(v))
	}
	into, _ := c.value.(bson.D)
	into = slices.Clone(into)
	for _, f := range d {
		if i := bsonval.Find(into, f.Key); i >= 0 {
			into[i].Value = f.Value
		} else {
			into = append(into, f)
		}
	}
	c.value = into
	return nil
}

// sum ignores what is no number; where int64 overflows the sum goes on as a double, as the server's does.
func (c *cell) sum(v any) error {
	if !bsonval.IsNumber(v) {
		return nil
	}
	if c.n++; c.n == 1 {
		c.value = v
		return nil
	}
	total, err := bsonval.Add(c.value, v)
	if err != nil {
		total = bsonval.ToFloat(c.value) + bsonval.ToFloat(v)
	}
	c.value = total
	return nil
}

func (c *cell) result(op string) (any, error) {
	switch op {
	case "$push", "$addToSet":
		if c.list == nil {
			return bson.A{}, nil
		}
		return c.list, nil
	case "$sum":
		if c.n == 0 {
			return int32(0), nil
		}
	case "$mergeObjects":
		if c.value == nil {
			return bson.D{}, nil
		}
	case "$avg":
		return c.average()
	}
	return c.value, nil
}

func (c *cell) average() (any, error) {
	if c.n == 0 {
		return nil, nil
	}
	if _, decimal := c.value.(bson.Decimal128); decimal {
		return bsonval.Div(c.value, c.n)
	}
	return bsonval.ToFloat(c.value) / float64(c.n), nil
}

func compileSortByCount(v any, vars operators.Variables) (stage, error) {
	group, err := compileGroup(bson.D{{Key: "_id", Value: v}, {Key: "count", Value: bson.D{{Key: "$sum", Value: int32(1)}}}}, vars)
	if err != nil {
		return nil, err
	}
	sort, err := compileSort(bson.D{{Key: "count", Value: int32(-1)}})
	return func(from Source) Source { return sort(group(from)) }, err
}
