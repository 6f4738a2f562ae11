package controller

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"popfleet/agents"
	"popfleet/internal/sqlitefile"
)

// store is controller.db: one row per node with its last report and the state of its lock. It may be deleted: then
// nodes are unknown until they report, and one that is locked right then is held.
type store struct{ db *sql.DB }

const storeVersion = 1

const storeSchema = `
CREATE TABLE nodes (
	node     TEXT PRIMARY KEY,
	received INTEGER,             -- of the report, µs, controller's clock; NULL: none
	report   BLOB,                -- JSON, agents.Report
	boots    BLOB NOT NULL,       -- JSON, boot ids heard of
	lock     BLOB NOT NULL        -- JSON, lockRecord
) WITHOUT ROWID`

func openStore(path string) (*store, error) {
	db, err := sqlitefile.Open(path, sqlitefile.Kind{Schema: storeSchema, Version: storeVersion, Writer: "controller", Durability: sqlitefile.Relaxed})
	if err != nil {
		return nil, fmt.Errorf("open %s: %w (it holds last reports only: a damaged one can be moved away)", path, err)
	}
	return &store{db}, nil
}

func (s *store) close() error { return s.db.Close() }

// row is a record as it is stored.
type row struct {
	node     string
	received sql.NullInt64
	report   []byte
	boots    []byte
	lock     []byte
}

// rowOf copies rec, so that the caller may let go of its lock before writing. The types marshal without error.
func rowOf(node string, rec *record) row {
	r := row{node: node, boots: encode(rec.boots), lock: encode(rec.lock)}
	if rec.report != nil {
		r.received = sql.NullInt64{Int64: rec.received.UnixMicro(), Valid: true}
		r.report = encode(rec.report)
	}
	return r
}

func encode(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic("controller: " + err.Error()) // values of our own types, decoded from JSON before
	}
	return text
}

// storeTimeout bounds a write, which also happens while the controller is being stopped.
const storeTimeout = 15 * time.Second

func (s *store) save(ctx context.Context, rows []row) error {
	if len(rows) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	if err := s.write(ctx, rows); err != nil {
		return fmt.Errorf("write controller.db: %w", err)
	}
	return nil
}

func (s *store) write(ctx context.Context, rows []row) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // after Commit it does nothing
	put, err := tx.PrepareContext(ctx, `INSERT OR REPLACE INTO nodes (node, received, report, boots, lock) VALUES (?, ?, ?, ?, ?)`)
	if err != nil {
		return err
	}
	defer put.Close()
	for _, r := range rows {
		if _, err := put.ExecContext(ctx, r.node, r.received, r.report, r.boots, r.lock); err != nil {
			return err
		}
	}
	return tx.Commit()
}

func (s *store) load(ctx context.Context) (map[string]*record, error) {
	rows, err := s.db.QueryContext(ctx, `SELECT node, received, report, boots, lock FROM nodes`)
	if err != nil {
		return nil, fmt.Errorf("read controller.db: %w", err)
	}
	defer rows.Close()
	records := map[string]*record{}
	for rows.Next() {
		var r row
		if err := rows.Scan(&r.node, &r.received, &r.report, &r.boots, &r.lock); err != nil {
			return nil, fmt.Errorf("read controller.db: %w", err)
		}
		if records[r.node], err = r.record(); err != nil {
			return nil, fmt.Errorf("read controller.db: node %s: %w", r.node, err)
		}
	}
	return records, rows.Err()
}

func (r row) record() (*record, error) {
	rec := &record{}
	err := errors.Join(json.Unmarshal(r.boots, &rec.boots), json.Unmarshal(r.lock, &rec.lock))
	if r.received.Valid {
		rec.received = time.UnixMicro(r.received.Int64)
		rec.report = new(agents.Report)
		err = errors.Join(err, json.Unmarshal(r.report, rec.report))
	}
	return rec, err
}
