package web

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"popfleet/examples/comments/board"
	"popfleet/examples/comments/live"
)

// IdempotencyKey makes a POST that is sent twice one document.
const IdempotencyKey = "Idempotency-Key"

type aboutAnswer struct {
	Node       string `json:"node"`
	Version    string `json:"version"`
	Moderation bool   `json:"moderation"` // there is a moderator's token
	Moderator  bool   `json:"moderator"`  // and this request shows it
}

func (s *Server) about(r *http.Request) (int, any, error) {
	return http.StatusOK, aboutAnswer{Node: s.options.Node, Version: s.options.Version,
		Moderation: s.options.ModeratorToken != "", Moderator: s.moderator(r)}, nil
}

// threadPage and commentPage are lists; Next is the cursor for what comes after, empty at the end.
type threadPage struct {
	Threads []board.Thread `json:"threads"`
	Next    string         `json:"next,omitempty"`
}

type commentPage struct {
	Comments []board.Comment `json:"comments"`
	Next     string          `json:"next,omitempty"`
}

func (s *Server) listThreads(r *http.Request) (int, any, error) {
	from, limit, err := paging(r)
	if err != nil {
		return 0, nil, err
	}
	all, err := s.store.Threads(r.Context(), from, limit+1, s.moderator(r))
	if err != nil {
		return 0, nil, err
	}
	p := threadPage{Threads: all[:min(limit, len(all))]}
	if len(all) > limit {
		last := p.Threads[limit-1]
		p.Next = board.Cursor{At: last.ActiveAt, ID: last.ID}.String()
	}
	return http.StatusOK, p, nil
}

func (s *Server) listComments(r *http.Request) (int, any, error) {
	from, limit, err := paging(r)
	if err != nil {
		return 0, nil, err
	}
	thread, err := s.visible(r)
	if err != nil {
		return 0, nil, err
	}
	all, err := s.store.Comments(r.Context(), thread.ID, from, limit+1)
	if err != nil {
		return 0, nil, err
	}
	p := commentPage{Comments: all[:min(limit, len(all))]}
	if len(all) > limit {
		last := p.Comments[limit-1]
		p.Next = board.Cursor{At: last.CreatedAt, ID: last.ID}.String()
	}
	if !s.moderator(r) {
		for i := range p.Comments {
			p.Comments[i] = p.Comments[i].Public()
		}
	}
	return http.StatusOK, p, nil
}

func paging(r *http.Request) (board.Cursor, int, error) {
	q := r.URL.Query()
	from, err := board.ParseCursor(q.Get("before"))
	if err != nil {
		return from, 0, fmt.Errorf("%w: %w", errBadRequest, err)
	}
	limit, err := board.ParseLimit(q.Get("limit"))
	if err != nil {
		return from, 0, fmt.Errorf("%w: %w", errBadRequest, err)
	}
	return from, limit, nil
}

func (s *Server) getThread(r *http.Request) (int, any, error) {
	t, err := s.visible(r)
	return http.StatusOK, t, err
}

// visible is the path's thread, if the client may see it.
func (s *Server) visible(r *http.Request) (board.Thread, error) {
	id := r.PathValue("thread")
	if !board.ValidID(id) {
		return board.Thread{}, board.ErrNotFound
	}
	t, err := s.store.Thread(r.Context(), id)
	if err == nil && t.Hidden && !s.moderator(r) {
		return board.Thread{}, board.ErrNotFound
	}
	return t, err
}

func (s *Server) addThread(r *http.Request) (int, any, error) {
	var in board.ThreadInput
	id, err := s.create(r, "threads", &in)
	if err != nil {
		return 0, nil, err
	}
	t, err := in.Thread(s.options.Node, id, time.Now())
	if err != nil {
		return 0, nil, err
	}
	if t, err = s.store.AddThread(r.Context(), t); err != nil {
		return 0, nil, err
	}
	s.tellThread(t)
	return http.StatusCreated, t, nil
}

