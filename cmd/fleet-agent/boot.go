package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"

	"popfleet/agents/bootchain"
	"popfleet/agents/bootkeep"
	"popfleet/agents/ops"
	"popfleet/playbooks/spec"
)

// checkReboot is `fleet-agent check-reboot`: would this node come back? It ends with an error when not.
func checkReboot(ctx context.Context, args []string, out io.Writer, log *slog.Logger) error {
	flags := flag.NewFlagSet("fleet-agent check-reboot", flag.ContinueOnError)
	asJSON := flags.Bool("json", false, "print the result as JSON")
	if err := flags.Parse(args); err != nil {
		return err
	}
	result, err := bootkeep.New(log).Check(ctx, spec.BootCheckRequest{})
	if err != nil {
		return err
	}
	if *asJSON {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		if err := e.Encode(result); err != nil {
			return err
		}
	} else {
		printChecks(out, result.Checks)
	}
	return comesBack(result)
}

// keepBoot is `fleet-agent keep-boot`. As a hook of the package system it ends well even when the node would not come
// back: the packages are installed all the same, what must not happen is the reboot, and that is refused.
func keepBoot(ctx context.Context, args []string, out io.Writer, log *slog.Logger) error {
	flags := flag.NewFlagSet("fleet-agent keep-boot", flag.ContinueOnError)
	hook := flags.Bool("hook", false, "called by a package: say only what is wrong, and end well")
	if err := flags.Parse(args); err != nil {
		return err
	}
	made, result, err := bootkeep.New(log).Keep(ctx)
	for _, m := range made {
		fmt.Fprintf(out, "fleet: made anew: %s\n", m)
	}
	if err != nil && *hook {
		fmt.Fprintf(out, "fleet: the reboot check could not be made: %v\n", err)
		return nil
	}
	if err != nil {
		return err
	}
	if *hook {
		printChecks(out, result.Failed())
		if err := comesBack(result); err != nil {
			fmt.Fprintf(out, "fleet: REBOOT REFUSED: %v\n", err)
		}
		return nil
	}
	printChecks(out, result.Checks)
	return comesBack(result)
}

// rebootNow is `fleet-agent reboot`: the check, then the reboot.
func rebootNow(ctx context.Context, out io.Writer, log *slog.Logger) error {
	result, err := bootkeep.New(log).Check(ctx, spec.BootCheckRequest{})
	if err == nil {
		printChecks(out, result.Failed())
		err = comesBack(result)
	}
	if err != nil {
		return fmt.Errorf("not rebooted: %w", err)
	}
	return bootchain.RebootSoon(false)
}

func comesBack(result spec.BootCheck) error {
	if result.OK() {
		return nil
	}
	return fmt.Errorf("this node would not come back: %w", ops.NotBootable(result))
}

func printChecks(out io.Writer, checks []spec.BootProof) {
	for _, c := range checks {
		mark := "ok  "
		switch {
		case !c.OK:
			mark = "FAIL"
		case c.Warn:
			mark = "warn"
		}
		fmt.Fprintf(out, "%s %-16s %s\n", mark, c.Name, c.Why)
		if c.Do != "" {
			fmt.Fprintf(out, "%22s%s\n", "→ ", c.Do)
		}
	}
}
