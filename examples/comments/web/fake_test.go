package web

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"popfleet/examples/comments/board"
	"popfleet/examples/comments/live"
)

// memory is a store in memory, with the same contract as package database.
type memory struct {
	mu       sync.Mutex
	threads  map[string]board.Thread
	comments map[string]board.Comment
	err      error
}

func newMemory() *memory {
	return &memory{threads: map[string]board.Thread{}, comments: map[string]board.Comment{}}
}

var errAway = errors.New("dial tcp 127.0.0.1:27017: connection refused")

func (m *memory) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = err
}

// within runs f under the lock, unless the store is away.
func (m *memory) within(f func() error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return m.err
	}
	return f()
}

func (m *memory) AddThread(_ context.Context, t board.Thread) (out board.Thread, err error) {
	err = m.within(func() error {
		if old, ok := m.threads[t.ID]; ok {
			if old.Title != t.Title || old.Author != t.Author {
				return board.ErrConflict
			}
			t = old
		}
		m.threads[t.ID], out = t, t
		return nil
	})
	return out, err
}

func (m *memory) Thread(_ context.Context, id string) (out board.Thread, err error) {
	return m.changeThread(id, func(*board.Thread) {})
}

func (m *memory) changeThread(id string, f func(*board.Thread)) (out board.Thread, err error) {
	err = m.within(func() error {
		t, ok := m.threads[id]
		if !ok {
			return board.ErrNotFound
		}
		f(&t)
		m.threads[id], out = t, t
		return nil
	})
	return out, err
}

func (m *memory) Threads(_ context.Context, from board.Cursor, limit int, hidden bool) (out []board.Thread, err error) {
	err = m.within(func() error {
		out = []board.Thread{}
		for _, t := range m.threads {
			if (hidden || !t.Hidden) && later(from, t.ActiveAt, t.ID) {
				out = append(out, t)
			}
		}
		slices.SortFunc(out, func(a, b board.Thread) int {
			return cmp.Or(b.ActiveAt.Compare(a.ActiveAt), cmp.Compare(b.ID, a.ID))
		})
		out = out[:min(limit, len(out))]
		return nil
	})
	return out, err
}

func later(from board.Cursor, at time.Time, id string) bool {
	return from.ID == "" || at.Before(from.At) || at.Equal(from.At) && id < from.ID
}

func (m *memory) TouchThread(_ context.Context, id string, at time.Time) (board.Thread, error) {
	return m.changeThread(id, func(t *board.Thread) { t.ActiveAt = at; t.Revision++ })
}

func (m *memory) HideThread(_ context.Context, id string, hidden bool) (board.Thread, error) {
	return m.changeThread(id, func(t *board.Thread) { t.Hidden = hidden; t.Revision++ })
}

func (m *memory) AddComment(_ context.Context, c board.Comment) (out board.Comment, err error) {
	err = m.within(func() error {
		if old, ok := m.comments[c.ID]; ok {
			if old.Text != c.Text || old.Author != c.Author {
				return board.ErrConflict
			}
			c = old
		}
		m.comments[c.ID], out = c, c
		return nil
	})
	return out, err
}

func (m *memory) Comments(_ context.Context, thread string, from board.Cursor, limit int) (out []board.Comment, err error) {
	err = m.within(func() error {
		out = []board.Comment{}
		for _, c := range m.comments {
			if c.Thread == thread && later(from, c.CreatedAt, c.ID) {
				out = append(out, c)
			}
		}
		slices.SortFunc(out, func(a, b board.Comment) int {
			return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(b.ID, a.ID))
		})
		out = out[:min(limit, len(out))]
		return nil
	})
	return out, err
}

func (m *memory) changeComment(id string, f func(*board.Comment)) (out board.Comment, err error) {
	err = m.within(func() error {
		c, ok := m.comments[id]
		if !ok {
			return board.ErrNotFound
		}
		f(&c)
		c.Revision++
		m.comments[id], out = c, c
		return nil
	})
	return out, err
}

func (m *memory) Vote(_ context.Context, id string, delta int) (board.Comment, error) {
	return m.changeComment(id, func(c *board.Comment) { c.Votes += int64(delta) })
}

func (m *memory) HideComment(_ context.Context, id string, hidden bool) (board.Comment, error) {
	return m.changeComment(id, func(c *board.Comment) { c.Hidden = hidden })
}

func (m *memory) look(_ context.Context, topic string, _ time.Time) (out []live.Event, err error) {
	err = m.within(func() error {
		for _, c := range m.comments {
			if c.Thread == topic {
				out = append(out, CommentEvent(c))
			}
		}
		return nil
	})
	return out, err
}
