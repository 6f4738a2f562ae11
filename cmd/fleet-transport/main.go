// fleet-transport is the TLS edge and the mesh of a node. See package popfleet/transport.
package main

import (
	"context"
	"log/slog"

	"popfleet/internal/daemon"
	"popfleet/internal/version"
	"popfleet/transport"
)

func main() {
	daemon.Daemon[transport.Config]{Name: "fleet-transport", Config: "/etc/fleet/transport.json", Load: transport.Load,
		Run: func(ctx context.Context, c transport.Config, log *slog.Logger) error {
			return transport.Run(ctx, c, transport.Deps{Log: log.With("service", "transport", "node", c.Node), Version: version.Version})
		}}.Main()
}
