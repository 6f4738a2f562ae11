package hetznerrobot

import (
	"context"
	"errors"
	"net/http"
	"net/url"

	"popfleet/provision/provider"
)

// ensureKey makes the account hold k and returns its MD5 fingerprint, by which everything else names it. A key is there
// once per account, under whatever name.
func (d *Driver) ensureKey(ctx context.Context, op string, k provider.SSHKey) (string, error) {
	fp, err := fingerprintMD5(k.Public)
	if err != nil {
		return "", &provider.Error{Op: op, Err: err}
	}
	select {
	case d.uploading <- struct{}{}:
	case <-ctx.Done():
		return "", explain(op, context.Cause(ctx))
	}
	defer func() { <-d.uploading }()
	if d.held(fp) {
		return fp, nil
	}
	op += ": upload the key"
	err = d.call(ctx, op, request{class: classKey, method: http.MethodGet, path: "/key/" + url.PathEscape(fp), about: fp}, &accountKey{})
	if absent(err) {
		err = d.upload(ctx, op, k, fp)
	}
	if err != nil {
		return "", err
	}
	d.setHeld(fp, true)
	return fp, nil
}

// upload may be repeated: a key that a lost request left there answers KEY_ALREADY_EXISTS.
func (d *Driver) upload(ctx context.Context, op string, k provider.SSHKey, fp string) error {
	err := d.call(ctx, op, request{class: classKey, method: http.MethodPost, path: "/key", about: fp,
		form: url.Values{"name": {k.Name}, "data": {k.Public}}}, &accountKey{})
	if codeOf(err) == "KEY_ALREADY_EXISTS" {
		return nil
	}
	var r *refusal
	if errors.As(err, &r) && r.Code == codeInvalidInput {
		return &provider.Error{Op: op, Err: r, Hint: "Robot takes RSA, ECDSA and Ed25519 keys with a name"}
	}
	return err
}

func (d *Driver) held(fp string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.keys[fp]
}

// setHeld notes whether the account holds the key; either way it is one of ours.
func (d *Driver) setHeld(fp string, held bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.keys[fp] = held
}

// ours says whether a rescue system lets in keys of this fleet and no others.
func (d *Driver) ours(keys []bootKey) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, k := range keys {
		if _, ok := d.keys[k.Key.Fingerprint]; !ok {
			return false
		}
	}
	return len(keys) > 0
}
