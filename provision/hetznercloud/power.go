package hetznercloud

import (
	"context"
	"strconv"
	"time"

	"github.com/hetznercloud/hcloud-go/v2/hcloud"

	"popfleet/provision/provider"
)

// rounds bounds how often a power step is begun again after a reply that may or may not have taken effect.
const rounds = 3

// EnterRescue makes the server boot its rescue system, reachable with sshPublicKey, which is uploaded under
// ensureKeyName unless the project has it already. Rescue is one-shot: the provider clears it with the next boot, so a
// step whose fate is unknown begins again with reading the server, never with a second reset.
//
// It returns when the provider has started the machine. Whether rescue really came up, and not the disk, is for the
// caller to see on the machine (the API can say rescue and boot the disk).
func (d *Driver) EnterRescue(ctx context.Context, id, sshPublicKey, ensureKeyName string) error {
	op := "enter rescue on server " + id
	key, err := d.EnsureSSHKey(ctx, SSHKeySpec{Name: ensureKeyName, PublicKey: sshPublicKey})
	if err != nil {
		return err
	}
	keyID, err := parseID(op, key.ID)
	if err != nil {
		return err
	}
	return d.inRounds(ctx, op, func() error { return d.enterRescueOnce(ctx, op, id, keyID) })
}

func (d *Driver) enterRescueOnce(ctx context.Context, op, id string, keyID int64) error {
	s, err := d.settle(ctx, op, id)
	if err != nil {
		return err
	}
	if s.RescueEnabled { // perhaps with another key, perhaps about to expire: what a second enable does is undocumented
		if err := d.disableRescue(ctx, op, s); err != nil {
			return err
		}
	}
	err = d.actOnce(ctx, op, func(ctx context.Context) (*hcloud.Action, error) {
		res, _, err := d.client.Server.EnableRescue(ctx, s, hcloud.ServerEnableRescueOpts{
			Type: hcloud.ServerRescueTypeLinux64, SSHKeys: []*hcloud.SSHKey{{ID: keyID}}})
		return res.Action, err
	})
	if err != nil {
		return err
	}
	return d.startOrReset(ctx, op, s)
}

// BootDisk makes the server boot its disk: rescue off if it is still on, then power on, or a hard reset.
func (d *Driver) BootDisk(ctx context.Context, id string) error {
	op := "boot the disk of server " + id
	return d.inRounds(ctx, op, func() error {
		s, err := d.settle(ctx, op, id)
		if err != nil {
			return err
		}
		if s.RescueEnabled {
			if err := d.disableRescue(ctx, op, s); err != nil {
				return err
			}
		}
		return d.startOrReset(ctx, op, s)
	})
}

// PowerOn starts a server that is off; one that runs is left alone.
func (d *Driver) PowerOn(ctx context.Context, id string) error {
	op := "power on server " + id
	return d.inRounds(ctx, op, func() error {
		s, err := d.settle(ctx, op, id)
		if err != nil || s.Status == hcloud.ServerStatusRunning {
			return err
		}
		return d.startOrReset(ctx, op, s)
	})
}

// PowerOff cuts the power of a server that runs; one that is off is left alone.
func (d *Driver) PowerOff(ctx context.Context, id string) error {
	op := "power off server " + id
	return d.inRounds(ctx, op, func() error {
		s, err := d.settle(ctx, op, id)
		if err != nil || s.Status == hcloud.ServerStatusOff {
			return err
		}
		return d.actOnce(ctx, op, func(ctx context.Context) (*hcloud.Action, error) {
			a, _, err := d.client.Server.Poweroff(ctx, s)
			return a, err
		})
	})
}

// Reset cuts the power and starts again, whatever the system does. A server that is off is started.
func (d *Driver) Reset(ctx context.Context, id string) error {
	op := "reset server " + id
	return d.inRounds(ctx, op, func() error {
		s, err := d.settle(ctx, op, id)
		if err != nil {
			return err
		}
		return d.startOrReset(ctx, op, s)
	})
}

