// fleet-store is a node's embedded database. See package popfleet/cmd/fleet-store/store.
package main

import (
	"context"
	"log/slog"

	"popfleet/cmd/fleet-store/store"
	"popfleet/internal/daemon"
)

func main() {
	daemon.Daemon[store.Config]{Name: "fleet-store", Config: "/etc/fleet/store.json", Load: store.Load,
		Run: func(ctx context.Context, c store.Config, log *slog.Logger) error {
			return store.Run(ctx, c, log.With("service", "store"), nil)
		}}.Main()
}
