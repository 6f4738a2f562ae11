package cli

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"popfleet/lab"
)

const downDeadline = 3 * time.Minute

func (c *command) down() *cobra.Command {
	cmd := &cobra.Command{
		Use: "down", Short: "remove every machine, the network and all files", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			err := c.client().Down(cmd.Context())
			if err == nil {
				err = c.awaitGone(cmd)
			}
			if err != nil && !errors.Is(err, lab.ErrNotUp) {
				return err
			}
			// Also after a lab that died: what it left is found by its folder.
			if err := lab.Remove(cmd.Context(), c.cfg); err != nil {
				return err
			}
			c.say("the lab is gone")
			return nil
		},
	}
	cmd.Flags().BoolVar(&c.cfg.Scripted, "scripted", false, "the lab had played machines: there is no network to remove")
	cmd.Flags().StringVar(&c.cfg.Namespace, "namespace", c.cfg.Namespace, "network namespace of the machines")
	return cmd
}

func (c *command) awaitGone(cmd *cobra.Command) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); time.Since(began) < downDeadline; {
		if _, err := c.client().Status(cmd.Context()); errors.Is(err, lab.ErrNotUp) {
			return nil
		}
		select {
		case <-cmd.Context().Done():
			return cmd.Context().Err()
		case <-tick.C:
		}
	}
	return fmt.Errorf("the lab still answers after %s (log: %s)", downDeadline, c.cfg.LogPath())
}
