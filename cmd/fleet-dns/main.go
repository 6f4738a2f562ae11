// fleet-dns answers the fleet's zone. See package popfleet/dns.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"popfleet/dns"
)

var version = "dev" // set by the build: -ldflags "-X main.version=…"

func main() {
	config := flag.String("config", "/etc/fleet/dns.json", "configuration `file`")
	check := flag.Bool("check", false, "validate the configuration and exit")
	show := flag.Bool("version", false, "print the version and exit")
	flag.Parse()
	if *show {
		fmt.Println(version)
		return
	}
	if err := run(*config, *check); err != nil {
		fmt.Fprintln(os.Stderr, "fleet-dns:", err)
		os.Exit(1)
	}
}

func run(path string, checkOnly bool) error {
	cfg, err := dns.Load(path)
	if err != nil || checkOnly {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil)).With("service", "dns", "node", cfg.Node)
	return dns.Run(ctx, cfg, dns.Deps{Log: log, Version: version})
}
