package cli

import (
	"runtime"

	"github.com/spf13/cobra"

	"popfleet/internal/version"
)

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			a.out.data("fleet %s (%s)\n", version.Version, runtime.Version())
			a.out.event("version", "", map[string]string{"version": version.Version, "go": runtime.Version()})
			return nil
		}}
}
