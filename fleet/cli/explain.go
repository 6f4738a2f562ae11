package cli

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/spf13/cobra"
)

func (a *app) explainCommand() *cobra.Command {
	return &cobra.Command{Use: "explain [CODE]", Short: "Say what an exit code means", Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				for _, code := range slices.Sorted(maps.Keys(codeMeaning)) {
					a.out.data("%4d  %s\n", code, codeMeaning[code])
				}
				a.out.event("codes", "", codeMeaning)
				return nil
			}
			code, err := strconv.Atoi(args[0])
			meaning, ok := codeMeaning[code]
			if err != nil || !ok {
				return fmt.Errorf("explain %q: expected one of %v", args[0], slices.Sorted(maps.Keys(codeMeaning)))
			}
			a.out.data("%d  %s\n", code, meaning)
			a.out.event("codes", "", map[int]string{code: meaning})
			return nil
		}}
}
