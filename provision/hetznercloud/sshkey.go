package hetznercloud

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/hetznercloud/hcloud-go/v2/hcloud"
	"golang.org/x/crypto/ssh"

	"popfleet/provision/provider"
)

// SSHKeySpec is a public key that rescue systems let in.
type SSHKeySpec struct {
	Name      string
	PublicKey string // one line of authorized_keys
	Labels    map[string]string
}

// SSHKey is a public key as the project holds it.
type SSHKey struct {
	ID        string
	Name      string
	PublicKey string
	Labels    map[string]string
}

// EnsureSSHKey returns the project's key with this public half, and uploads it when there is none. The provider keeps a
// public key once per project, so one that is there under another name is used as it is.
func (d *Driver) EnsureSSHKey(ctx context.Context, spec SSHKeySpec) (SSHKey, error) {
	op := "create ssh key " + spec.Name
	if err := CheckLabels(spec.Labels); err != nil {
		return SSHKey{}, &Error{Op: op, Err: err}
	}
	fingerprint, err := legacyFingerprint(spec.PublicKey)
	if err != nil {
		return SSHKey{}, &Error{Op: op, Err: err}
	}
	var key *hcloud.SSHKey
	err = d.call(ctx, op, func(ctx context.Context) (err error) {
		key, _, err = d.client.SSHKey.GetByFingerprint(ctx, fingerprint)
		if err != nil || key != nil {
			return err
		}
		key, _, err = d.client.SSHKey.Create(ctx, hcloud.SSHKeyCreateOpts{
			Name: spec.Name, PublicKey: spec.PublicKey, Labels: spec.Labels})
		if codeOf(err) == hcloud.ErrorCodeUniquenessError {
			key, err = d.keyAfterClash(ctx, op, fingerprint, err)
		}
		return err
	})
	if err != nil {
		return SSHKey{}, err
	}
	return sshKeyOf(key), nil
}

// keyAfterClash tells a lost reply (the fingerprint is there now) from a name that holds another key.
func (d *Driver) keyAfterClash(ctx context.Context, op, fingerprint string, cause error) (*hcloud.SSHKey, error) {
	key, _, err := d.client.SSHKey.GetByFingerprint(ctx, fingerprint)
	if err != nil || key != nil {
		return key, err
	}
	return nil, &Error{Op: op, Kind: provider.ErrNameTaken, Err: cause, Hint: "another public key has this name in the project: rename or delete it"}
}

// SSHKey reads a key by id; false means that it does not exist.
func (d *Driver) SSHKey(ctx context.Context, id string) (SSHKey, bool, error) {
	op := "read ssh key " + id
	n, err := parseID(op, id)
	if err != nil {
		return SSHKey{}, false, err
	}
	var key *hcloud.SSHKey
	err = d.call(ctx, op, func(ctx context.Context) (err error) {
		key, _, err = d.client.SSHKey.GetByID(ctx, n)
		return err
	})
	if err != nil || key == nil {
		return SSHKey{}, false, err
	}
	return sshKeyOf(key), true, nil
}

// UpdateSSHKey changes name and labels.
func (d *Driver) UpdateSSHKey(ctx context.Context, id, name string, labels map[string]string) error {
	op := "update ssh key " + id
	n, err := parseID(op, id)
	if err != nil {
		return err
	}
	return d.call(ctx, op, func(ctx context.Context) error {
		_, _, err := d.client.SSHKey.Update(ctx, &hcloud.SSHKey{ID: n}, hcloud.SSHKeyUpdateOpts{Name: name, Labels: labels})
		return err
	})
}

// DeleteSSHKey removes a key; one that is gone is no error.
func (d *Driver) DeleteSSHKey(ctx context.Context, id string) error {
	op := "delete ssh key " + id
	n, err := parseID(op, id)
	if err != nil {
		return err
	}
	return d.remove(ctx, op, func(ctx context.Context) error {
		_, err := d.client.SSHKey.Delete(ctx, &hcloud.SSHKey{ID: n})
		return err
	})
}

func sshKeyOf(k *hcloud.SSHKey) SSHKey {
	return SSHKey{ID: strconv.FormatInt(k.ID, 10), Name: k.Name, PublicKey: strings.TrimSpace(k.PublicKey), Labels: k.Labels}
}

// legacyFingerprint is the MD5 form that the API indexes keys by.
func legacyFingerprint(publicKey string) (string, error) {
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(publicKey))
	if err != nil {
		return "", fmt.Errorf("public key: expected one line of authorized_keys: %w", err)
	}
	return ssh.FingerprintLegacyMD5(key), nil
}
