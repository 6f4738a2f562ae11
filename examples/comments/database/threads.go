package database

import (
	"context"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/examples/comments/board"
)

// AddThread keeps t. When one of that name is there with the same words, the request came twice, and that one is
// returned; with other words it is a conflict.
func (d *DB) AddThread(ctx context.Context, t board.Thread) (board.Thread, error) {
	kept, fresh, err := insert(ctx, d.threads, t.ID, t)
	if err == nil && !fresh && (kept.Title != t.Title || kept.Author != t.Author) {
		return board.Thread{}, board.ErrConflict
	}
	return kept, err
}

// Thread returns one, hidden or not.
func (d *DB) Thread(ctx context.Context, id string) (board.Thread, error) {
	return get[board.Thread](ctx, d.threads, id)
}

// Threads lists from the one most recently active on; hidden ones only when asked.
func (d *DB) Threads(ctx context.Context, from board.Cursor, limit int, hidden bool) ([]board.Thread, error) {
	filter := append(bson.D{}, before("activeAt", from)...)
	if !hidden {
		filter = append(filter, bson.E{Key: "hidden", Value: false})
	}
	return list[board.Thread](ctx, d.threads, filter, descending("activeAt"), limit)
}

// HideThread hides a thread or shows it again.
func (d *DB) HideThread(ctx context.Context, id string, hidden bool) (board.Thread, error) {
	return change[board.Thread](ctx, d, d.threads, id, set("hidden", hidden))
}

// TouchThread notes a comment's time. $max, so that it may come twice or late.
func (d *DB) TouchThread(ctx context.Context, id string, at time.Time) (board.Thread, error) {
	return change[board.Thread](ctx, d, d.threads, id, append(changed(), bson.E{Key: "$max", Value: bson.D{{Key: "activeAt", Value: at}}}))
}

func set(field string, value any) bson.D {
	return bson.D{
		{Key: "$inc", Value: bson.D{{Key: "revision", Value: int64(1)}}},
		{Key: "$set", Value: bson.D{{Key: field, Value: value}, {Key: "changedAt", Value: time.Now().UTC()}}},
	}
}

// changed marks a document so that a look for changes finds it.
func changed() bson.D {
	return bson.D{
		{Key: "$inc", Value: bson.D{{Key: "revision", Value: int64(1)}}},
		{Key: "$set", Value: bson.D{{Key: "changedAt", Value: time.Now().UTC()}}},
	}
}
