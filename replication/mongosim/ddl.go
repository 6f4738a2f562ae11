package mongosim

import (
	"context"
	"errors"
	"slices"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/bsonval"
	"popfleet/replication/mongosim/store"
)

func sessionKey(lsid bson.D) string { return string(bsonval.Canonical(lsid)) }

// checkName refuses what can't be a collection's name.
func checkName(ns store.Namespace) error {
	switch {
	case ns.DB == "" || strings.ContainsAny(ns.DB, "/\\. \"$\x00") || len(ns.DB) > 63:
		return failure(codeInvalidNamespace, "Invalid database name: '%s'", ns.DB)
	case ns.Coll == "" || strings.ContainsAny(ns.Coll, "$\x00") || ns.Coll[0] == '.' || len(ns.String()) > 255:
		return failure(codeInvalidNamespace, "Invalid namespace specified '%s'", ns)
	case strings.HasPrefix(ns.Coll, "system."):
		return failure(codeInvalidNamespace, "cannot write to '%s'", ns)
	}
	return nil
}

func (r *request) target() (store.Namespace, error) {
	if _, is := r.body[0].Value.(string); !is {
		return store.Namespace{}, failure(codeInvalidNamespace, "collection name has invalid type %s", bsonval.TypeName(r.body[0].Value))
	}
	return r.ns(), checkName(r.ns())
}

func create(_ context.Context, r *request) (bson.D, error) {
	ns, err := r.target()
	if err != nil {
		return nil, err
	}
	for _, f := range r.body[1:] {
		switch f.Key {
		case "capped":
			if f.Value == true {
				return nil, refused("a capped collection")
			}
		case "viewOn", "pipeline", "timeseries", "validator", "validationLevel", "validationAction", "collation",
			"clusteredIndex", "changeStreamPreAndPostImages", "encryptedFields", "expireAfterSeconds", "size", "max":
			return nil, refused("create with " + f.Key)
		case "idIndex", "storageEngine", "indexOptionDefaults", "autoIndexId", "flags":
		default:
			if !slices.Contains(generic, f.Key) {
				return nil, failure(codeUnknownField, "BSON field 'create.%s' is an unknown field.", f.Key)
			}
		}
	}
	r.seq, err = r.b.store.Create(r.era, ns, nil)
	if errors.Is(err, store.ErrExists) { // the same options are no error, and there are no others
		return nil, nil
	}
	return nil, err
}

func drop(_ context.Context, r *request) (bson.D, error) {
	ns, err := r.target()
	if err != nil {
		return nil, err
	}
	info, _ := r.b.store.Collection(ns)
	r.seq, err = r.b.store.Drop(r.era, ns)
	if errors.Is(err, store.ErrNoNamespace) { // success since 7.0
		return nil, nil
	}
	return bson.D{{Key: "nIndexesWas", Value: int32(len(info.Indexes))}, {Key: "ns", Value: ns.String()}}, err
}

func dropDatabase(_ context.Context, r *request) (reply bson.D, err error) {
	if len(r.b.store.Collections(r.db)) > 0 {
		reply = bson.D{{Key: "dropped", Value: r.db}}
	}
	r.seq, err = r.b.store.DropDatabase(r.era, r.db)
	return reply, err
}

func renameCollection(_ context.Context, r *request) (bson.D, error) {
	to, err := r.args().text("to")
	if err != nil {
		return nil, err
	}
	from, target := split(r.coll), split(to)
	if err := errors.Join(checkName(from), checkName(target)); err != nil {
		return nil, failure(codeInvalidNamespace, "Invalid namespace specified '%s' or '%s'", from, target)
	}
	over, err := r.args().truth("dropTarget", false)
	if err != nil {
		return nil, err
	}
	if from == target {
		return nil, failure(codeIllegalOperation, "Can't rename a collection to itself")
	}
	r.seq, err = r.b.store.Rename(r.era, from, target, over)
	switch {
	case errors.Is(err, store.ErrNoNamespace):
		return nil, failure(codeNamespaceNotFound, "Source collection %s does not exist", from)
	case errors.Is(err, store.ErrExists):
		return nil, failure(codeNamespaceExists, "target namespace exists")
	}
	return nil, err
}

func split(full string) store.Namespace {
	db, coll, _ := strings.Cut(full, ".")
	return store.Namespace{DB: db, Coll: coll}
}

// collMod changes an index: hidden, or expireAfterSeconds.
func collMod(_ context.Context, r *request) (bson.D, error) {
	ns, err := r.target()
	if err != nil {
		return nil, err
	}
	d, err := r.args().document("index")
	if err != nil || d == nil {
		return nil, err
	}
	a := arguments{of: "collMod.index", in: d}
	if err := a.known([]string{"name", "keyPattern", "expireAfterSeconds", "hidden"}); err != nil {
		return nil, err
	}
	info, ok := r.b.store.Collection(ns)
	if !ok {
		return nil, failure(codeNamespaceNotFound, "ns does not exist: %s", ns)
	}
	name, err := indexNamed(info, d)
	if err != nil {
		return nil, err
	}
	change, err := indexChange(a)
	if err != nil {
		return nil, err
	}
	r.seq, err = r.b.store.Alter(r.era, ns, name, change)
	return nil, err
}

func indexChange(a arguments) (func(store.Spec) *store.Spec, error) {
	seconds, err := a.integer("expireAfterSeconds", -1)
	if err != nil {
		return nil, err
	}
	hidden, err := a.truth("hidden", false)
	if err != nil {
		return nil, err
	}
	_, sayHidden := fields(a.in).lookup("hidden")
	return func(s store.Spec) *store.Spec {
		s.Shown = slices.Clone(s.Shown)
		if seconds >= 0 {
			s.ExpireAfterSeconds, s.Shown = &seconds, with(s.Shown, "expireAfterSeconds", seconds)
		}
		if sayHidden {
			s.Hidden, s.Shown = hidden, with(s.Shown, "hidden", hidden)
		}
		return &s
	}, nil
}

func with(d bson.D, key string, v any) bson.D {
	for i := range d {
		if d[i].Key == key {
			d[i].Value = v
			return d
		}
	}
	return append(d, bson.E{Key: key, Value: v})
}
