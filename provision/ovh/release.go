package ovh

import (
	"context"
	"errors"

	"popfleet/provision/provider"
)

// Release leaves the server as an ordinary one, booting its disk and with no rescue key, and says what is left to do.
// The contract goes on: OVH ends it only with a token that it mails to the service's contacts.
func (d *Driver) Release(ctx context.Context, id string) ([]string, error) {
	op := "release server " + id
	err := d.disarm(ctx, op, id)
	switch {
	case errors.Is(err, provider.ErrNotFound):
		return []string{"OVH does not know " + id + " in this account (any more): check that no invoice is left open."}, nil
	case errors.Is(err, provider.ErrExpired):
		return []string{"The contract of " + id + " has expired. Check in OVH's control panel that its renewal is off and no invoice is left open."}, nil
	case err != nil:
		return nil, err
	}
	return []string{
		"The contract of " + id + " was not cancelled and goes on costing money until a person ends it.",
		"Open OVH's control panel, Bare Metal Cloud, Dedicated servers, " + id + ", and choose to cancel the service (the API's words: POST " + serverPath(id) + "/terminate).",
		"OVH mails a token to the service's contacts. Follow the link in that mail to confirm (or POST " + serverPath(id) + "/confirmTermination with the token). Without it nothing ends.",
		"The machine works until the end of the period that is paid for; OVH wipes its disks after that.",
		"Take the node out of the fleet file, and its server: line with it.",
	}, nil
}

// disarm takes back what a rescue left.
func (d *Driver) disarm(ctx context.Context, op, id string) error {
	m, now, err := d.look(ctx, op, id)
	if err != nil {
		return err
	}
	want, err := d.diskSettings(ctx, op, id, m, now)
	if err != nil {
		return err
	}
	if want.met(m) {
		return nil
	}
	return d.set(ctx, op, id, want)
}
