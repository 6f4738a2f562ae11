package e2e

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares text with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", filepath.FromSlash(name)+".golden")
	if *update {
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, []byte(got), 0o644))
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (go test -run %s -update writes it)", err, t.Name())
	}
	if got != string(want) {
		t.Errorf("%s differs (-update after looking)\n--- got\n%s--- want\n%s", path, got, want)
	}
}

// what differs from run to run, and what stands for it in golden files.
var volatile = []struct {
	pattern *regexp.Regexp
	word    string
}{
	{regexp.MustCompile(`SHA256:[A-Za-z0-9+/]{43}`), "SHA256:$FINGERPRINT"},
	{regexp.MustCompile(`\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z`), "$TIME"},
	{regexp.MustCompile(`since \d{2}:\d{2}:\d{2}`), "since $TIME"},
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), "127.0.0.1:$$PORT"},
	{regexp.MustCompile(`\[::\]:\d+`), "[::]:$$PORT"},
	{regexp.MustCompile(`pid \d+`), "pid $$PID"},
	{regexp.MustCompile(`\b[0-9a-f]{12,64}\b`), "$$DIGEST"},
	{regexp.MustCompile(`-?\b\d+h\d+m\d+s`), "$$SKEW"},
	{regexp.MustCompile(`(in|after) \d+(\.\d+)?(ms|s)\b`), "$1 $$SECONDS"},
}

// scrub takes paths, ports, times and keys out of what the binary said.
func (w *cliWorld) scrub(s string) string {
	for path, word := range map[string]string{w.dir: "$DIR", w.cache: "$CACHE", filepath.Dir(w.bin): "$BIN"} {
		s = strings.ReplaceAll(s, path, word)
	}
	for _, v := range volatile {
		word := v.word
		if !strings.Contains(word, "$$") && !strings.Contains(word, "$1") {
			word = strings.ReplaceAll(word, "$", "$$")
		}
		s = v.pattern.ReplaceAllString(s, word)
	}
	return s
}
