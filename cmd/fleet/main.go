// fleet brings PoPs up and runs them: one verb per file in fleet/cli.
package main

import (
	"os"

	"popfleet/fleet/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:], cli.OS())) }
