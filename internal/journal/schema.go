package journal

import (
	"database/sql"
	_ "embed" // the schema is SQL in a file of its own
	"fmt"
)

//go:embed schema.sql
var schema string

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
