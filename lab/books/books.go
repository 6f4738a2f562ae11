// Package books keeps what a simulated provider knows in one JSON file, so that a lab that is started again finds its
// servers. Without a path everything stays in memory. A file that can't be read is an error that says how to start over;
// it is never overwritten in silence.
package books

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Load reads the file at path into the books, and leaves them as they are when there is none.
func Load(path string, into any) error {
	if path == "" {
		return nil
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("lab state %s: %w (remove it to start over)", path, err)
	}
	return nil
}

// Save writes the file whole or not at all.
func Save(path string, books any) error {
	if path == "" {
		return nil
	}
	data, err := json.Marshal(books)
	if err != nil {
		return fmt.Errorf("lab state: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
