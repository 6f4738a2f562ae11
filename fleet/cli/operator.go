package cli

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"time"

	"popfleet/internal/dial"
	"popfleet/internal/pace"
	"popfleet/inventory"
	"popfleet/inventory/vault"
	"popfleet/provision/hetznerrobot"
)

// Environment variables of the operator's side, besides those of internal/dial and internal/pace.
const (
	envPassphrase        = "FLEET_PASSPHRASE"
	envPassphraseCommand = "FLEET_PASSPHRASE_COMMAND"
)

// access is where a provider's credentials and endpoint come from when the fleet file does not say.
type access struct {
	secrets  []string // environment variables, in the order that token_command prints them, joined by colons
	endpoint string
	public   string // the endpoint without both; "" when the driver picks it
}

func accessOf(provider string) access {
	switch provider {
	case inventory.ProviderHetznerRobot:
		return access{[]string{"HROBOT_USER", "HROBOT_PASSWORD"}, "HROBOT_ENDPOINT", hetznerrobot.DefaultEndpoint}
	case inventory.ProviderOVH:
		return access{[]string{"OVH_APPLICATION_KEY", "OVH_APPLICATION_SECRET", "OVH_CONSUMER_KEY"}, "OVH_ENDPOINT", ""}
	}
	return access{[]string{"HCLOUD_TOKEN"}, "HCLOUD_ENDPOINT", "https://api.hetzner.cloud/v1"}
}

// tokenCommandLimit bounds token_command and FLEET_PASSPHRASE_COMMAND: a password manager may ask a person.
const tokenCommandLimit = time.Minute

func (a *app) loadFleet() (*inventory.Fleet, error) {
	f, err := inventory.Load(a.path("fleet.yaml"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no fleet.yaml in %s\n  hint: `fleet init NAME DOMAIN` writes one; --dir names another folder", a.dir)
	}
	return f, err
}

// openVault asks for the passphrase where it may come from, in this order: environment, command, terminal.
func (a *app) openVault(ctx context.Context) (*vault.Vault, error) {
	dir := a.path("secrets")
	if !vault.Exists(dir) {
		return nil, fmt.Errorf("no vault in %s\n  hint: `fleet init` makes one; if it was lost, the disks of this fleet cannot be read", dir)
	}
	passphrase, err := a.passphrase(ctx, "passphrase of "+dir+": ")
	if err != nil {
		return nil, err
	}
	v, err := vault.Open(dir, passphrase)
	if errors.Is(err, vault.ErrWrongPassphrase) {
		return nil, fmt.Errorf("%s: wrong passphrase\n  hint: it comes from %s, %s or the terminal, in this order", dir, envPassphrase, envPassphraseCommand)
	}
	return v, err
}

func (a *app) passphrase(ctx context.Context, prompt string) (inventory.Secret, error) {
	if s := a.env.Getenv(envPassphrase); s != "" {
		return inventory.SecretText(s), nil
	}
	if command := a.env.Getenv(envPassphraseCommand); command != "" {
		return secretFrom(ctx, envPassphraseCommand, command)
	}
	if a.env.ReadPassword == nil {
		return inventory.Secret{}, fmt.Errorf("no passphrase for the vault\n  hint: set %s or %s, or run in a terminal", envPassphrase, envPassphraseCommand)
	}
	b, err := a.env.ReadPassword(prompt)
	if err != nil {
		return inventory.Secret{}, fmt.Errorf("read passphrase: %w", err)
	}
	return inventory.NewSecret(b), nil
}

// credentials obtains what a provider's API asks for, in the order of accessOf: never from a file of ours.
func (a *app) credentials(ctx context.Context, f *inventory.Fleet, provider string) ([]inventory.Secret, error) {
	from := accessOf(provider)
	if command := f.Providers[provider].TokenCommand; command != "" {
		name := "providers." + provider + ".token_command"
		line, err := secretFrom(ctx, name, command)
		if err != nil {
			return nil, err
		}
		return split(name, line, from.secrets)
	}
	var out []inventory.Secret
	for _, name := range from.secrets {
		if s := a.env.Getenv(name); s != "" {
			out = append(out, inventory.SecretText(s))
		}
	}
	if len(out) == len(from.secrets) {
		return out, nil
	}
	return nil, fmt.Errorf("no API token for %s\n  hint: set %s, or providers.%s.token_command in fleet.yaml", provider, strings.Join(from.secrets, ", "), provider)
}

// split takes what a token_command printed apart; the last part may hold colons.
func split(name string, line inventory.Secret, parts []string) ([]inventory.Secret, error) {
	fields := bytes.SplitN(line.Reveal(), []byte(":"), len(parts))
	var out []inventory.Secret
	for _, field := range fields {
		if len(field) > 0 {
			out = append(out, inventory.NewSecret(field))
		}
	}
	if len(out) != len(parts) {
		return nil, fmt.Errorf("%s: printed %d part(s); expected %s on one line", name, len(out), strings.Join(parts, ":"))
	}
	return out, nil
}

// endpoint is where a provider's API is; "" leaves it to the driver.
func (a *app) endpoint(f *inventory.Fleet, provider string) string {
	from := accessOf(provider)
	return cmp.Or(f.Providers[provider].Endpoint, a.env.Getenv(from.endpoint), from.public)
}

// secretFrom runs a command of the operator's own and takes its first line.
func secretFrom(ctx context.Context, name, command string) (inventory.Secret, error) {
	ctx, cancel := context.WithTimeout(ctx, tokenCommandLimit)
	defer cancel()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "sh", "-c", command)
	cmd.Stderr = &stderr
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	line, _, _ := bytes.Cut(out, []byte("\n"))
	switch {
	case ctx.Err() != nil:
		return inventory.Secret{}, fmt.Errorf("%s: no answer within %s", name, tokenCommandLimit)
	case err != nil:
		return inventory.Secret{}, fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(stderr.String()))
	case len(bytes.TrimSpace(line)) == 0:
		return inventory.Secret{}, fmt.Errorf("%s: printed nothing; expected the secret on its first line", name)
	}
	return inventory.NewSecret(bytes.TrimSpace(line)), nil
}

func (a *app) dialer() (dial.Dialer, error) { return dial.New(a.env.Getenv(dial.EnvProxy)) }

func (a *app) pace() (pace.Pace, error) { return pace.Parse(a.env.Getenv(pace.EnvPace)) }

// who is the person at this machine, for the lock and the audit log.
func who() (name, host string) {
	name, host = "operator", "localhost"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if h, err := os.Hostname(); err == nil {
		host = h
	}
	return name, host
}

// operatorName is who, as certificates take it: a DNS label.
func operatorName() string {
	name, host := who()
	label := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '-'
	}, name+"-"+host)
	return strings.Trim(label[:min(len(label), 63)], "-")
}

// besideExecutable finds a file shipped next to the fleet binary.
func besideExecutable(name string) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	if real, err := filepath.EvalSymlinks(self); err == nil {
		self = real
	}
	p := filepath.Join(filepath.Dir(self), name)
	if _, err := os.Stat(p); err != nil {
		return "", fmt.Errorf("%s is not beside the fleet binary (%s)\n  hint: `make build` puts both into bin/", name, p)
	}
	return p, nil
}