// inRounds repeats a power step from its beginning when it may or may not have taken effect, or when the provider's
// action failed.
func (d *Driver) inRounds(ctx context.Context, op string, step func() error) error {
	for round := 1; ; round++ {
		err := step()
		if err == nil || round == rounds || ctx.Err() != nil {
			return err
		}
		if !mayHaveHappened(err) && !kindIs(err, provider.ErrActionFailed) {
			return err
		}
		say(ctx, "%s: %v; looking again before round %d", op, err, round+1)
		if err := sleep(ctx, jitter(d.opts.Backoff)); err != nil {
			return explain(op, err)
		}
	}
}

func (d *Driver) disableRescue(ctx context.Context, op string, s *hcloud.Server) error {
	return d.act(ctx, op+": disable rescue first", func(ctx context.Context) (*hcloud.Action, error) {
		a, _, err := d.client.Server.DisableRescue(ctx, s)
		return a, err
	})
}

func (d *Driver) startOrReset(ctx context.Context, op string, s *hcloud.Server) error {
	return d.actOnce(ctx, op, func(ctx context.Context) (*hcloud.Action, error) {
		if s.Status == hcloud.ServerStatusOff {
			a, _, err := d.client.Server.Poweron(ctx, s)
			return a, err
		}
		a, _, err := d.client.Server.Reset(ctx, s)
		return a, err
	})
}

// actOnce starts an action that must not be started twice, and waits for it.
func (d *Driver) actOnce(ctx context.Context, op string, start func(context.Context) (*hcloud.Action, error)) error {
	var action *hcloud.Action
	err := d.callOnce(ctx, op, func(ctx context.Context) (err error) {
		action, err = start(ctx)
		return err
	})
	if err != nil {
		return err
	}
	return d.await(ctx, op, action)
}

// Activity lists what was done to the server through the API since then, by us or by anyone else who holds a token,
// oldest first, and after it what is armed for the next start.
func (d *Driver) Activity(ctx context.Context, id string, since time.Time) ([]provider.Activity, error) {
	op := "list actions of server " + id
	ref, err := serverRef(op, id)
	if err != nil {
		return nil, err
	}
	var list []*hcloud.Action
	err = d.call(ctx, op, func(ctx context.Context) (err error) {
		list, err = d.client.Server.Action.AllFor(ctx, ref, hcloud.ActionListOpts{
			Sort: []string{"started:asc"}, ListOpts: hcloud.ListOpts{PerPage: 50}})
		return err
	})
	if err != nil {
		return nil, err
	}
	var out []provider.Activity
	for _, a := range list {
		if !a.Started.Before(since) {
			out = append(out, provider.Activity{At: a.Started, Ref: strconv.FormatInt(a.ID, 10), What: a.Command, Risky: risky(a.Command)})
		}
	}
	armed, err := d.armed(ctx, op, id)
	return append(out, armed...), err
}

// armed is what the next start would bring instead of the disk.
func (d *Driver) armed(ctx context.Context, op, id string) ([]provider.Activity, error) {
	s, err := d.getServer(ctx, op, id)
	if err != nil || s == nil {
		return nil, err
	}
	var out []provider.Activity
	if s.RescueEnabled {
		out = append(out, provider.Activity{What: "rescue_enabled", Risky: true})
	}
	if s.ISO != nil {
		out = append(out, provider.Activity{What: "iso " + s.ISO.Name, Risky: true})
	}
	return out, nil
}

// risky actions can put a foreign system in front of the disk, or copy it.
func risky(command string) bool {
	switch command {
	case "enable_rescue", "attach_iso", "rebuild_server", "rebuild", "request_console", "reset_password",
		"reset_server_password", "attach_volume", "change_server_type", "create_image", "enable_backup":
		return true
	}
	return false
}
