package hcloud

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// sshKey is stored as it is shown.
type sshKey struct {
	ID          int64             `json:"id"`
	Name        string            `json:"name"`
	Fingerprint string            `json:"fingerprint"` // MD5 with colons, as the provider writes it
	PublicKey   string            `json:"public_key"`
	Labels      map[string]string `json:"labels"`
	Created     time.Time         `json:"created"`
}

func (st *state) findKey(idOrName string) *sshKey {
	for _, k := range st.SSHKeys {
		if k.Name == idOrName || strconv.FormatInt(k.ID, 10) == idOrName {
			return k
		}
	}
	return nil
}

func (c *Cloud) listKeys(r *request) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := byID(c.state.SSHKeys)
	if fp := r.query.Get("fingerprint"); fp != "" {
		all = slices.DeleteFunc(all, func(k *sshKey) bool { return k.Fingerprint != fp })
	}
	labels := func(k *sshKey) map[string]string { return k.Labels }
	return list(r, "ssh_keys", all, labels, func(k *sshKey) string { return k.Name }, func(k *sshKey) sshKey { return *k })
}

func (c *Cloud) createKey(r *request) (any, error) {
	var in struct {
		Name      string            `json:"name"`
		PublicKey string            `json:"public_key"`
		Labels    map[string]string `json:"labels"`
	}
	if err := r.decode(&in); err != nil {
		return nil, err
	}
	pub, _, _, _, err := ssh.ParseAuthorizedKey([]byte(in.PublicKey))
	if err != nil {
		return nil, invalid(field("public_key", "%v", err))
	}
	if in.Name == "" {
		return nil, invalid(field("name", "is missing"))
	}
	if err := checkLabels(in.Labels); err != nil {
		return nil, err
	}
	fp := ssh.FingerprintLegacyMD5(pub)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, o := range c.state.SSHKeys {
		if o.Name == in.Name || o.Fingerprint == fp {
			e := fail(http.StatusConflict, "uniqueness_error", "SSH key with the same fingerprint or name already exists")
			e.Details = map[string]any{"fields": []fieldError{field("public_key", "is already used")}}
			return nil, e
		}
	}
	k := &sshKey{c.state.nextID(), in.Name, fp, strings.TrimSpace(in.PublicKey), orEmpty(in.Labels), time.Now().UTC()}
	c.state.SSHKeys[k.ID] = k
	c.save()
	return created(map[string]any{"ssh_key": *k})
}

func (c *Cloud) getKey(r *request) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.state.SSHKeys[r.id()]
	if k == nil {
		return nil, notFound("ssh_key", r.id())
	}
	return map[string]any{"ssh_key": *k}, nil
}

func (c *Cloud) updateKey(r *request) (any, error) {
	var in update
	if err := r.decode(&in); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.state.SSHKeys[r.id()]
	if k == nil {
		return nil, notFound("ssh_key", r.id())
	}
	taken := func(n string) bool { o := c.state.findKey(n); return o != nil && o != k }
	if err := in.apply("SSH key", &k.Name, &k.Labels, taken); err != nil {
		return nil, err
	}
	c.save()
	return map[string]any{"ssh_key": *k}, nil
}

func (c *Cloud) deleteKey(r *request) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state.SSHKeys[r.id()] == nil {
		return nil, notFound("ssh_key", r.id())
	}
	delete(c.state.SSHKeys, r.id())
	c.save()
	return nil, nil
}
