package vault

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"popfleet/inventory"
)

// A vault made without a choice is locked at the cost that decision 016 names; one locked otherwise opens as before.
func TestCostOfThePassphrase(t *testing.T) {
	pass := inventory.SecretText("correct horse battery")
	for want, factor := range map[string]int{" 16\n": 0, " 11\n": 11} {
		dir := filepath.Join(t.TempDir(), "secrets")
		if _, err := Create(dir, pass, Options{Fleet: "demo", WorkFactor: factor}); err != nil {
			t.Fatal(err)
		}
		sealed, err := os.ReadFile(filepath.Join(dir, identityFile))
		if err != nil {
			t.Fatal(err)
		}
		// age's header says "-> scrypt SALT FACTOR".
		stanza, _, _ := bytes.Cut(sealed[bytes.Index(sealed, []byte("-> scrypt ")):], []byte("\n"))
		if !bytes.HasSuffix(append(stanza, '\n'), []byte(want)) {
			t.Errorf("work factor %d: %s", factor, stanza)
		}
		if _, err := Open(dir, pass); err != nil {
			t.Errorf("work factor %d: %v", factor, err)
		}
	}
}
