package journal

import (
	"database/sql"
	_ "embed" // the schema is SQL in a file of its own
	"errors"
	"fmt"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

//go:embed schema.sql
var schema string

// busyLimit bounds the wait for others who open the same file.
const busyLimit = 10 * time.Second

// prepare migrates, again while another process does the same: SQLite's own busy_timeout does not wait when the
// change to WAL meets another connection.
func prepare(db *sql.DB) error {
	for end := time.Now().Add(busyLimit); ; {
		err := migrate(db)
		var e *sqlite.Error
		if !errors.As(err, &e) || e.Code()&0xff != sqlite3.SQLITE_BUSY || time.Now().After(end) {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// migrate brings an empty file to the schema and accepts one that has it. It runs in one transaction that takes the
// write lock first, so two processes that open a fresh file do it once.
func migrate(db *sql.DB) error {
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
	case schemaVersion:
		return nil
	case 0:
	default:
		return fmt.Errorf("written by a later fleet (schema %d, this build knows %d)", have, schemaVersion)
	}
	if _, err := tx.Exec(schema); err != nil {
		return err
	}
	if _, err := tx.Exec(fmt.Sprintf(`PRAGMA user_version = %d`, schemaVersion)); err != nil {
		return err
	}
	return tx.Commit()
}
