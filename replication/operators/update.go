package operators

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/bsonval"
)

// ApplyInput is what an update depends on besides the document.
type ApplyInput struct {
	Now       time.Time      // $currentDate, $$NOW
	Timestamp bson.Timestamp // $currentDate of type timestamp; made of Now if zero
	Insert    bool           // the document is being made by an upsert
	Positions Positions      // what the filter's match left for $
	Let       bson.D         // a command's let, for pipelines
}

// Update is a compiled update. It may be used by many goroutines at once.
type Update struct {
	modifiers   []modifier // sorted by path, if none is dynamic
	dynamic     bool       // paths depend on the document
	replacement bson.D
	isReplace   bool
	pipeline    []stage
	isPipeline  bool
	filters     map[string]node // by identifier of arrayFilters
}

// CompileUpdate compiles an update: a document of operators or a replacement document (bson.D), or a pipeline (bson.A).
func CompileUpdate(update any, arrayFilters []bson.D) (*Update, error) {
	if err := bsonval.CheckDepth(update); err != nil {
		return nil, err
	}
	filters, err := parseArrayFilters(arrayFilters)
	if err != nil {
		return nil, err
	}
	switch x := update.(type) {
	case bson.A:
		if len(arrayFilters) > 0 {
			return nil, bsonval.Errorf(bsonval.FailedToParse, "Cannot specify arrayFilters and a pipeline update")
		}
		stages, err := parsePipeline(x)
		return &Update{pipeline: stages, isPipeline: true}, err
	case bson.D:
		if len(x) == 0 || !strings.HasPrefix(x[0].Key, "$") {
			if len(arrayFilters) > 0 {
				return nil, bsonval.Errorf(bsonval.FailedToParse, "Cannot specify arrayFilters and a replacement document")
			}
			return &Update{replacement: x, isReplace: true}, checkReplacement(x)
		}
		return compileModifiers(x, filters)
	}
	return nil, bsonval.Errorf(bsonval.FailedToParse, "Update argument must be either an object or an array")
}

// IsReplacement says whether the update replaces the whole document (it may then change one document only).
func (u *Update) IsReplacement() bool { return u.isReplace }

// IsPipeline says whether the update is an aggregation pipeline.
func (u *Update) IsPipeline() bool { return u.isPipeline }

// UsesPosition says whether the update needs the position of an element from the filter's match.
func (u *Update) UsesPosition() bool {
	return slices.ContainsFunc(u.modifiers, func(m modifier) bool { return slices.Contains(m.path, "$") })
}

// Apply is the document after the update and what the update did. The document is not changed. Whether it differs from
// before is for the caller to compare (bsonval.Identical).
func (u *Update) Apply(d bson.D, in ApplyInput) (after bson.D, effects []Effect, err error) {
	switch {
	case u.isReplace:
		after, effects, err = replace(d, u.replacement, "replace")
	case u.isPipeline:
		after, effects, err = u.runPipeline(d, in)
	default:
		after, effects, err = u.modify(d, in)
	}
	if err != nil {
		return nil, nil, err
	}
	after, effects, err = keepID(d, after, effects, in.Insert)
	if err != nil {
		return nil, nil, err
	}
	return after, effects, bsonval.CheckLimits(after)
}

func (u *Update) modify(d bson.D, in ApplyInput) (bson.D, []Effect, error) {
	c := &change{doc: d, in: in, effects: make([]Effect, 0, len(u.modifiers))}
	modifiers, err := u.resolve(c)
	if err != nil {
		return nil, nil, err
	}
	for _, m := range modifiers {
		c.op = m.op
		if err := m.apply(c, m.path); err != nil {
			return nil, nil, err
		}
	}
	return c.doc, c.effects, nil
}

