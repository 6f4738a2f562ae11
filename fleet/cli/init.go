package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"popfleet/inventory"
	"popfleet/inventory/vault"
)

// minPassphrase is in bytes: below it a stolen secrets/ folder could be opened by trying.
const minPassphrase = 16

func (a *app) initCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "init NAME DOMAIN",
		Short: "Write a commented fleet.yaml and make the vault",
		Long:  "init writes fleet.yaml and makes secrets/, the vault with the fleet's authorities. What is already there is left as it is.",
		Args:  cobra.ExactArgs(2),
		RunE:  func(c *cobra.Command, args []string) error { return a.runInit(c.Context(), args[0], args[1]) },
	}
}

func (a *app) runInit(ctx context.Context, name, domain string) error {
	text := inventory.Template(name, domain)
	if _, err := inventory.Parse("fleet.yaml", text); err != nil {
		return fmt.Errorf("init %s %s: %w", name, domain, err)
	}
	if err := os.MkdirAll(a.dir, 0o755); err != nil {
		return err
	}
	if err := a.makeVault(ctx, name); err != nil { // first: a passphrase that is refused leaves the folder as it was
		return err
	}
	if err := a.writeNew("fleet.yaml", text); err != nil {
		return err
	}
	if err := a.writeNew(".gitignore", []byte("# the journal and Pulumi's state are this machine's; secrets/ is encrypted and safe to commit\n/.fleet/\n/releases/\n")); err != nil {
		return err
	}
	a.out.say("next: edit fleet.yaml, set %s, then `%s`", accessOf(inventory.ProviderHetznerCloud).secrets[0], a.again("plan"))
	return nil
}

func (a *app) writeNew(name string, content []byte) error {
	f, err := os.OpenFile(a.path(name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, os.ErrExist) {
		a.out.say("%s is there already, left as it is", name)
		return nil
	}
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	a.out.say("wrote %s", name)
	return nil
}

func (a *app) makeVault(ctx context.Context, fleet string) error {
	dir := a.path("secrets")
	if vault.Exists(dir) {
		a.out.say("secrets/ is there already, left as it is")
		return nil
	}
	passphrase, err := a.passphrase(ctx, "new passphrase for secrets/: ")
	if err != nil {
		return err
	}
	if len(passphrase.Reveal()) < minPassphrase {
		return fmt.Errorf("the passphrase has %d bytes; expected at least %d: it guards every disk of the fleet", len(passphrase.Reveal()), minPassphrase)
	}
	if a.env.Getenv(envPassphrase) == "" && a.env.Getenv(envPassphraseCommand) == "" {
		again, err := a.env.ReadPassword("once more: ")
		if err != nil {
			return err
		}
		if !bytes.Equal(again, passphrase.Reveal()) {
			return errors.New("the two passphrases differ; nothing was made")
		}
	}
	if _, err := vault.Create(dir, passphrase, vault.Options{Fleet: fleet}); err != nil {
		return err
	}
	a.out.say("made secrets/ (encrypted, safe to commit; without the passphrase no disk of this fleet can be read)")
	return nil
}
