package mongosim

import (
	"context"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/replication/mongosim/aggregate"
	"popfleet/replication/mongosim/codec"
	"popfleet/replication/mongosim/store"
)

func aggregateCommand(ctx context.Context, r *request) (bson.D, error) {
	if _, is := r.body[0].Value.(string); !is {
		return nil, refused("an aggregation over a database")
	}
	ns, err := r.target()
	if err != nil {
		return nil, err
	}
	a := r.args()
	if explain, err := a.truth("explain", false); err != nil || explain {
		return nil, refused("explain")
	}
	if err := refuseCollation(a); err != nil {
		return nil, err
	}
	list, err := a.array("pipeline")
	if err != nil {
		return nil, err
	}
	stages, err := asDocuments(a, "pipeline", list)
	if err != nil {
		return nil, err
	}
	let, err := a.document("let")
	if err != nil {
		return nil, err
	}
	from, err := r.pipeline(ns, stages, let)
	if err != nil {
		return nil, err
	}
	n, err := r.cursorBatch()
	if err != nil {
		return nil, err
	}
	return r.answer(ctx, ns, from, n, false)
}

// pipeline gives a leading $match, and a $sort behind it, to the indexes.
func (r *request) pipeline(ns store.Namespace, stages []bson.D, let bson.D) (source, error) {
	var filter, sort bson.D
	rest := stages
	for _, lead := range []struct {
		name string
		to   *bson.D
	}{{"$match", &filter}, {"$sort", &sort}} {
		if len(rest) > 0 && len(rest[0]) == 1 && rest[0][0].Key == lead.name {
			if d, is := rest[0][0].Value.(bson.D); is && len(d) > 0 {
				*lead.to, rest = d, rest[1:]
			}
		}
	}
	p, err := aggregate.Compile(rest, r.variables(let))
	if err != nil {
		return nil, err
	}
	s, err := r.selection(ns, filter, sort, let)
	if err != nil {
		return nil, err
	}
	return encoded{p.Run(bodies{r.b.open(s)})}, nil
}

// bodies is what a pipeline starts from.
type bodies struct{ found *found }

func (s bodies) Next(ctx context.Context) (bson.D, error) {
	doc, _, err := s.found.next(ctx)
	if doc == nil || err != nil {
		return nil, err
	}
	return doc.Body, nil
}

// encoded is what a cursor hands out of a pipeline.
type encoded struct{ from aggregate.Source }

func (s encoded) next(ctx context.Context) (bson.Raw, error) {
	d, err := s.from.Next(ctx)
	if d == nil || err != nil {
		return nil, err
	}
	return codec.Encode(d)
}
