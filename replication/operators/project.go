package operators

import (
	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/bsonval"
	"popfleet/replication/operators/expression"
)

func (p *Projection) project(d bson.D, scope expression.Scope, at Positions) (bson.D, error) {
	if p.position != nil {
		i, ok := at.Index()
		narrowed := narrow(d, p.position, i)
		if !ok || narrowed == nil {
			return nil, bsonval.Errorf(51246, "positional operator '.$' couldn't find a matching element in the array")
		}
		d = narrowed
	}
	return p.document(p.root, d, scope)
}

// narrow leaves of the first array on the path the one element at i; nil if there is no such element.
func narrow(d bson.D, path []string, i int) bson.D {
	for n := 1; n <= len(path); n++ {
		a, ok := bsonval.Get(d, path[:n]).(bson.A)
		if !ok {
			continue
		}
		if i >= len(a) {
			return nil
		}
		out, err := bsonval.Set(d, path[:n], bson.A{a[i]})
		if err != nil {
			return nil
		}
		return out
	}
	return nil
}

// document is what a branch of the tree leaves of a document: fields in the document's order, then computed ones.
func (p *Projection) document(n *selection, d bson.D, scope expression.Scope) (bson.D, error) {
	out := make(bson.D, 0, len(d))
	for _, e := range d {
		c := n.find(e.Key)
		if c == nil && p.inclusion || c != nil && c.late {
			continue
		}
		v, err := p.field(c, e.Value, scope)
		if err != nil {
			return nil, err
		}
		if _, gone := v.(bsonval.Missing); !gone {
			out = append(out, bson.E{Key: e.Key, Value: v})
		}
	}
	return p.computed(n, d, out, scope)
}

func (p *Projection) field(c *selection, v any, scope expression.Scope) (any, error) {
	switch {
	case c == nil:
		return v, nil
	case c.leaf != nil:
		return c.leaf(v, scope)
	}
	return p.below(c, v, scope)
}

// below goes into documents and into those in arrays; a scalar has nothing below it: it is left out by an inclusion and
// left alone by an exclusion.
func (p *Projection) below(c *selection, v any, scope expression.Scope) (any, error) {
	switch x := v.(type) {
	case bson.D:
		return p.document(c, x, scope)
	case bson.A:
		out := make(bson.A, 0, len(x))
		for _, e := range x {
			r, err := p.below(c, e, scope)
			if err != nil {
				return nil, err
			}
			if _, gone := r.(bsonval.Missing); !gone {
				out = append(out, r)
			}
		}
		return out, nil
	}
	if c.computes() {
		return p.document(c, nil, scope)
	}
	if p.inclusion {
		return bsonval.Missing{}, nil
	}
	return v, nil
}

// computes says whether a branch makes fields that a document need not have.
func (n *selection) computes() bool {
	if n.late {
		return true
	}
	for _, c := range n.below {
		if c.computes() {
			return true
		}
	}
	return false
}

// computed appends what expressions make, also below names the document does not have.
func (p *Projection) computed(n *selection, d, out bson.D, scope expression.Scope) (bson.D, error) {
	for _, c := range n.below {
		was := bsonval.Field(d, c.name)
		_, missing := was.(bsonval.Missing)
		var v any = bsonval.Missing{}
		var err error
		switch {
		case c.late, c.leaf != nil && missing && c.name == "_id":
			v, err = c.leaf(was, scope)
		case c.leaf == nil && missing && c.computes():
			v, err = p.document(c, nil, scope)
		}
		if err != nil {
			return nil, err
		}
		if _, none := v.(bsonval.Missing); !none {
			out = append(out, bson.E{Key: c.name, Value: v})
		}
	}
	return out, nil
}
