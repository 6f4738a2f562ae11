package cli

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/spf13/cobra"

	"popfleet/lab/netns"
	"popfleet/lab/rescue"
)

func (c *command) exec() *cobra.Command {
	cmd := &cobra.Command{
		Use: "exec -- COMMAND", Short: "run a command in the machines' network", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ns, err := netns.Open(c.cfg.Namespace)
			if err != nil {
				return err
			}
			err = ns.Exec(cmd.Context(), os.Stdin, c.Out, c.Err, args...)
			if exit := new(exec.ExitError); errors.As(err, &exit) {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&c.cfg.Namespace, "namespace", c.cfg.Namespace, "network namespace of the machines")
	return cmd
}

func (c *command) build() *cobra.Command {
	cmd := &cobra.Command{
		Use: "build", Short: "build the rescue system, if the cache has none", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := rescue.Ensure(cmd.Context(), rescue.Options{CacheDir: c.cfg.CacheDir, Progress: func(step string, took time.Duration) {
				if took > 0 {
					c.say("  %s: %.1f s", step, took.Seconds())
				}
			}})
			if err != nil {
				return err
			}
			return c.printJSON(r)
		},
	}
	cmd.Flags().StringVar(&c.cfg.CacheDir, "cache", c.cfg.CacheDir, "cache folder")
	return cmd
}
