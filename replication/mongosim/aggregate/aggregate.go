// Package aggregate runs mongosim's aggregation pipelines over documents: $match, $sort, $skip, $limit, $project,
// $addFields, $set, $unset, $replaceRoot, $replaceWith, $unwind, $count, $group and $sortByCount. Stages that read or
// write other collections are refused by name; an unknown stage is answered as the server answers it.
//
// A pipeline pulls: each stage asks the one before it for the next document, and only $sort and $group hold them all.
package aggregate

import (
	"context"
	"slices"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/bsonval"
	"popfleet/replication/operators"
	"popfleet/replication/operators/expression"
)

// Source hands out documents; nil at the end.
type Source interface {
	Next(ctx context.Context) (bson.D, error)
}

// Pipeline is a compiled one. It may be run many times.
type Pipeline struct{ stages []stage }

// stage puts itself behind a source.
type stage func(Source) Source

// Compile reads the stages.
func Compile(stages []bson.D, vars operators.Variables) (*Pipeline, error) {
	p := &Pipeline{}
	for _, d := range stages {
		if len(d) != 1 {
			return nil, refuse(40323, "A pipeline stage specification object must contain exactly one field.")
		}
		s, err := compile(d, vars)
		if err != nil {
			return nil, err
		}
		p.stages = append(p.stages, s)
	}
	return p, nil
}

// Run puts the stages behind from.
func (p *Pipeline) Run(from Source) Source {
	for _, s := range p.stages {
		from = s(from)
	}
	return from
}

func refuse(code int32, format string, args ...any) error {
	return bsonval.Errorf(bsonval.Code(code), format, args...)
}

func compile(d bson.D, vars operators.Variables) (stage, error) {
	switch name, v := d[0].Key, d[0].Value; name {
	case "$match":
		return compileMatch(v, vars)
	case "$sort":
		return compileSort(v)
	case "$skip", "$limit":
		return compileBound(name, v)
	case "$project", "$addFields", "$set", "$unset", "$replaceRoot", "$replaceWith":
		return compileShape(name, d, vars)
	case "$unwind":
		return compileUnwind(v)
	case "$count":
		return compileCount(v)
	case "$group":
		return compileGroup(v, vars)
	case "$sortByCount":
		return compileSortByCount(v, vars)
	case "$changeStream":
		return nil, refuse(40573, "The $changeStream stage is not supported by mongosim")
	case "$lookup", "$graphLookup", "$unionWith", "$facet", "$bucket", "$bucketAuto", "$out", "$merge", "$sample", "$geoNear",
		"$indexStats", "$collStats", "$planCacheStats", "$redact", "$setWindowFields", "$densify", "$fill", "$documents",
		"$currentOp", "$listSessions", "$listLocalSessions", "$search", "$searchMeta", "$vectorSearch":
		return nil, refuse(238, "aggregation stage %s: mongosim does not have it", name)
	default:
		return nil, refuse(40324, "Unrecognized pipeline stage name: '%s'", name)
	}
}

// pull is a Source made of a function.
type pull func(context.Context) (bson.D, error)

func (p pull) Next(ctx context.Context) (bson.D, error) { return p(ctx) }

func compileMatch(v any, vars operators.Variables) (stage, error) {
	d, ok := v.(bson.D)
	if !ok {
		return nil, refuse(15959, "the match filter must be an expression in an object")
	}
	f, err := operators.CompileFilter(d, vars)
	if err != nil {
		return nil, err
	}
	return func(from Source) Source {
		return pull(func(ctx context.Context) (bson.D, error) {
			for {
				doc, err := from.Next(ctx)
				if doc == nil || err != nil {
					return nil, err
				}
				if ok, _, err := f.Match(doc); ok || err != nil {
					return doc, err
				}
			}
		})
	}, nil
}

func compileSort(v any) (stage, error) {
	d, ok := v.(bson.D)
	if !ok || len(d) == 0 {
		return nil, refuse(15973, "the $sort key specification must be an object with at least one field")
	}
	order, err := operators.CompileSort(d)
	if err != nil {
		return nil, err
	}
	return buffered(func(docs []bson.D) ([]bson.D, error) {
		slices.SortStableFunc(docs, order.Compare)
		return docs, nil
	}), nil
}

// buffered is a stage that needs all documents before it can hand out one.
func buffered(work func([]bson.D) ([]bson.D, error)) stage {
	return func(from Source) Source {
		var all []bson.D
		worked := false
		return pull(func(ctx context.Context) (bson.D, error) {
			if !worked {
				docs, err := drain(ctx, from)
				if err != nil {
					return nil, err
				}
				if all, err = work(docs); err != nil {
					return nil, err
				}
				worked = true
			}
			if len(all) == 0 {
				return nil, nil
			}
			doc := all[0]
			all = all[1:]
			return doc, nil
		})
	}
}

