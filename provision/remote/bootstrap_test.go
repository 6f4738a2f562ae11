package remote

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// shell runs the bootstrap in a real one, with the two folders moved to where a test may write.
func shell(t *testing.T, root string, a Agent, in io.Reader) string {
	t.Helper()
	command, err := a.command()
	if err != nil {
		t.Fatal(err)
	}
	command = strings.NewReplacer("/run/fleet", root+"/run", "/opt/fleet/blobs", root+"/blobs").Replace(command)
	c := exec.CommandContext(t.Context(), "/bin/sh", "-c", command)
	c.Stdin = in
	out, err := c.CombinedOutput()
	return fmt.Sprintf("%s%v", out, err)
}

// TestBootstrapInAShell: the agent runs once it has arrived whole, gets exactly what follows it, and is not asked for
// where the node has it.
func TestBootstrapInAShell(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent")
	script := "#!/bin/sh\necho \"$1 hears $(cat)\"\n"
	if err := os.WriteFile(path, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	a, err := AgentFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data, err := a.wire()
	if err != nil {
		t.Fatal(err)
	}
	shipped := func(data []byte) io.Reader {
		return io.MultiReader(strings.NewReader(fmt.Sprintln(len(data))), bytes.NewReader(data), strings.NewReader("a request"))
	}
	root := t.TempDir()
	if got := shell(t, root, a, shipped(data)); got != "NEED\nexchange hears a request\n<nil>" {
		t.Errorf("shipped: %q", got)
	}
	if got := shell(t, root, a, strings.NewReader("a request")); got != "HAVE\nexchange hears a request\n<nil>" {
		t.Errorf("there: %q", got)
	}
	installed := t.TempDir()
	os.Mkdir(installed+"/blobs", 0o755)
	os.WriteFile(installed+"/blobs/"+a.SHA256, []byte(script), 0o755)
	if got := shell(t, installed, a, strings.NewReader("a request")); got != "HAVE\nexchange hears a request\n<nil>" {
		t.Errorf("installed: %q", got)
	}
	os.RemoveAll(installed + "/run")
	os.WriteFile(installed+"/blobs/"+a.SHA256, []byte("damaged"), 0o755)
	if got := shell(t, installed, a, shipped(data)); !strings.HasSuffix(got, "NEED\nexchange hears a request\n<nil>") {
		t.Errorf("damaged: %q", got)
	}
	fresh := t.TempDir()
	if got := shell(t, fresh, a, shipped(append(bytes.Clone(data[:len(data)-9]), 1, 2, 3, 4, 5, 6, 7, 8, 9))); !strings.Contains(got, "BADDIGEST") {
		t.Errorf("damaged on the way: %q", got)
	}
}
