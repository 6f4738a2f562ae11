package aggregate

import (
	"context"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/bsonval"
)

// unwinding is one $unwind.
type unwinding struct {
	path  []string
	keep  bool   // documents without elements pass
	index string // field for the element's place
}

func compileUnwind(v any) (stage, error) {
	u, err := parseUnwind(v)
	if err != nil {
		return nil, err
	}
	return func(from Source) Source {
		var ready []bson.D
		return pull(func(ctx context.Context) (bson.D, error) {
			for len(ready) == 0 {
				doc, err := from.Next(ctx)
				if doc == nil || err != nil {
					return nil, err
				}
				if ready, err = u.split(doc); err != nil {
					return nil, err
				}
			}
			doc := ready[0]
			ready = ready[1:]
			return doc, nil
		})
	}, nil
}

func parseUnwind(v any) (u unwinding, err error) {
	path, _ := v.(string)
	if d, ok := v.(bson.D); ok {
		for _, f := range d {
			ok := true
			switch f.Key {
			case "path":
				path, ok = f.Value.(string)
			case "preserveNullAndEmptyArrays":
				u.keep, ok = f.Value.(bool)
			case "includeArrayIndex":
				u.index, ok = f.Value.(string)
			default:
				ok = false
			}
			if !ok {
				return u, refuse(28811, "unrecognized option to $unwind stage: %s", f.Key)
			}
		}
	}
	if !strings.HasPrefix(path, "$") || len(path) < 2 {
		return u, refuse(28818, "path option to $unwind stage should be prefixed with a '$': %s", path)
	}
	u.path = bsonval.SplitPath(path[1:])
	return u, nil
}

func (u unwinding) split(doc bson.D) ([]bson.D, error) {
	v := bsonval.Get(doc, u.path)
	list, isArray := v.(bson.A)
	_, missing := v.(bsonval.Missing)
	switch {
	case isArray && len(list) > 0:
	case isArray && u.keep:
		out, err := u.place(bsonval.Unset(doc, u.path), nil)
		return []bson.D{out}, err
	case isArray || (missing || v == nil) && !u.keep:
		return nil, nil
	default:
		out, err := u.place(doc, nil)
		return []bson.D{out}, err
	}
	all := make([]bson.D, len(list))
	for i, el := range list {
		one, err := bsonval.Set(doc, u.path, el)
		if err != nil {
			return nil, err
		}
		if all[i], err = u.place(one, int64(i)); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (u unwinding) place(doc bson.D, index any) (bson.D, error) {
	if u.index == "" {
		return doc, nil
	}
	return bsonval.Set(doc, bsonval.SplitPath(u.index), index)
}
