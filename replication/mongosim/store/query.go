package store

import (
	"slices"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/bsonval"
)

// Query is what is known of a filter and a sort for choosing an index. It may know less than the filter says, never more.
type Query struct {
	Bounds map[string]Bound // by dotted path
	Sort   []KeyPart
}

// Bound is what the filter asks of one path.
type Bound struct {
	In           []any // equal to one of these; nil if not known
	Lower, Upper *Edge
}

// Edge is one end of a range.
type Edge struct {
	Value     any
	Inclusive bool
}

// QueryOf reads the bounds out of a filter: equalities, ranges and $in at its top and within $and. All else is left to
// the matcher.
func QueryOf(filter bson.D, sort []KeyPart) Query {
	q := Query{Sort: sort}
	if len(filter) > 0 {
		q.Bounds = map[string]Bound{}
		q.read(filter)
	}
	return q
}

func (q *Query) read(filter bson.D) {
	for _, f := range filter {
		switch {
		case f.Key == "$and":
			all, _ := f.Value.(bson.A)
			for _, sub := range all {
				if d, ok := sub.(bson.D); ok {
					q.read(d)
				}
			}
		case f.Key == "" || f.Key[0] == '$':
		default:
			q.constrain(f.Key, f.Value)
		}
	}
}

func (q *Query) constrain(path string, v any) {
	b := q.Bounds[path]
	if ops, ok := v.(bson.D); ok && len(ops) > 0 && ops[0].Key != "" && ops[0].Key[0] == '$' {
		for _, op := range ops {
			b.add(op.Key, op.Value)
		}
	} else {
		b.add("$eq", v)
	}
	q.Bounds[path] = b
}

func (b *Bound) add(op string, v any) {
	switch op {
	case "$eq":
		if b.In == nil && pointed(v) {
			b.In = []any{v}
		}
	case "$in":
		list, _ := v.(bson.A)
		if b.In == nil && len(list) > 0 && !slices.ContainsFunc(list, func(v any) bool { return !pointed(v) }) {
			b.In = distinct(list)
		}
	case "$gt", "$gte":
		if b.Lower == nil && pointed(v) {
			b.Lower = &Edge{v, op == "$gte"}
		}
	case "$lt", "$lte":
		if b.Upper == nil && pointed(v) {
			b.Upper = &Edge{v, op == "$lte"}
		}
	}
}

// pointed says whether a comparison with v is found at v's place in an index. Null also means missing, an array also
// stands for its elements, a pattern matches many strings, and the ends of the order compare with all types.
func pointed(v any) bool {
	switch v.(type) {
	case nil, bson.A, bson.Regex, bson.Undefined, bson.MinKey, bson.MaxKey:
		return false
	}
	return true
}

func distinct(list bson.A) []any {
	sorted := slices.Clone([]any(list))
	slices.SortFunc(sorted, bsonval.Compare)
	return slices.CompactFunc(sorted, func(a, b any) bool { return bsonval.Compare(a, b) == 0 })
}

// points are the documents' keys if the filter names them by _id and no order is asked of several.
func (q Query) points() ([]string, bool) {
	in := q.Bounds["_id"].In
	if in == nil || len(in) > 1 && len(q.Sort) > 0 {
		return nil, false
	}
	keys := make([]string, len(in))
	for i, id := range in {
		keys[i] = KeyOf(id)
	}
	return keys, true
}

// plan is one way to answer a query by an index.
type plan struct {
	index  *index
	spans  []span
	back   bool
	sorted bool
	score  int
}

// choose finds the index with the longest run of equalities, then one with a range, then one that gives the order.
func (c *collection) choose(q Query) (best plan, ok bool) {
	for _, x := range c.indexes {
		if x.Hidden || x.Partial != nil {
			continue
		}
		if p := x.planFor(q); p.score > best.score {
			best, ok = p, true
		}
	}
	return best, ok
}

func (x *index) planFor(q Query) plan {
	p := plan{index: x}
	prefix, equal := [][]any{nil}, 0
	for ; equal < len(x.Keys); equal++ {
		in := q.Bounds[x.field(equal)].In
		if in == nil || x.multikey && equal > 0 || len(prefix)*len(in) > 4096 || len(in) > 1 && len(prefix) > 1 {
			break
		}
		prefix = extend(prefix, in)
	}
	p.score = 4 * equal
	low, high := x.bounds(q, equal)
	if low != nil || high != nil {
		p.score += 2
	}
	for _, key := range prefix {
		p.spans = append(p.spans, x.span(key, low, high))
	}
	x.order(&p, q.Sort, equal, len(prefix))
	if x.Sparse && equal == 0 && low == nil && high == nil {
		return plan{} // it may lack documents
	}
	return p
}

func (x *index) field(i int) string { return x.Pattern[i].Key }

func extend(prefix [][]any, in []any) [][]any {
	next := make([][]any, 0, len(prefix)*len(in))
	for _, p := range prefix {
		for _, v := range in {
			next = append(next, append(slices.Clone(p), v))
		}
	}
	return next
}

// bounds is the range on the field after the equalities. In a multikey index two ends may be met by two elements of an
// array, and a later field by another element than an earlier one: one end on the first field is all that is certain.
func (x *index) bounds(q Query, at int) (low, high *Edge) {
	if at >= len(x.Keys) || x.multikey && at > 0 {
		return nil, nil
	}
	b := q.Bounds[x.field(at)]
	low, high = b.Lower, b.Upper
	if x.multikey && low != nil {
		high = nil
	}
	if x.Keys[at].Order < 0 {
		low, high = high, low
	}
	return low, high
}

// span goes from low to high, both in the index's order, among the keys that begin with prefix.
func (x *index) span(prefix []any, low, high *Edge) span {
	s := span{from: entry{key: prefix, edge: -1}, to: entry{key: prefix, edge: 1}}
	if low != nil {
		s.from = entry{key: append(slices.Clone(prefix), low.Value), edge: side(!low.Inclusive)}
	}
	if high != nil {
		s.to = entry{key: append(slices.Clone(prefix), high.Value), edge: side(high.Inclusive)}
	}
	return s
}

func side(after bool) int8 {
	if after {
		return 1
	}
	return -1
}

// order says whether walking the index gives the sort, and in which direction.
func (x *index) order(p *plan, sort []KeyPart, equal, prefixes int) {
	if len(sort) == 0 {
		p.sorted = true
		return
	}
	if x.multikey || prefixes > 1 || equal+len(sort) > len(x.Keys) {
		return
	}
	direction := sort[0].Order * x.Keys[min(equal, len(x.Keys)-1)].Order
	for i, k := range sort {
		own := x.Keys[equal+i]
		if !slices.Equal(own.Path, k.Path) || own.Order*direction != k.Order {
			return
		}
	}
	p.sorted, p.back = true, direction < 0
	p.score++
}
