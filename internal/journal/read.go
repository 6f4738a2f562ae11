package journal

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Entry is a step as it was recorded. Ended and Deadline are zero when there is none.
type Entry struct {
	ID       int64           `json:"id"`
	Run      string          `json:"run"`
	Node     string          `json:"node,omitempty"`
	Op       string          `json:"op"`
	Attempt  int             `json:"attempt"` // from 1, per run, node and op
	Began    time.Time       `json:"began"`
	Deadline time.Time       `json:"deadline,omitzero"`
	Ended    time.Time       `json:"ended,omitzero"`
	Status   string          `json:"status"`
	Intent   json.RawMessage `json:"intent,omitempty"`
	Evidence json.RawMessage `json:"evidence,omitempty"`
	Err      string          `json:"error,omitempty"`
}

// Filter picks entries; a zero field picks all.
type Filter struct {
	Run, Node, Op, Status string
	Since                 time.Time
	Limit                 int // the newest so many; 0 means 1000
}

const defaultLimit = 1000

const selectSteps = `SELECT id, run, node, op, attempt, began, deadline, ended, status, intent, evidence, error FROM steps`

// Last returns the newest step of op on node, whatever its status, and whether there is one.
func (j *Journal) Last(ctx context.Context, node, op string) (Entry, bool, error) {
	list, err := j.query(ctx, ` WHERE node = ? AND op = ? ORDER BY id DESC LIMIT 1`, node, op)
	if err != nil || len(list) == 0 {
		return Entry{}, false, err
	}
	return list[0], true, nil
}

// Entries returns the steps that f picks, oldest first.
func (j *Journal) Entries(ctx context.Context, f Filter) ([]Entry, error) {
	where, args := f.where()
	limit := f.Limit
	if limit <= 0 {
		limit = defaultLimit
	}
	list, err := j.query(ctx, where+` ORDER BY id DESC LIMIT ?`, append(args, limit)...)
	slices.Reverse(list)
	return list, err
}

func (f Filter) where() (string, []any) {
	var terms []string
	var args []any
	for _, c := range []struct{ column, value string }{
		{"run", f.Run}, {"node", f.Node}, {"op", f.Op}, {"status", f.Status},
	} {
		if c.value != "" {
			terms, args = append(terms, c.column+" = ?"), append(args, c.value)
		}
	}
	if !f.Since.IsZero() {
		terms, args = append(terms, "began >= ?"), append(args, micros(f.Since))
	}
	if len(terms) == 0 {
		return "", nil
	}
	return " WHERE " + strings.Join(terms, " AND "), args
}

func (j *Journal) query(ctx context.Context, tail string, args ...any) ([]Entry, error) {
	list, err := collect(ctx, j.db, scanEntry, selectSteps+tail, args...)
	if err != nil {
		return nil, fmt.Errorf("read journal steps: %w", err)
	}
	return list, nil
}

func scanEntry(rows *sql.Rows) (Entry, error) {
	var e Entry
	var began int64
	var deadline, ended sql.NullInt64
	var intent, evidence sql.NullString
	err := rows.Scan(&e.ID, &e.Run, &e.Node, &e.Op, &e.Attempt, &began, &deadline, &ended, &e.Status, &intent, &evidence, &e.Err)
	e.Began, e.Deadline, e.Ended = moment(began), momentOrZero(deadline), momentOrZero(ended)
	e.Intent, e.Evidence = raw(intent), raw(evidence)
	return e, err
}

// Observation is a stage at which a node was seen.
type Observation struct {
	ID       int64           `json:"id"`
	Run      string          `json:"run"`
	Node     string          `json:"node"`
	Stage    string          `json:"stage"`
	At       time.Time       `json:"at"`
	Evidence json.RawMessage `json:"evidence,omitempty"`
}

// Observations returns the newest limit observations of node (of all nodes when empty), oldest first.
func (j *Journal) Observations(ctx context.Context, node string, limit int) ([]Observation, error) {
	if limit <= 0 {
		limit = defaultLimit
	}
	list, err := collect(ctx, j.db, func(rows *sql.Rows) (Observation, error) {
		var o Observation
		var at int64
		var evidence sql.NullString
		err := rows.Scan(&o.ID, &o.Run, &o.Node, &o.Stage, &at, &evidence)
		o.At, o.Evidence = moment(at), raw(evidence)
		return o, err
	}, `SELECT id, run, node, stage, at, evidence FROM observations WHERE ?1 = '' OR node = ?1 ORDER BY id DESC LIMIT ?2`, node, limit)
	if err != nil {
		return nil, fmt.Errorf("read journal observations: %w", err)
	}
	slices.Reverse(list)
	return list, nil
}

func collect[T any](ctx context.Context, db *sql.DB, scan func(*sql.Rows) (T, error), query string, args ...any) ([]T, error) {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, rows.Err()
}

func moment(micros int64) time.Time { return time.UnixMicro(micros).UTC() }

func momentOrZero(v sql.NullInt64) time.Time {
	if !v.Valid {
		return time.Time{}
	}
	return moment(v.Int64)
}

func raw(v sql.NullString) json.RawMessage {
	if !v.Valid {
		return nil
	}
	return json.RawMessage(v.String)
}
