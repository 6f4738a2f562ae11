package cli

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"popfleet/fleet/controller"
	"popfleet/fleet/controller/audit"
)

func (a *app) auditCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "audit [NODE]",
		Short: "Show every decision about a disk key, and whether the record is whole",
		Long: "audit reads .fleet/audit.jsonl: who decided what about which node, and why. Each line is chained to the one before by its hash; " +
			"a line that was changed or taken out is an error. The last hash is worth keeping elsewhere: only it shows that the end was not cut off.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			node := ""
			if len(args) == 1 {
				node = args[0]
			}
			return a.runAudit(node)
		},
	}
}

func (a *app) runAudit(node string) error {
	total := 0
	head, err := controller.AuditFile(a.path(".fleet")).Read(func(e audit.Entry) error {
		total++
		if node == "" || e.Node == node {
			a.out.data("%s  %-8s %-8s %-16s %s\n", e.Time.Format(time.RFC3339), e.Node, e.Verdict, e.Who, e.Why)
			a.out.event("decision", e.Node, e)
		}
		return nil
	})
	a.out.event("chain", "", map[string]any{"decisions": total, "head": head, "whole": err == nil})
	var broken *audit.BrokenError
	if errors.As(err, &broken) {
		return fmt.Errorf("the audit log is not what was written: %w\n  hint: the %d decision(s) before it hold; compare with a copy, and find out who can write to .fleet", broken, total)
	}
	if err == nil {
		a.out.say("%d decision(s), the chain holds; last hash %s", total, head)
	}
	return err
}
