// fleet-replicator runs a node's database proxy.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"popfleet/internal/version"
	"popfleet/replication"
)

func main() {
	config := flag.String("config", "/etc/fleet/replicator.json", "configuration `file`")
	check := flag.Bool("check", false, "validate the configuration and exit")
	show := flag.Bool("version", false, "print the version and exit")
	flag.Parse()
	if *show {
		fmt.Println(version.Version)
		return
	}
	if err := run(*config, *check); err != nil {
		fmt.Fprintf(os.Stderr, "fleet-replicator: %v\n", err)
		os.Exit(1)
	}
}

func run(path string, check bool) error {
	c, err := replication.Load(path)
	if err != nil || check {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return replication.Run(ctx, c, slog.New(slog.NewJSONHandler(os.Stderr, nil)), nil)
}
