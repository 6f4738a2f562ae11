// comments is the example application of a popfleet node. See package popfleet/examples/comments.
package main

import (
	"context"
	"log/slog"
	"os"

	"popfleet/examples/comments"
	"popfleet/internal/daemon"
)

func main() {
	daemon.Daemon[comments.Config]{Name: "comments", Config: "/etc/fleet/app.json",
		Load: func(path string) (comments.Config, error) { return comments.Load(path, os.Getenv) },
		Run: func(ctx context.Context, c comments.Config, log *slog.Logger) error {
			return comments.Run(ctx, c, log.With("service", "app", "node", c.Node), nil)
		}}.Main()
}
