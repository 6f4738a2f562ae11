package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"

	"popfleet/agents/collect/probe"
	"popfleet/agents/collect/smart"
	"popfleet/agents/daemon"
)

// Soft limits of memory: a node's memory belongs to its services.
const (
	daemonMemory = 16 << 20
	probeMemory  = 12 << 20
)

func limitMemory(bytes int64) {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(bytes)
	}
}

// report is `fleet-agent run`: the daemon that tells the controllers.
func report(ctx context.Context, args []string, log *slog.Logger) error {
	flags := flag.NewFlagSet("fleet-agent run", flag.ContinueOnError)
	config := flags.String("config", "/etc/fleet/agent.json", "configuration `file`")
	check := flags.Bool("check", false, "validate the configuration and exit")
	if err := flags.Parse(args); err != nil {
		return err
	}
	c, err := daemon.Load(*config)
	if err != nil || *check {
		return err
	}
	limitMemory(daemonMemory)
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	disks := &probe.Client{Argv: []string{self, "probe", "--serve"}, Stderr: os.Stderr}
	if err := daemon.LayDownCapabilities(); err != nil {
		log.Warn("capabilities are kept, though only the disk probe needs them", "error", err)
	}
	err = daemon.Run(ctx, c, daemon.Deps{Log: log, Disks: disks})
	if cerr := disks.Close(); cerr != nil {
		log.Warn("disk probe did not end", "error", cerr)
	}
	return err
}

// probeDisks is `fleet-agent probe`: what the disks say of themselves, judged, once; with --serve the daemon's reader.
func probeDisks(args []string, in io.Reader, out io.Writer) error {
	flags := flag.NewFlagSet("fleet-agent probe", flag.ContinueOnError)
	serve := flags.Bool("serve", false, "answer each line on stdin, until it ends (used by run)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	limitMemory(probeMemory)
	r := smart.NewReader()
	defer r.Close()
	if *serve {
		return probe.Serve(in, out, r.Read)
	}
	readings, err := r.Read()
	if err != nil {
		return err
	}
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(smart.JudgeAll(readings))
}
