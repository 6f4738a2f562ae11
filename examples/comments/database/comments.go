package database

import (
	"context"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"popfleet/examples/comments/board"
)

// AddComment keeps c, under the same rule as [DB.AddThread]. Whether its thread exists is the caller's to know.
func (d *DB) AddComment(ctx context.Context, c board.Comment) (board.Comment, error) {
	kept, fresh, err := insert(ctx, d.comments, c.ID, c)
	if err == nil && !fresh && (kept.Text != c.Text || kept.Author != c.Author) {
		return board.Comment{}, board.ErrConflict
	}
	return kept, err
}

// Comments lists a thread's comments, newest first, hidden ones too.
func (d *DB) Comments(ctx context.Context, thread string, from board.Cursor, limit int) ([]board.Comment, error) {
	filter := append(bson.D{{Key: "thread", Value: thread}}, before("createdAt", from)...)
	return list[board.Comment](ctx, d.comments, filter, descending("createdAt"), limit)
}

// Vote adds delta to a comment's votes. A vote whose answer was lost may have counted: $inc has no memory.
func (d *DB) Vote(ctx context.Context, id string, delta int) (board.Comment, error) {
	return change[board.Comment](ctx, d, d.comments, id, bson.D{
		{Key: "$inc", Value: bson.D{{Key: "votes", Value: int64(delta)}, {Key: "revision", Value: int64(1)}}},
		{Key: "$set", Value: bson.D{{Key: "changedAt", Value: time.Now().UTC()}}},
	})
}

// HideComment hides a comment or shows it again.
func (d *DB) HideComment(ctx context.Context, id string, hidden bool) (board.Comment, error) {
	return change[board.Comment](ctx, d, d.comments, id, set("hidden", hidden))
}

// ChangedThreads lists at most limit threads that changed at or after since, the latest change first.
func (d *DB) ChangedThreads(ctx context.Context, since time.Time, limit int) ([]board.Thread, error) {
	return list[board.Thread](ctx, d.threads, after(since), descending("changedAt"), limit)
}

// ChangedComments is ChangedThreads for the comments of one thread.
func (d *DB) ChangedComments(ctx context.Context, thread string, since time.Time, limit int) ([]board.Comment, error) {
	return list[board.Comment](ctx, d.comments, append(bson.D{{Key: "thread", Value: thread}}, after(since)...), descending("changedAt"), limit)
}

func after(since time.Time) bson.D {
	return bson.D{{Key: "changedAt", Value: bson.D{{Key: "$gte", Value: since}}}}
}
