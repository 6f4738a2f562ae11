// Package cli is the fleet-lab command: one verb per file. Data goes to stdout, words for people to stderr. It talks to
// the lab's control socket; only `up --foreground` runs the lab itself.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"popfleet/lab"
)

// Streams are where the command reads and writes.
type Streams struct{ Out, Err io.Writer }

// command is what all verbs share.
type command struct {
	Streams
	cfg     lab.Config
	json    bool
	version string
	log     *slog.Logger
}

// Main runs fleet-lab and returns its exit code: 0 done, 1 error, 130 interrupted.
func Main(ctx context.Context, args []string, s Streams, version string) int {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	c := &command{Streams: s, cfg: lab.Default(), version: version}
	root := c.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
		return 0
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return 130
	}
	fmt.Fprintln(s.Err, "error:", err)
	return 1
}

func (c *command) root() *cobra.Command {
	root := &cobra.Command{
		Use: "fleet-lab", Short: "a cloud on one machine", Version: c.version, SilenceUsage: true, SilenceErrors: true,
		PersistentPreRunE: func(*cobra.Command, []string) (err error) {
			c.log = slog.New(slog.NewJSONHandler(c.Err, nil))
			c.cfg.Dir, err = filepath.Abs(c.cfg.Dir)
			return err
		},
	}
	root.SetOut(c.Out)
	root.SetErr(c.Err)
	root.PersistentFlags().StringVar(&c.cfg.Dir, "dir", c.cfg.Dir, "folder of the lab's state")
	root.PersistentFlags().BoolVar(&c.json, "json", false, "JSON on stdout")
	root.AddCommand(c.up(), c.down(), c.status(), c.env(), c.faults(), c.fault(), c.console(), c.power(), c.disk(), c.ledger(), c.exec(), c.build())
	return root
}

func (c *command) client() *lab.Client { return lab.Connect(c.cfg.Socket()) }

func (c *command) printJSON(v any) error {
	e := json.NewEncoder(c.Out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// say writes a line for people.
func (c *command) say(format string, args ...any) { fmt.Fprintf(c.Err, format+"\n", args...) }
