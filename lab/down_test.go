package lab

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// Files that appear while the folder goes are removed, too.
func TestRemoveWhileOthersWrite(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "lab")
	if err := os.MkdirAll(filepath.Join(dir, "machines"), 0o755); err != nil {
		t.Fatal(err)
	}
	wrote := make(chan struct{})
	go func() {
		defer close(wrote)
		for i := range 20000 {
			// It ends by itself when the folder is gone.
			if err := os.WriteFile(filepath.Join(dir, "machines", strconv.Itoa(i)), nil, 0o600); errors.Is(err, fs.ErrNotExist) {
				return
			}
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := removeAll(ctx, dir); err != nil {
		t.Error(err)
	}
	<-wrote
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
}
