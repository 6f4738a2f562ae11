// fleet-transport is the TLS edge and the mesh of a node. See package popfleet/transport.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"popfleet/transport"
)

var version = "dev" // set by the build: -ldflags "-X main.version=…"

func main() {
	config := flag.String("config", "/etc/fleet/transport.json", "configuration `file`")
	check := flag.Bool("check", false, "validate the configuration and exit")
	show := flag.Bool("version", false, "print the version and exit")
	flag.Parse()
	if *show {
		fmt.Println(version)
		return
	}
	if err := run(*config, *check); err != nil {
		fmt.Fprintln(os.Stderr, "fleet-transport:", err)
		os.Exit(1)
	}
}

func run(path string, checkOnly bool) error {
	cfg, err := transport.Load(path)
	if err != nil || checkOnly {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil)).With("service", "transport", "node", cfg.Node)
	return transport.Run(ctx, cfg, transport.Deps{Log: log, Version: version})
}
