package inventory_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"popfleet/internal/journal"
	"popfleet/inventory"
)

// TestSecretsAreRedactedInTheJournal lives here because the journal knows no room.
func TestSecretsAreRedactedInTheJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	j, err := journal.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	const planted = "hunter2-planted"
	key := inventory.SecretText(planted)
	id, err := j.Begin(t.Context(), journal.Step{Run: "r1", Op: "unlock", Intent: map[string]any{"key": key}})
	if err != nil {
		t.Fatal(err)
	}
	if err := j.End(t.Context(), id, journal.Outcome{Status: journal.Done, Evidence: struct{ Key *inventory.Secret }{&key}}); err != nil {
		t.Fatal(err)
	}
	if err := j.Observe(t.Context(), "r1", "fsn-1", "locked", key); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(path + "*")
	if err != nil || len(files) < 2 {
		t.Fatalf("%v, %v; want the database and its log", files, err)
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(data), planted) {
			t.Errorf("%s holds the secret", f)
		}
		if info, err := os.Stat(f); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v", f, info.Mode(), err)
		}
	}
}
