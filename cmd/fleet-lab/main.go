// fleet-lab is a cloud on one machine, for trying popfleet and for its tests. See package popfleet/lab.
package main

import (
	"context"
	"os"

	"popfleet/internal/version"
	"popfleet/lab/cli"
)

func main() {
	os.Exit(cli.Main(context.Background(), os.Args[1:], cli.Streams{Out: os.Stdout, Err: os.Stderr}, version.Version))
}