func (s *Server) addComment(r *http.Request) (int, any, error) {
	var in board.CommentInput
	id, err := s.create(r, r.PathValue("thread"), &in)
	if err != nil {
		return 0, nil, err
	}
	thread, err := s.visible(r)
	if err != nil {
		return 0, nil, err
	}
	c, err := in.Comment(thread.ID, s.options.Node, id, time.Now())
	if err != nil {
		return 0, nil, err
	}
	if c, err = s.store.AddComment(r.Context(), c); err != nil {
		return 0, nil, err
	}
	s.tellComment(c)
	// The comment is kept; where its thread stands in the list is worth a try and no failure.
	if thread, err = s.store.TouchThread(r.Context(), thread.ID, c.CreatedAt); err != nil {
		s.options.Log.Warn("note a thread's activity", "thread", c.Thread, "error", err)
	} else {
		s.tellThread(thread)
	}
	return http.StatusCreated, c, nil
}

// create reads the input of something new and names it.
func (s *Server) create(r *http.Request, place string, in any) (id string, err error) {
	key := r.Header.Get(IdempotencyKey)
	if err := board.CheckKey(key); err != nil {
		return "", fmt.Errorf("%w: %w", errBadRequest, err)
	}
	return board.NewID(place, key), read(r, in)
}

func (s *Server) vote(r *http.Request) (int, any, error) {
	var in board.VoteInput
	if err := read(r, &in); err != nil {
		return 0, nil, err
	}
	if err := in.Check(); err != nil {
		return 0, nil, err
	}
	id := r.PathValue("comment")
	if !board.ValidID(id) {
		return 0, nil, board.ErrNotFound
	}
	c, err := s.store.Vote(r.Context(), id, in.Delta)
	if err != nil {
		return 0, nil, err
	}
	s.tellComment(c)
	return http.StatusOK, c.Public(), nil
}

func (s *Server) hideThread(r *http.Request) (int, any, error) {
	hidden, id, err := decision(r, "thread")
	if err != nil {
		return 0, nil, err
	}
	t, err := s.store.HideThread(r.Context(), id, hidden)
	if err != nil {
		return 0, nil, err
	}
	s.tellThread(t)
	return http.StatusOK, t, nil
}

func (s *Server) hideComment(r *http.Request) (int, any, error) {
	hidden, id, err := decision(r, "comment")
	if err != nil {
		return 0, nil, err
	}
	c, err := s.store.HideComment(r.Context(), id, hidden)
	if err != nil {
		return 0, nil, err
	}
	s.tellComment(c)
	return http.StatusOK, c, nil
}

func decision(r *http.Request, what string) (hidden bool, id string, err error) {
	var in board.HiddenInput
	if err := read(r, &in); err != nil {
		return false, "", err
	}
	if err := in.Check(); err != nil {
		return false, "", err
	}
	if id = r.PathValue(what); !board.ValidID(id) {
		return false, "", board.ErrNotFound
	}
	return *in.Hidden, id, nil
}

func (s *Server) tellThread(t board.Thread)   { s.hub.Publish(ThreadsTopic, ThreadEvent(t)) }
func (s *Server) tellComment(c board.Comment) { s.hub.Publish(c.Thread, CommentEvent(c)) }

// ThreadsTopic is the list of threads; any other topic is a thread's name.
const ThreadsTopic = "threads"

// ThreadEvent is what watchers of the list are told of t.
func ThreadEvent(t board.Thread) live.Event {
	return live.Event{Kind: "thread", ID: t.ID, Revision: t.Revision, Data: encode(t.Public())}
}

// CommentEvent is what watchers of its thread are told of c.
func CommentEvent(c board.Comment) live.Event {
	return live.Event{Kind: "comment", ID: c.ID, Revision: c.Revision, Data: encode(c.Public())}
}

func encode(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("encode %T: %v", v, err)) // strings, numbers and times only: can't be
	}
	return data
}
