package mongosim

import (
	"context"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/mongosim/store"
	"popfleet/replication/operators"
)

// listed answers a list as a cursor over what passes the filter.
func (r *request) listed(ctx context.Context, ns store.Namespace, all []bson.D) (bson.D, error) {
	filter, err := r.args().document("filter")
	if err != nil {
		return nil, err
	}
	f, err := operators.CompileFilter(filter)
	if err != nil {
		return nil, err
	}
	var kept []bson.D
	for _, d := range all {
		ok, _, err := f.Match(d)
		if err != nil {
			return nil, err
		}
		if ok {
			kept = append(kept, d)
		}
	}
	from, err := listOf(kept)
	if err != nil {
		return nil, err
	}
	n, err := r.cursorBatch()
	if err != nil {
		return nil, err
	}
	return r.answer(ctx, ns, from, n, false)
}

func (r *request) cursorBatch() (int, error) {
	d, err := r.args().document("cursor")
	if err != nil {
		return 0, err
	}
	return batchSize(arguments{of: r.name + ".cursor", in: d}, firstBatch)
}

func listCollections(ctx context.Context, r *request) (bson.D, error) {
	short, err := r.args().truth("nameOnly", false)
	if err != nil {
		return nil, err
	}
	var all []bson.D
	for _, c := range r.b.store.Collections(r.db) {
		d := bson.D{{Key: "name", Value: c.Name}, {Key: "type", Value: "collection"}}
		if !short {
			d = append(d, bson.E{Key: "options", Value: bson.D{}},
				bson.E{Key: "info", Value: bson.D{{Key: "readOnly", Value: false}, {Key: "uuid", Value: c.UUID}}},
				bson.E{Key: "idIndex", Value: c.Indexes[0].Shown})
		}
		all = append(all, d)
	}
	return r.listed(ctx, store.Namespace{DB: r.db, Coll: "$cmd.listCollections"}, all)
}

func listIndexes(ctx context.Context, r *request) (bson.D, error) {
	ns, err := r.target()
	if err != nil {
		return nil, err
	}
	info, ok := r.b.store.Collection(ns)
	if !ok {
		return nil, failure(codeNamespaceNotFound, "ns does not exist: %s", ns)
	}
	var all []bson.D
	for _, x := range info.Indexes {
		all = append(all, x.Shown)
	}
	return r.listed(ctx, ns, all)
}

func listDatabases(_ context.Context, r *request) (bson.D, error) {
	short, err := r.args().truth("nameOnly", false)
	if err != nil {
		return nil, err
	}
	filter, err := r.args().document("filter")
	if err != nil {
		return nil, err
	}
	f, err := operators.CompileFilter(filter)
	if err != nil {
		return nil, err
	}
	list, total := bson.A{}, int64(0)
	for _, name := range r.b.store.Databases() {
		d := bson.D{{Key: "name", Value: name}}
		size := int64(0)
		for _, c := range r.b.store.Collections(name) {
			size += c.Bytes
		}
		full := append(d, bson.E{Key: "sizeOnDisk", Value: size}, bson.E{Key: "empty", Value: size == 0})
		if ok, _, err := f.Match(full); err != nil || !ok {
			continue
		}
		if total += size; short {
			full = d
		}
		list = append(list, full)
	}
	reply := bson.D{{Key: "databases", Value: list}}
	if !short {
		reply = append(reply, bson.E{Key: "totalSize", Value: total}, bson.E{Key: "totalSizeMb", Value: total >> 20})
	}
	return reply, nil
}

// stats answers collStats and dbStats.
func stats(_ context.Context, r *request) (bson.D, error) {
	if r.name == "collStats" {
		info, _ := r.b.store.Collection(r.ns())
		average := int64(0)
		if info.Count > 0 {
			average = info.Bytes / int64(info.Count)
		}
		return bson.D{{Key: "ns", Value: r.ns().String()}, {Key: "count", Value: int32(info.Count)}, {Key: "size", Value: info.Bytes},
			{Key: "avgObjSize", Value: average}, {Key: "storageSize", Value: info.Bytes}, {Key: "nindexes", Value: int32(len(info.Indexes))}}, nil
	}
	colls, count, size, indexes := r.b.store.Collections(r.db), 0, int64(0), 0
	for _, c := range colls {
		count, size, indexes = count+c.Count, size+c.Bytes, indexes+len(c.Indexes)
	}
	return bson.D{{Key: "db", Value: r.db}, {Key: "collections", Value: int32(len(colls))}, {Key: "objects", Value: int32(count)},
		{Key: "dataSize", Value: size}, {Key: "storageSize", Value: size}, {Key: "indexes", Value: int32(indexes)}}, nil
}
