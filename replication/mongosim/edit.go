package mongosim

import (
	"context"
	"errors"
	"slices"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/bsonval"
	"popfleet/replication/mongosim/store"
	"popfleet/replication/operators"
)

// selection names documents: what find, update, delete and findAndModify have in common.
type selection struct {
	ns     store.Namespace
	filter *operators.Filter
	sort   *operators.Sort
	query  store.Query
}

func (r *request) selection(ns store.Namespace, filter, sort, let bson.D) (s selection, err error) {
	s.ns = ns
	if s.filter, err = operators.CompileFilter(filter, r.variables(let)); err != nil {
		return s, err
	}
	var parts []store.KeyPart
	if len(sort) > 0 && sort[0].Key == "$natural" { // natural order is what a scan without a sort gives
		return s, naturalOnly(sort, filter, &s)
	}
	if parts, err = sortOf(sort); err != nil {
		return s, err
	}
	if len(parts) > 0 {
		if s.sort, err = operators.CompileSort(sort); err != nil {
			return s, err
		}
	}
	s.query = store.QueryOf(filter, parts)
	return s, nil
}

func naturalOnly(sort, filter bson.D, s *selection) error {
	if len(sort) > 1 || !bsonval.Equal(sort[0].Value, int32(1)) {
		return refused("$natural in other than ascending order")
	}
	s.query = store.QueryOf(nil, nil)
	return nil
}

// found walks the documents that match, in the order of the sort.
type found struct {
	selection
	scan     *store.Scan
	gathered bool
	sorted   []*store.Doc // all of them, where no index gives the order
	walked   int
}

func (b *Backend) open(s selection) *found {
	return &found{selection: s, scan: b.store.Open(s.ns, s.query)}
}

// next is the next match; nil at the end.
func (f *found) next(ctx context.Context) (*store.Doc, operators.Positions, error) {
	if f.sort == nil || f.scan.Sorted {
		return f.match(ctx)
	}
	if !f.gathered {
		if err := f.gather(ctx); err != nil {
			return nil, operators.Positions{}, err
		}
	}
	return f.pop()
}

// match is the next match of the scan.
func (f *found) match(ctx context.Context) (*store.Doc, operators.Positions, error) {
	for {
		doc, ok := f.scan.Next()
		if !ok {
			return nil, operators.Positions{}, nil
		}
		if f.walked++; f.walked%64 == 0 && ctx.Err() != nil {
			return nil, operators.Positions{}, context.Cause(ctx)
		}
		match, at, err := f.filter.Match(doc.Body)
		if err != nil || match {
			return doc, at, err
		}
	}
}

// gather matches and sorts all; then pop hands them out.
func (f *found) gather(ctx context.Context) error {
	f.gathered = true
	for {
		doc, _, err := f.match(ctx)
		if err != nil {
			return err
		}
		if doc == nil {
			break
		}
		f.sorted = append(f.sorted, doc)
	}
	slices.SortStableFunc(f.sorted, func(a, b *store.Doc) int { return f.sort.Compare(a.Body, b.Body) })
	return nil
}

func (f *found) pop() (*store.Doc, operators.Positions, error) {
	if len(f.sorted) == 0 {
		return nil, operators.Positions{}, nil
	}
	doc := f.sorted[0]
	f.sorted = f.sorted[1:]
	_, at, err := f.filter.Match(doc.Body)
	return doc, at, err
}

// edit is a change to selected documents.
type edit struct {
	selection
	// change works out the next version: nil deletes, before itself leaves the document as it is. It may run several
	// times and must have no effect of its own.
	change func(before *store.Doc, at operators.Positions) (after *store.Doc, err error)
	// record names what a retry of this statement answers; nil for a write that can't be retried.
	record func(before, after *store.Doc) *store.Stmt
}

var errAgain = errors.New("look again")

// one changes the first document that matches, exactly once: what was selected is compared and replaced in one step, and
// selected anew if it changed meanwhile. before is nil if nothing matches.
func (r *request) one(ctx context.Context, e edit) (before, after *store.Doc, err error) {
	for ctx.Err() == nil {
		doc, at, err := r.b.open(e.selection).next(ctx)
		if err != nil || doc == nil {
			return nil, nil, err
		}
		before, after, err = r.step(e, doc, at)
		if !errors.Is(err, errAgain) {
			return before, after, err
		}
	}
	return nil, nil, context.Cause(ctx)
}

// step changes one document that matched as doc, alone among the writers of that document.
func (r *request) step(e edit, doc *store.Doc, at operators.Positions) (before, after *store.Doc, err error) {
	unlock := r.b.store.Lock(e.ns, doc.Key)
	defer unlock()
	if cur := r.b.store.Get(e.ns, doc.Key); cur != doc {
		if cur == nil || e.sort != nil {
			return nil, nil, errAgain
		}
		var match bool
		if match, at, err = e.filter.Match(cur.Body); err != nil {
			return nil, nil, err
		}
		if !match {
			return nil, nil, errAgain
		}
		doc = cur
	}
	if after, err = e.change(doc, at); err != nil || after == doc {
		return doc, after, err
	}
	c := store.Change{Before: doc, After: after}
	if e.record != nil {
		c.Stmt = e.record(doc, after)
	}
	seq, err := r.b.store.Commit(r.era, e.ns, c)
	if errors.Is(err, store.ErrConflict) {
		return nil, nil, errAgain
	}
	if err == nil {
		r.seq = seq
	}
	return doc, after, err
}

// many changes every document that matches at one moment, each in a step of its own; one that changed so that it doesn't
// match any more is left alone.
func (r *request) many(ctx context.Context, e edit, each func(before, after *store.Doc)) error {
	f := r.b.open(e.selection)
	e.sort = nil
	for {
		doc, at, err := f.next(ctx)
		if err != nil || doc == nil {
			return err
		}
		before, after, err := r.step(e, doc, at)
		if errors.Is(err, errAgain) {
			before, after, err = r.retryOne(ctx, e, doc)
		}
		if err != nil {
			return err
		}
		if before != nil {
			each(before, after)
		}
	}
}

// retryOne follows a document that changed while many came to it.
func (r *request) retryOne(ctx context.Context, e edit, doc *store.Doc) (before, after *store.Doc, err error) {
	for ctx.Err() == nil {
		cur := r.b.store.Get(e.ns, doc.Key)
		if cur == nil {
			return nil, nil, nil
		}
		match, at, err := e.filter.Match(cur.Body)
		if err != nil || !match {
			return nil, nil, err
		}
		if before, after, err = r.step(e, cur, at); !errors.Is(err, errAgain) {
			return before, after, err
		}
	}
	return nil, nil, context.Cause(ctx)
}

// variables are what expressions may name.
func (r *request) variables(let bson.D) operators.Variables {
	return operators.Variables{Now: r.b.options.Now(), Let: let}
}
