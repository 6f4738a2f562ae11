// Package sqlitefile opens a SQLite file of ours: made when absent, readable by its owner only, write-ahead log, one
// connection, brought to the schema it should have, shared with other processes. It knows no schema.
package sqlitefile

import (
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// Durability is what a commit survives.
type Durability string

// The durabilities.
const (
	Synced  Durability = "FULL"   // a power cut
	Relaxed Durability = "NORMAL" // a killed process; a power cut may lose the last second, never the file
)

// Kind is a kind of file.
type Kind struct {
	Schema     string
	Version    int    // kept in the file's user_version; a file of a later version is refused
	Writer     string // who writes such files, for the refusal
	Durability Durability
}

// Open opens the file at path.
func Open(path string, k Kind) (*sql.DB, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	// SQLite gives its other files (-wal, -shm) the mode of this one.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	pragmas := url.Values{"_pragma": {"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(" + string(k.Durability) + ")", "foreign_keys(1)"},
		"_txlock": {"immediate"}}
	u := url.URL{Scheme: "file", Path: path, RawQuery: pragmas.Encode()}
	db, err := sql.Open("sqlite", u.String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1) // one writer; a second connection of ours could only wait for the first
	if err := k.prepare(db); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// busyLimit bounds the wait for others who open the same file.
const busyLimit = 10 * time.Second

// prepare migrates, again while another process does the same: SQLite's own busy_timeout does not wait when the
// change to WAL meets another connection.
func (k Kind) prepare(db *sql.DB) error {
	for end := time.Now().Add(busyLimit); ; {
		err := k.migrate(db)
		var e *sqlite.Error
		if !errors.As(err, &e) || e.Code()&0xff != sqlite3.SQLITE_BUSY || time.Now().After(end) {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// migrate brings an empty file to the schema and accepts one that has it. It runs in one transaction that takes the
// write lock first, so two processes that open a fresh file do it once.
func (k Kind) migrate(db *sql.DB) error {
	tx, err := db.Begin()
	if err != nil {
		return err
	}
	defer tx.Rollback() // after Commit it does nothing
	var have int
	if err := tx.QueryRow(`PRAGMA user_version`).Scan(&have); err != nil {
		return err
	}
	switch have {
	case k.Version:
		return nil
	case 0:
	default:
		return fmt.Errorf("written by a later %s (schema %d, this build knows %d)", k.Writer, have, k.Version)
	}
	if _, err := tx.Exec(k.Schema); err != nil {
		return err
	}
	if _, err := tx.Exec(fmt.Sprintf(`PRAGMA user_version = %d`, k.Version)); err != nil {
		return err
	}
	return tx.Commit()
}
