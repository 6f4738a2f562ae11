package cli

import "github.com/spf13/cobra"

func (a *app) caCommand() *cobra.Command {
	return &cobra.Command{Use: "ca", Short: "Print the fleet's certificate authority, for browsers and curl", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			v, err := a.openVault(c.Context())
			if err != nil {
				return err
			}
			pem, err := v.CACertPEM()
			if err != nil {
				return err
			}
			a.out.data("%s", pem)
			a.out.event("ca", "", map[string]string{"pem": string(pem)})
			return nil
		}}
}
