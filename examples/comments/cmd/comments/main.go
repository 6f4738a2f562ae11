// comments is the example application of a popfleet node. See package popfleet/examples/comments.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"popfleet/examples/comments"
	"popfleet/internal/version"
)

func main() {
	config := flag.String("config", "/etc/fleet/app.json", "configuration `file`")
	check := flag.Bool("check", false, "validate the configuration and exit")
	show := flag.Bool("version", false, "print the version and exit")
	flag.Parse()
	if *show {
		fmt.Println(version.Version)
		return
	}
	if err := run(*config, *check); err != nil {
		fmt.Fprintf(os.Stderr, "comments: %v\n", err)
		os.Exit(1)
	}
}

func run(path string, check bool) error {
	c, err := comments.Load(path, os.Getenv)
	if err != nil || check {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil)).With("service", "app", "node", c.Node)
	return comments.Run(ctx, c, log, nil)
}
