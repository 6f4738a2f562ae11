package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"

	"popfleet/agents/bootkeep"
)

// packageRun is `fleet-agent package-run begin|end PID`, called by dpkg, whose pid it is.
func packageRun(ctx context.Context, args []string, out io.Writer, log *slog.Logger) error {
	if len(args) != 2 || args[0] != "begin" && args[0] != "end" {
		return errors.New("package-run: expected begin or end, and the pid of dpkg")
	}
	pid, err := strconv.Atoi(args[1])
	if err != nil || pid < 1 {
		return fmt.Errorf("package-run: %q is no pid", args[1])
	}
	k := bootkeep.New(log)
	if args[0] == "begin" {
		return k.BeginRun(ctx, pid)
	}
	c, err := k.EndRun(ctx, pid)
	if c != nil {
		fmt.Fprintf(out, "fleet: this run changed what the node boots from (manifest %.12s…): declared\n", c.To)
	}
	return err
}