// keepID holds that an update never changes _id: neither its value nor its type. On an insert _id goes first.
func keepID(before, after bson.D, effects []Effect, insert bool) (bson.D, []Effect, error) {
	i := bsonval.Find(after, "_id")
	if insert {
		return idFirst(after, i), effects, checkID(after)
	}
	was := bsonval.Field(before, "_id")
	if _, none := was.(bsonval.Missing); none {
		return after, effects, nil
	}
	if i < 0 || bsonval.Compare(after[i].Value, was) != 0 {
		return nil, nil, bsonval.Errorf(bsonval.ImmutableField, "Performing an update on the path '_id' would modify the immutable field '_id'")
	}
	if !bsonval.Identical(after[i].Value, was) {
		after = slices.Clone(after)
		after[i].Value = was
	}
	return after, slices.DeleteFunc(effects, func(e Effect) bool { return e.Path[0] == "_id" }), nil
}

func idFirst(d bson.D, i int) bson.D {
	if i <= 0 {
		return d
	}
	out := append(make(bson.D, 0, len(d)), d[i])
	return append(append(out, d[:i]...), d[i+1:]...)
}

// checkID refuses what can't be an _id.
func checkID(d bson.D) error {
	switch v := bsonval.Field(d, "_id").(type) {
	case bson.A, bson.Regex, bson.Undefined:
		return bsonval.Errorf(bsonval.InvalidIDField, "The '_id' value cannot be of type %s", bsonval.TypeName(v))
	case bson.D:
		if len(v) > 0 && strings.HasPrefix(v[0].Key, "$") {
			return bsonval.Errorf(bsonval.DollarPrefixedField, "_id fields may not contain '$'-prefixed fields: %s is not valid for storage.", v[0].Key)
		}
	}
	return nil
}

// change is an update of operators on its way through one document.
type change struct {
	doc     bson.D
	effects []Effect
	in      ApplyInput
	op      string
}

// at is what is at path; an error if nothing can be there, because the path goes through a scalar or by name through
// an array.
func (c *change) at(path []string) (any, error) {
	var v any = c.doc
	for _, name := range path {
		switch x := v.(type) {
		case bson.D:
			v = bsonval.Field(x, name)
		case bson.A:
			i, ok := bsonval.Index(name)
			if !ok {
				return nil, bsonval.NotViable(name, v)
			}
			v = bsonval.Missing{}
			if i < len(x) {
				v = x[i]
			}
		case bsonval.Missing:
			return v, nil
		default:
			return nil, bsonval.NotViable(name, v)
		}
	}
	return v, nil
}

// emit does an effect and notes it. The path has been found viable by at.
func (c *change) emit(e Effect) error {
	e.Op = c.op
	e, err := c.withinArrays(e)
	if err != nil {
		return err
	}
	doc, err := e.Apply(c.doc)
	if err != nil {
		return err
	}
	c.doc, c.effects = doc, append(c.effects, e)
	return nil
}

// withinArrays turns an effect past an array's end into a Push of the padding and what the effect makes there.
func (c *change) withinArrays(e Effect) (Effect, error) {
	var v any = c.doc
	for depth, name := range e.Path {
		switch x := v.(type) {
		case bson.D:
			v = bsonval.Field(x, name)
		case bson.A:
			i, _ := bsonval.Index(name)
			if i >= len(x) {
				return padded(e, depth, len(x), i)
			}
			v = x[i]
		default:
			return e, nil
		}
	}
	return e, nil
}

func padded(e Effect, depth, length, index int) (Effect, error) {
	if index-length > bsonval.MaxPadding {
		return e, refuse("can't backfill more than %d elements", bsonval.MaxPadding)
	}
	inner := e
	inner.Path = append([]string{"v"}, e.Path[depth+1:]...)
	made, err := inner.Apply(bson.D{})
	if err != nil {
		return e, err
	}
	values := make(bson.A, index-length+1)
	values[index-length] = made[0].Value
	return Effect{Kind: Push, Op: e.Op, Path: e.Path[:depth], Values: values, Index: length, Coarse: e.Coarse}, nil
}

// comparePaths orders paths by component, numbers by value: the order in which the server applies them.
func comparePaths(a, b []string) int {
	for i := range min(len(a), len(b)) {
		x, isX := bsonval.Index(a[i])
		y, isY := bsonval.Index(b[i])
		c := strings.Compare(a[i], b[i])
		if isX && isY {
			c = cmp.Compare(x, y)
		}
		if c != 0 {
			return c
		}
	}
	return cmp.Compare(len(a), len(b))
}
