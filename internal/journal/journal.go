// Package journal is the operator's record of what was observed and done, step by step, with evidence. A step's intent
// is on disk, synced, before the step acts; its outcome is written once. Nothing that ended is changed and nothing is
// deleted: triggers in the database refuse it, whoever asks.
//
// The journal is for people and for audits. It is never the truth about a node, which is always observed anew: with
// the file gone, a fleet still converges. The schema is described in docs/formats/journal.md.
package journal

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"popfleet/internal/sqlitefile"
)

// Journal is an open journal. Its methods may be called from several goroutines, and several processes may have the
// same file open.
type Journal struct {
	db  *sql.DB
	now func() time.Time
}

// writeTimeout bounds the recording of an end, which happens even when the run is being stopped.
const writeTimeout = 10 * time.Second

// Open opens the journal at path, made when absent, readable by its owner only.
func Open(path string) (*Journal, error) {
	db, err := sqlitefile.Open(path, sqlitefile.Kind{Schema: schema, Version: schemaVersion, Writer: "fleet", Durability: sqlitefile.Synced})
	if err != nil {
		return nil, fmt.Errorf("open journal %s: %w (a journal that is damaged can be moved away; the fleet is observed anew)", path, err)
	}
	return &Journal{db: db, now: time.Now}, nil
}

// Close closes the journal. Steps that did not end stay open, see [Journal.Interrupt].
func (j *Journal) Close() error { return j.db.Close() }

// Statuses of a step.
const (
	Doing       = "doing"
	Done        = "done"
	Failed      = "failed"
	Skipped     = "skipped"
	Interrupted = "interrupted"
)

// Step is what is about to be done. Intent is stored as JSON, with secrets redacted by their own marshaller.
type Step struct {
	Run      string // id of the run; required
	Node     string // empty for the fleet as a whole
	Op       string // required
	Deadline time.Time
	Intent   any
}

// Outcome is how a step ended.
type Outcome struct {
	Status   string // Done, Failed, Skipped or Interrupted
	Evidence any
	Err      string
}

// Begin records the intent of a step and returns the step's id. When it returns, the record is on disk.
func (j *Journal) Begin(ctx context.Context, s Step) (int64, error) {
	if s.Run == "" || s.Op == "" {
		return 0, fmt.Errorf("journal: a step needs run and op, got %q and %q", s.Run, s.Op)
	}
	intent, err := encode(s.Intent)
	if err != nil {
		return 0, fmt.Errorf("journal intent of %s: %w", s.Op, err)
	}
	res, err := j.db.ExecContext(ctx, `
		INSERT INTO steps (run, node, op, attempt, began, deadline, intent)
		VALUES (?1, ?2, ?3, 1 + (SELECT count(*) FROM steps WHERE run = ?1 AND node = ?2 AND op = ?3), ?4, ?5, ?6)`,
		s.Run, s.Node, s.Op, micros(j.now()), microsOrNull(s.Deadline), intent)
	if err != nil {
		return 0, fmt.Errorf("journal begin of %s: %w", s.Op, err)
	}
	return res.LastInsertId()
}

// ErrEnded means that the step has ended already, or never began.
var ErrEnded = errors.New("the step has ended or does not exist")

// End records how a step ended, once. It does so even when ctx is cancelled: a stopped run's steps have an end too.
func (j *Journal) End(ctx context.Context, id int64, o Outcome) error {
	switch o.Status {
	case Done, Failed, Skipped, Interrupted:
	default:
		return fmt.Errorf("journal end of step %d: status %q is none", id, o.Status)
	}
	evidence, err := encode(o.Evidence)
	if err != nil {
		return fmt.Errorf("journal evidence of step %d: %w", id, err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
	defer cancel()
	res, err := j.db.ExecContext(ctx, `
		UPDATE steps SET ended = ?, status = ?, evidence = ?, error = ? WHERE id = ? AND status = 'doing'`,
		micros(j.now()), o.Status, evidence, o.Err, id)
	return ended(res, err, "step", id)
}

func ended(res sql.Result, err error, what string, id int64) error {
	if err != nil {
		return fmt.Errorf("journal end of %s %d: %w", what, id, err)
	}
	if n, err := res.RowsAffected(); err != nil || n != 1 {
		return fmt.Errorf("journal end of %s %d: %w", what, id, errors.Join(ErrEnded, err))
	}
	return nil
}

// BesideLock begins the ids of runs that work without the run lock, such as a controller's: they are alive while another
// run holds it, and end their own steps.
const BesideLock = "controller-"

// Interrupt ends every open step of other runs than run as Interrupted and returns how many there were. Call it with
// the run lock held: then no other run is alive.
func (j *Journal) Interrupt(ctx context.Context, run string) (int64, error) {
	res, err := j.db.ExecContext(ctx, `
		UPDATE steps SET ended = ?, status = 'interrupted', error = 'the run ended without saying how'
		WHERE status = 'doing' AND run <> ? AND run NOT LIKE ?`, micros(j.now()), run, BesideLock+"%")
	if err != nil {
		return 0, fmt.Errorf("journal interrupted steps: %w", err)
	}
	return res.RowsAffected()
}

// Observe records at which stage a node was seen, and how that is known.
func (j *Journal) Observe(ctx context.Context, run, node, stage string, evidence any) error {
	text, err := encode(evidence)
	if err != nil {
		return fmt.Errorf("journal observation of %s: %w", node, err)
	}
	_, err = j.db.ExecContext(ctx, `INSERT INTO observations (run, node, stage, at, evidence) VALUES (?, ?, ?, ?, ?)`,
		run, node, stage, micros(j.now()), text)
	if err != nil {
		return fmt.Errorf("journal observation of %s: %w", node, err)
	}
	return nil
}

// maxValueBytes bounds one intent or evidence; what is larger is replaced by its size.
const maxValueBytes = 1 << 20

// encode gives NULL for nil.
func encode(v any) (any, error) {
	if v == nil {
		return nil, nil
	}
	text, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	if len(text) > maxValueBytes {
		return fmt.Sprintf(`{"omitted_bytes":%d}`, len(text)), nil
	}
	return string(text), nil
}

func micros(t time.Time) int64 { return t.UnixMicro() }

func microsOrNull(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UnixMicro()
}
