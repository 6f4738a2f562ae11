package cli

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"popfleet/lab"
)

func (c *command) status() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "machines, their stages and consoles", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := c.client().Status(cmd.Context())
			if err != nil {
				return err
			}
			return c.show(s)
		},
	}
}

func (c *command) show(s lab.Status) error {
	if c.json {
		return c.printJSON(s)
	}
	fmt.Fprintf(c.Out, "lab      %s, pid %d, %s\napi      %s\nsocks    %s\n", s.Kind, s.Pid, s.Dir, s.API, s.Socks)
	if s.RobotAPI != "" {
		fmt.Fprintf(c.Out, "robot    %s\n", s.RobotAPI)
	}
	if s.OVHAPI != "" {
		fmt.Fprintf(c.Out, "ovh      %s\n", s.OVHAPI)
	}
	if s.Forward != "" {
		fmt.Fprintf(c.Out, "forward  https://%s leads to port 443 of the machines in turn\n", s.Forward)
	}
	fmt.Fprintf(c.Out, "use it   export %s\n", strings.Join(s.Env, " "))
	if s.Faults > 0 {
		fmt.Fprintf(c.Out, "faults   %d set (fleet-lab faults)\n", s.Faults)
	}
	if len(s.Machines) == 0 {
		fmt.Fprintln(c.Out, "machines none")
		return nil
	}
	w := tabwriter.NewWriter(c.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nPROVIDER\tID\tNAME\tAPI\tPOWER\tSTAGE\tADDRESS\tADDRESS6\tDISKS\tCONSOLE")
	for _, m := range s.Machines {
		power := map[bool]string{true: "on", false: "off"}[m.Running]
		if m.Rescue {
			power += ", rescue next"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", m.Provider, m.ID, m.Name, m.Status, power, orDash(m.Stage), orDash(m.Address4),
			orDash(m.Address6), strings.Join(m.Serials, ","), orDash(m.Console))
	}
	return w.Flush()
}

func orDash(s string) string {
	if s == "" {
		return "–"
	}
	return s
}

func (c *command) env() *cobra.Command {
	return &cobra.Command{
		Use: "env", Short: "shell lines that point fleet at this lab", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := c.client().Status(cmd.Context())
			if err != nil {
				return err
			}
			for _, e := range s.Env {
				fmt.Fprintln(c.Out, "export "+e)
			}
			return nil
		},
	}
}
