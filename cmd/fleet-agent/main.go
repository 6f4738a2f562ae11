// Command fleet-agent is what runs on a node for the fleet: the far end of an operator's connection (exchange), the
// installer inside a rescue system, and the daemon that reports.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"popfleet/agents/exchange"
	"popfleet/agents/install"
	"popfleet/agents/ops"
	"popfleet/internal/version"
)

const usage = `usage: fleet-agent COMMAND
  exchange        serve one operator connection on stdin and stdout
  install-worker  used by exchange
  run             report to the controllers, until a signal (--config FILE, --check)
  check-reboot    would this node come back from a reboot? (--json)
  keep-boot       make the per-node parts of the boot anew where they are not right, then check (--hook)
  package-run     used by dpkg's hooks: write down what a run changes of the boot (begin PID, end PID)
  reboot          check, then reboot
  probe           tell once what the disks say of their health
  version
`

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

func run(args []string, in io.Reader, out, errs io.Writer) int {
	// The bootstrap runs with umask 077, for its own file; what an op creates says its mode itself.
	syscall.Umask(0o022)
	log := slog.New(slog.NewJSONHandler(errs, nil))
	if len(args) == 0 {
		fmt.Fprint(errs, usage)
		return 1
	}
	var err error
	switch args[0] {
	case "exchange":
		// Signals keep their default here: an exchange holds nothing that outlives it.
		err = exchange.Serve(context.Background(), in, out, ops.Handlers(log), log)
	case "install-worker":
		err = install.Work(context.Background(), in, log)
	case "run":
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
		defer stop()
		err = report(ctx, args[1:], log)
	case "check-reboot":
		err = checkReboot(context.Background(), args[1:], out, log)
	case "keep-boot":
		err = keepBoot(context.Background(), args[1:], out, log)
	case "package-run":
		err = packageRun(context.Background(), args[1:], out, log)
	case "reboot":
		err = rebootNow(context.Background(), out, log)
	case "probe":
		err = probeDisks(args[1:], in, out)
	case "version", "--version":
		fmt.Fprintln(out, version.Version)
	default:
		fmt.Fprintf(errs, "unknown command %q\n%s", args[0], usage)
		return 1
	}
	if err != nil {
		log.Error("fleet-agent ends", "command", args[0], "error", err)
		return 1
	}
	return 0
}
