// Package cli is the operator's command line: one verb per file. stdout is data, stderr is people's; --json turns
// stdout into one event per line. It decides nothing about machines: it opens the operator's folder, asks the rooms
// for a plan, shows it, has it carried out and maps the outcome to an exit code.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"popfleet/internal/version"
)

// Env is everything of the outside that a verb may touch; tests give their own.
type Env struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Getenv         func(string) string
	// ReadPassword asks on the terminal without echo; nil when there is no terminal.
	ReadPassword func(prompt string) ([]byte, error)
	// Terminal says that a person watches stderr and can be asked.
	Terminal bool
	// Width of the terminal in columns, for the status table.
	Width int
}

// app is one invocation.
type app struct {
	env  Env
	dir  string
	json bool
	out  *printer
}

// Main runs one command line and returns its exit code.
func Main(args []string, env Env) int {
	Tune()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return Run(ctx, args, env)
}

// Run is Main with a context, for tests.
func Run(ctx context.Context, args []string, env Env) int {
	a := &app{env: env}
	root := a.root()
	root.SetArgs(args)
	root.SetOut(env.Stdout)
	root.SetErr(env.Stderr)
	root.SetIn(env.Stdin)
	err := root.ExecuteContext(ctx)
	if a.out == nil { // cobra turned the command line down before it read the flags
		a.out = newPrinter(env, a.json || slices.Contains(args, "--json"))
		if err != nil && !strings.Contains(err.Error(), "hint:") {
			err = fmt.Errorf("%s\n  hint: fleet --help lists the verbs", strings.TrimSpace(err.Error()))
		}
	}
	if err != nil && ctx.Err() != nil && !errors.As(err, new(*exitError)) {
		err = exit(CodeInterrupted, err)
	}
	return a.out.finish(err)
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "fleet",
		Short:         "Runs encrypted points of presence on rented machines",
		Long:          "fleet takes a PoP from an API token to serving, and keeps it there. It works on the folder that holds fleet.yaml.",
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       version.Version,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			a.out = newPrinter(a.env, a.json)
			dir, err := filepath.Abs(a.dir)
			if err != nil {
				return err
			}
			a.dir = dir
			return nil
		},
	}
	root.PersistentFlags().StringVarP(&a.dir, "dir", "C", defaultDir(a.env), "operator's `folder`, the one with fleet.yaml")
	root.PersistentFlags().BoolVar(&a.json, "json", false, "one JSON event per line on stdout")
	root.AddCommand(a.initCommand(), a.planCommand(), a.upCommand(), a.unlockCommand(), a.sshCommand(),
		a.downCommand(), a.replaceCommand(), a.mendCommand(), a.quarantineCommand(), a.orderCommand(), a.versionCommand(), a.controllerCommand(), a.statusCommand(), a.checkCommand(), a.auditCommand(), a.caCommand(), a.explainCommand())
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return fmt.Errorf("%w\n  hint: %s --help lists what it takes", err, c.CommandPath())
	})
	return root
}

func defaultDir(env Env) string {
	if d := env.Getenv("FLEET_DIR"); d != "" {
		return d
	}
	return "."
}

// path is a file of the operator's folder.
func (a *app) path(parts ...string) string {
	return filepath.Join(append([]string{a.dir}, parts...)...)
}

// again is the command line that goes on after a failure.
func (a *app) again(verb string, args ...string) string {
	words := []string{"fleet"}
	if wd, err := os.Getwd(); err == nil && wd != a.dir {
		words = append(words, "-C", a.dir)
	}
	return strings.Join(append(append(words, verb), args...), " ")
}
