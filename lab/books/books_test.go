package books

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestBooks(t *testing.T) {
	type kept struct{ Servers map[string]int }
	path := filepath.Join(t.TempDir(), "new", "state.json")
	in := kept{map[string]int{"fsn-1": 7}}
	if err := Save(path, in); err != nil {
		t.Fatal(err)
	}
	var out kept
	if err := Load(path, &out); err != nil || out.Servers["fsn-1"] != 7 {
		t.Errorf("%v %v", out, err)
	}
	before := kept{map[string]int{"kept": 1}}
	for _, none := range []string{"", filepath.Join(t.TempDir(), "none.json")} {
		if err := Load(none, &before); err != nil || before.Servers["kept"] != 1 {
			t.Errorf("%q: %v %v", none, before, err)
		}
	}
	if err := os.WriteFile(path, []byte("{torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Load(path, &out); err == nil || !strings.Contains(err.Error(), "remove it to start over") {
		t.Errorf("a torn file: %v", err)
	}
}
