// Package daemon is the frame of every service's main: flags, the configuration file, signals, the logger, the exit code.
// It knows nothing of what a service does.
package daemon

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"popfleet/internal/version"
)

// Daemon is a service with configuration C.
type Daemon[C any] struct {
	Name   string // of the binary
	Config string // where its configuration lies on a node
	Load   func(path string) (C, error)
	// Run serves until ctx ends, and returns nil then.
	Run func(ctx context.Context, c C, log *slog.Logger) error
}

// Main runs the daemon and ends the process: 0 after a signal, 1 after an error, 2 for wrong flags.
func (d Daemon[C]) Main() { os.Exit(d.main(os.Args[1:], os.Stdout, os.Stderr)) }

func (d Daemon[C]) main(args []string, out, errs io.Writer) int {
	flags := flag.NewFlagSet(d.Name, flag.ContinueOnError)
	flags.SetOutput(errs)
	path := flags.String("config", d.Config, "configuration `file`")
	check := flags.Bool("check", false, "validate the configuration and exit")
	show := flags.Bool("version", false, "print the version and exit")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if *show {
		fmt.Fprintln(out, version.Version)
		return 0
	}
	if err := d.run(*path, *check, errs); err != nil {
		fmt.Fprintf(errs, "%s: %v\n", d.Name, err)
		return 1
	}
	return 0
}

func (d Daemon[C]) run(path string, check bool, errs io.Writer) error {
	c, err := d.Load(path)
	if err != nil || check {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return d.Run(ctx, c, slog.New(slog.NewJSONHandler(errs, nil)))
}
