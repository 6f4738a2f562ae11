package luks

import (
	"slices"
	"testing"
)

func TestParseSlots(t *testing.T) {
	got, err := parseSlots([]byte(`{"keyslots":{"2":{"kdf":{"type":"argon2id"}},"1":{"type":"luks2","kdf":{"type":"pbkdf2"}}},"tokens":{}}`))
	if err != nil || !slices.Equal(got, []Slot{{1, "pbkdf2"}, {2, "argon2id"}}) {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := parseSlots([]byte(`{"keyslots":{}}`)); err != nil || len(got) != 0 {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := parseSlots([]byte(`no`)); err == nil {
		t.Error("nonsense was read")
	}
}
