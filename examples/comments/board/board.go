// Package board holds what people write: threads and comments, how they are named, and what is accepted from outside.
// Values only: it knows no HTTP and no database. Input that can't be accepted is a [Problems] with every reason at once.
package board

import (
	"errors"
	"time"
)

// What a store answers when it is well but can't do what was asked.
var (
	ErrNotFound = errors.New("not found")
	// ErrConflict: the idempotency key was used before, for something else.
	ErrConflict = errors.New("the same key was used for another text")
)

// Thread is a place to talk. The bson names are the collection's contract: see package database.
type Thread struct {
	ID        string    `json:"id" bson:"_id"`
	Title     string    `json:"title" bson:"title"`
	Author    string    `json:"author" bson:"author"`
	Node      string    `json:"node" bson:"node"` // where it was written
	Hidden    bool      `json:"hidden,omitempty" bson:"hidden"`
	CreatedAt time.Time `json:"created_at" bson:"createdAt"`
	ActiveAt  time.Time `json:"active_at" bson:"activeAt"` // of the newest comment
	// Revision grows with each write, so that of two sightings the newer is known without a common clock.
	Revision int64 `json:"revision" bson:"revision"`
}

// Comment is one person's words in a thread.
type Comment struct {
	ID        string    `json:"id" bson:"_id"`
	Thread    string    `json:"thread" bson:"thread"`
	Author    string    `json:"author" bson:"author"`
	Text      string    `json:"text" bson:"text"`
	Node      string    `json:"node" bson:"node"`
	Votes     int64     `json:"votes" bson:"votes"`
	Hidden    bool      `json:"hidden,omitempty" bson:"hidden"`
	CreatedAt time.Time `json:"created_at" bson:"createdAt"`
	Revision  int64     `json:"revision" bson:"revision"`
}

// Public is t as everyone may see it: of a hidden thread only that it is hidden.
func (t Thread) Public() Thread {
	if t.Hidden {
		t.Title, t.Author = "", ""
	}
	return t
}

// Public is c as everyone may see it: of a hidden comment only that it is hidden.
func (c Comment) Public() Comment {
	if c.Hidden {
		c.Text, c.Author = "", ""
	}
	return c
}
