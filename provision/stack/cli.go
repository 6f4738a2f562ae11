package stack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/blang/semver"
	"github.com/pulumi/pulumi/sdk/v3/go/auto"
)

// The CLI and the SDK speak the same protocol within these minors; the Makefile builds wantCLI.
const wantCLI = "3.200.0"

// FindCLI looks for a fitting pulumi: beside the running executable, then on PATH.
func FindCLI(ctx context.Context) (string, error) {
	var tried []string
	for _, path := range candidates() {
		v, err := cliVersion(ctx, path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil && fits(v) {
			return path, nil
		}
		if err != nil {
			v = err.Error()
		}
		tried = append(tried, path+" ("+v+")")
	}
	found := "none found beside the executable or on PATH"
	if len(tried) > 0 {
		found = "found " + strings.Join(tried, ", ")
	}
	return "", fmt.Errorf("%w: want v%s, %s (make tools builds it)", ErrNoCLI, wantCLI, found)
}

func candidates() []string {
	var out []string
	if self, err := os.Executable(); err == nil {
		out = append(out, filepath.Join(filepath.Dir(self), "pulumi"))
	}
	if onPath, err := exec.LookPath("pulumi"); err == nil {
		if abs, err := filepath.Abs(onPath); err == nil {
			out = append(out, abs)
		}
	}
	return out
}

func cliVersion(ctx context.Context, path string) (string, error) {
	if _, err := os.Stat(path); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "version")
	cmd.Env = append(inherited(), "PULUMI_SKIP_UPDATE_CHECK=true")
	out, err := cmd.Output()
	return strings.TrimSpace(string(out)), err
}

// fits accepts any patch of the minor we build.
func fits(version string) bool {
	have, err := semver.ParseTolerant(version)
	want := semver.MustParse(wantCLI)
	return err == nil && have.Major == want.Major && have.Minor == want.Minor
}

// command runs the CLI for the automation API, in place of the API's own: with an environment that holds neither the
// API token nor anything else of the operator's, with our lock inherited, and without the calls whose answers we have.
type command struct {
	path  string
	lock  *os.File // inherited, so that the stack stays locked as long as a CLI of ours lives
	known func(args []string) (stdout string, ok bool, err error)
}

var _ auto.PulumiCommand = (*command)(nil)

func (c *command) Version() semver.Version { return semver.MustParse(wantCLI) }

// Run implements [auto.PulumiCommand]. A cancelled ctx interrupts the CLI, which lets operations end and saves the
// state; ten seconds later it is killed.
func (c *command) Run(ctx context.Context, workdir string, stdin io.Reader, addOut, addErr []io.Writer,
	addEnv []string, args ...string,
) (string, string, int, error) {
	if out, ok, err := c.known(args); ok {
		return out, errorText(err), exitCode(err), err
	}
	cmd := exec.CommandContext(ctx, c.path, append(args, "--non-interactive")...)
	cmd.Dir, cmd.Stdin = workdir, stdin
	cmd.Env = append(inherited(), addEnv...)
	cmd.ExtraFiles = []*os.File{c.lock}
	// Files, not pipes: a CLI whose run was killed must not die of a broken pipe in the middle of saving its state.
	stdout, err := newOutput()
	if err != nil {
		return "", "", -1, err
	}
	defer stdout.Close()
	stderr, err := newOutput()
	if err != nil {
		return "", "", -1, err
	}
	defer stderr.Close()
	cmd.Stdout, cmd.Stderr = stdout.File, stderr.File
	// Its own group: a ^C at the terminal reaches the CLI once, through us, and not as a second "die now".
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	err = cmd.Run()
	out, errOut := stdout.text(), stderr.text()
	tell(addOut, out)
	tell(addErr, errOut)
	return out, errOut, cmd.ProcessState.ExitCode(), err
}

// output is a file without a name.
type output struct{ *os.File }

func newOutput() (output, error) {
	f, err := os.CreateTemp("", "pulumi-output-")
	if err != nil {
		return output{}, fmt.Errorf("output of pulumi: %w", err)
	}
	return output{f}, os.Remove(f.Name())
}

func (o output) text() string {
	b, err := io.ReadAll(io.NewSectionReader(o.File, 0, 64<<20))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func tell(writers []io.Writer, s string) {
	for _, w := range writers {
		_, _ = io.WriteString(w, s)
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func exitCode(err error) int {
	if err == nil {
		return 0
	}
	return 255
}

// inherited is what the CLI may see of the operator's environment: how to run, and how to reach a team's bucket.
func inherited() []string {
	var out []string
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		switch {
		case name == "PATH", name == "HOME", name == "USER", name == "TMPDIR", name == "LANG",
			name == "SSL_CERT_FILE", name == "SSL_CERT_DIR",
			strings.HasPrefix(name, "AWS_"), strings.HasPrefix(name, "AZURE_"), strings.HasPrefix(name, "GOOGLE_"):
			out = append(out, kv)
		}
	}
	return out
}