func drain(ctx context.Context, from Source) (docs []bson.D, err error) {
	for {
		doc, err := from.Next(ctx)
		if doc == nil || err != nil {
			return docs, err
		}
		docs = append(docs, doc)
	}
}

func compileBound(name string, v any) (stage, error) {
	n, exact := bsonval.ToInt64(v)
	if !bsonval.IsNumber(v) || !exact || n < 0 || n == 0 && name == "$limit" {
		return nil, refuse(5107201, "invalid argument to %s stage: %v", name, v)
	}
	return func(from Source) Source {
		left := n
		return pull(func(ctx context.Context) (bson.D, error) {
			if name == "$limit" {
				if left--; left < 0 {
					return nil, nil
				}
				return from.Next(ctx)
			}
			for ; left > 0; left-- {
				if doc, err := from.Next(ctx); doc == nil || err != nil {
					return nil, err
				}
			}
			return from.Next(ctx)
		})
	}, nil
}

// compileShape makes the stages that turn each document into another.
func compileShape(name string, d bson.D, vars operators.Variables) (stage, error) {
	var (
		shape func(bson.D) (bson.D, error)
		err   error
	)
	switch v := d[0].Value; name {
	case "$project":
		shape, err = projecting(v, vars)
	case "$unset":
		shape, err = unsetting(v, vars)
	case "$replaceRoot", "$replaceWith":
		shape, err = replacing(name, v, vars)
	default:
		shape, err = adding(d, vars)
	}
	if err != nil {
		return nil, err
	}
	return func(from Source) Source {
		return pull(func(ctx context.Context) (bson.D, error) {
			doc, err := from.Next(ctx)
			if doc == nil || err != nil {
				return nil, err
			}
			return shape(doc)
		})
	}, nil
}

func projecting(v any, vars operators.Variables) (func(bson.D) (bson.D, error), error) {
	spec, ok := v.(bson.D)
	if !ok || len(spec) == 0 {
		return nil, refuse(51272, "$project specification must be an object with at least one field")
	}
	p, err := operators.CompileProjection(spec, vars)
	return func(doc bson.D) (bson.D, error) {
		out, err := p.Apply(doc, operators.Positions{})
		return nonNil(out), err
	}, err
}

func unsetting(v any, vars operators.Variables) (func(bson.D) (bson.D, error), error) {
	list, ok := v.(bson.A)
	if !ok {
		list = bson.A{v}
	}
	spec := bson.D{}
	for _, v := range list {
		name, ok := v.(string)
		if !ok || name == "" || name[0] == '$' {
			return nil, refuse(31120, "$unset specification must be a string or an array containing only string values")
		}
		spec = append(spec, bson.E{Key: name, Value: int32(0)})
	}
	return projecting(spec, vars)
}

func replacing(name string, v any, vars operators.Variables) (func(bson.D) (bson.D, error), error) {
	if name == "$replaceRoot" {
		d, ok := v.(bson.D)
		if !ok || len(d) != 1 || d[0].Key != "newRoot" {
			return nil, refuse(40229, "expected an object with the one field newRoot as specification for $replaceRoot stage")
		}
		v = d[0].Value
	}
	expr, err := expression.Compile(v)
	return func(doc bson.D) (bson.D, error) {
		to, err := expr.Eval(expression.Scope{Root: doc, Now: vars.Now, Let: vars.Let})
		if err != nil {
			return nil, err
		}
		out, ok := to.(bson.D)
		if !ok {
			return nil, refuse(40228, "'newRoot' expression must evaluate to an object, but resulting value was of type: %s", bsonval.TypeName(to))
		}
		return nonNil(out), nil
	}, err
}

// adding uses the stage that updates have too; told to insert, it may change _id, as an aggregation may.
func adding(d bson.D, vars operators.Variables) (func(bson.D) (bson.D, error), error) {
	u, err := operators.CompileUpdate(bson.A{d}, nil)
	return func(doc bson.D) (bson.D, error) {
		out, _, err := u.Apply(doc, operators.ApplyInput{Now: vars.Now, Let: vars.Let, Insert: true})
		return nonNil(out), err
	}, err
}

// nonNil keeps an empty document from looking like the end.
func nonNil(d bson.D) bson.D {
	if d == nil {
		return bson.D{}
	}
	return d
}

func compileCount(v any) (stage, error) {
	name, ok := v.(string)
	if !ok || name == "" || name[0] == '$' {
		return nil, refuse(40156, "the count field must be a non-empty string that does not begin with '$'")
	}
	return buffered(func(docs []bson.D) ([]bson.D, error) {
		if len(docs) == 0 {
			return nil, nil
		}
		return []bson.D{{{Key: name, Value: int32(len(docs))}}}, nil
	}), nil
}
