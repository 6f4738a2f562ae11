package journal

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"time"
)

// Call is one call of the command line: who asked for what. Command holds no secrets; the caller sees to that.
type Call struct {
	ID      int64     `json:"id"`
	Who     string    `json:"who"` // user@host
	PID     int       `json:"pid"`
	Verb    string    `json:"verb"`
	Command string    `json:"command"`
	At      time.Time `json:"at"`
	Ended   time.Time `json:"ended,omitzero"` // zero: still running, or killed
	Exit    int       `json:"exit"`           // meaningful when Ended is set
}

// Audit records a call before it does anything and returns its id. ID, At, Ended and Exit of c are ignored.
func (j *Journal) Audit(ctx context.Context, c Call) (int64, error) {
	res, err := j.db.ExecContext(ctx, `INSERT INTO audit (who, pid, verb, command, at) VALUES (?, ?, ?, ?, ?)`,
		c.Who, c.PID, c.Verb, c.Command, micros(j.now()))
	if err != nil {
		return 0, fmt.Errorf("journal audit of %s: %w", c.Verb, err)
	}
	return res.LastInsertId()
}

// AuditEnd records a call's exit code, once, even when ctx is cancelled.
func (j *Journal) AuditEnd(ctx context.Context, id int64, exit int) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
	defer cancel()
	res, err := j.db.ExecContext(ctx, `UPDATE audit SET ended = ?, exit = ? WHERE id = ? AND ended IS NULL`, micros(j.now()), exit, id)
	return ended(res, err, "audit entry", id)
}

// Calls returns the newest limit calls, oldest first.
func (j *Journal) Calls(ctx context.Context, limit int) ([]Call, error) {
	if limit <= 0 {
		limit = defaultLimit
	}
	list, err := collect(ctx, j.db, func(rows *sql.Rows) (Call, error) {
		var c Call
		var at int64
		var ended, exit sql.NullInt64
		err := rows.Scan(&c.ID, &c.Who, &c.PID, &c.Verb, &c.Command, &at, &ended, &exit)
		c.At, c.Ended, c.Exit = moment(at), momentOrZero(ended), int(exit.Int64)
		return c, err
	}, `SELECT id, who, pid, verb, command, at, ended, exit FROM audit ORDER BY id DESC LIMIT ?`, limit)
	if err != nil {
		return nil, fmt.Errorf("read journal audit: %w", err)
	}
	slices.Reverse(list)
	return list, nil
}
