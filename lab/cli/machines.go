package cli

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"popfleet/lab"
	"popfleet/lab/qemu"
)

// find looks a machine up by name, id or address.
func (c *command) find(cmd *cobra.Command, name string) (lab.Machine, error) {
	s, err := c.client().Status(cmd.Context())
	if err != nil {
		return lab.Machine{}, err
	}
	i := slices.IndexFunc(s.Machines, func(m lab.Machine) bool {
		return name == m.Name || name == m.Address4 || name == m.ID
	})
	if i < 0 {
		return lab.Machine{}, fmt.Errorf("machine %q: no such machine (fleet-lab status)", name)
	}
	return s.Machines[i], nil
}

func (c *command) console() *cobra.Command {
	lines := 0
	cmd := &cobra.Command{
		Use: "console NAME", Short: "the end of a machine's serial console", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := c.find(cmd, args[0])
			if err != nil {
				return err
			}
			if m.Console == "" {
				return fmt.Errorf("machine %s has no console: it is played", m.Name)
			}
			tail, err := qemu.Tail(m.Console, lines)
			for _, l := range tail {
				fmt.Fprintln(c.Out, l)
			}
			return err
		},
	}
	cmd.Flags().IntVarP(&lines, "lines", "n", 40, "how many lines")
	return cmd
}

func (c *command) power() *cobra.Command {
	return &cobra.Command{
		Use: "power NAME cycle|off|on", Short: "switch a machine behind the provider's back", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.client().Power(cmd.Context(), args[0], args[1])
		},
	}
}

func (c *command) disk() *cobra.Command {
	var n lab.NewDisk
	cmd := &cobra.Command{
		Use: "disk NAME", Short: "put a blank disk into a machine, in the place of one that is there", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.client().ReplaceDisk(cmd.Context(), args[0], n)
		},
	}
	cmd.Flags().IntVar(&n.Slot, "slot", 1, "0 or 1")
	cmd.Flags().StringVar(&n.Serial, "serial", "", "of the new disk")
	cmd.Flags().IntVar(&n.SizeGB, "size-gb", 20, "of the new disk")
	return cmd
}

func (c *command) ledger() *cobra.Command {
	return &cobra.Command{
		Use: "ledger NAME", Short: "what a played machine saw, as JSON", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := c.client().Ledger(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return c.printJSON(l)
		},
	}
}
