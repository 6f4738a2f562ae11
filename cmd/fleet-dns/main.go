// fleet-dns answers the fleet's zone. See package popfleet/dns.
package main

import (
	"context"
	"log/slog"

	"popfleet/dns"
	"popfleet/internal/daemon"
	"popfleet/internal/version"
)

func main() {
	daemon.Daemon[dns.Config]{Name: "fleet-dns", Config: "/etc/fleet/dns.json", Load: dns.Load,
		Run: func(ctx context.Context, c dns.Config, log *slog.Logger) error {
			return dns.Run(ctx, c, dns.Deps{Log: log.With("service", "dns", "node", c.Node), Version: version.Version})
		}}.Main()
}
