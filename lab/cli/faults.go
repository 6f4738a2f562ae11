package cli

import (
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"popfleet/lab/faults"
	"popfleet/lab/hcloud"
	"popfleet/lab/machine"
	"popfleet/lab/ovh"
	"popfleet/lab/robot"
)

func (c *command) faults() *cobra.Command {
	calls := false
	cmd := &cobra.Command{
		Use: "faults", Short: "what can go wrong on demand, and what is set to", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if calls {
				c.calls()
				return nil
			}
			set, err := c.client().Faults(cmd.Context())
			if c.json {
				return c.printJSON(map[string]any{"kinds": faults.Kinds(), "set": set})
			}
			c.kinds()
			if err == nil {
				c.listed(set)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&calls, "calls", false, "list the API calls that a fault can name")
	return cmd
}

// calls lists every provider's, also of those that this lab has no machines of.
func (c *command) calls() {
	for _, p := range []struct {
		name  string
		calls []string
	}{{machine.HetznerCloud, hcloud.CallNames()}, {machine.HetznerRobot, robot.CallNames()}, {machine.OVH, ovh.CallNames()}} {
		for _, call := range p.calls {
			fmt.Fprintf(c.Out, "%-13s %s\n", p.name, call)
		}
	}
}

func (c *command) kinds() {
	w := tabwriter.NewWriter(c.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "KIND\tLAYER\tWHAT HAPPENS\tUSES")
	for _, d := range faults.Kinds() {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", d.Kind, d.Layer, d.Text, strings.Join(d.Uses, " "))
	}
	_ = w.Flush() // a closed stdout ends the command anyway
}

func (c *command) listed(set []faults.Fault) {
	if len(set) == 0 {
		fmt.Fprintln(c.Out, "\nnone is set")
		return
	}
	w := tabwriter.NewWriter(c.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nID\tKIND\tMACHINE\tCALL\tPORT\tTIMES\tHITS")
	for _, f := range set {
		times := "until cleared"
		if f.Times > 0 {
			times = strconv.Itoa(f.Times)
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%d\t%s\t%d\n", f.ID, f.Kind, orDash(f.Machine), orDash(f.Call), f.Port, times, f.Hits)
	}
	_ = w.Flush() // a closed stdout ends the command anyway
}

func (c *command) fault() *cobra.Command {
	cmd := &cobra.Command{Use: "fault", Short: "set and clear faults"}
	cmd.AddCommand(c.faultAdd(), c.faultClear())
	return cmd
}

func (c *command) faultAdd() *cobra.Command {
	var f faults.Fault
	var delay, lasts time.Duration
	cmd := &cobra.Command{
		Use: "add KIND", Short: "set a fault", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.Kind, f.Delay, f.For = faults.Kind(args[0]), faults.Duration(delay), faults.Duration(lasts)
			got, err := c.client().AddFault(cmd.Context(), f)
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(got)
			}
			fmt.Fprintln(c.Out, got.ID)
			return nil
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.Provider, "provider", "", "whose API: hetznercloud, hetznerrobot, ovh; empty is every one")
	fl.StringVar(&f.Machine, "machine", "", "server name, id or address; empty is every one")
	fl.StringVar(&f.Call, "call", "", "API call, such as create_server (fleet-lab faults --calls)")
	fl.Uint16Var(&f.Port, "port", 0, "port; 0 is every one")
	fl.StringVar(&f.Step, "step", "", "step of an install or apply, or what the kind says")
	fl.IntVar(&f.Disk, "disk", 0, "which disk, from 0")
	fl.IntVar(&f.Times, "times", 1, "how often; 0 is until cleared")
	fl.IntVar(&f.Skip, "skip", 0, "let so many pass first")
	fl.DurationVar(&delay, "delay", 0, "wait so long before it strikes")
	fl.DurationVar(&lasts, "for", 0, "how long it lasts")
	fl.Int64Var(&f.Bytes, "bytes", 0, "cut after so many bytes from the machine")
	return cmd
}

func (c *command) faultClear() *cobra.Command {
	return &cobra.Command{
		Use: "clear [ID]", Short: "clear one fault, or all", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id := 0
			if len(args) == 1 {
				n, err := strconv.Atoi(args[0])
				if err != nil || n < 1 {
					return fmt.Errorf("fault id %q: expected a number (fleet-lab faults)", args[0])
				}
				id = n
			}
			n, err := c.client().ClearFault(cmd.Context(), id)
			if err == nil {
				c.say("%d cleared", n)
			}
			return err
		},
	}
}
