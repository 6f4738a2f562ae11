// fleet-replicator is a node's database proxy. See package popfleet/replication.
package main

import (
	"context"
	"log/slog"

	"popfleet/internal/daemon"
	"popfleet/replication"
)

func main() {
	daemon.Daemon[replication.Config]{Name: "fleet-replicator", Config: "/etc/fleet/replicator.json", Load: replication.Load,
		Run: func(ctx context.Context, c replication.Config, log *slog.Logger) error {
			return replication.Run(ctx, c, log.With("service", "replicator", "node", c.Node), nil)
		}}.Main()
}
