package ovh

import (
	"crypto/rand"
	"net/http"
	"strconv"
	"strings"
	"time"

	"popfleet/lab/faults"
	"popfleet/lab/ovh/api"
)

// timeWindow is how far a request's timestamp may be from the provider's clock.
const timeWindow = 30 * time.Second

// credential is a consumer key that was asked for by POST /auth/credential.
type credential struct {
	Key       string     `json:"key"`
	Rules     []api.Rule `json:"rules"`
	Validated bool       `json:"validated"`
}

// authenticate holds the request's headers against the keys and the signature. Calls that are open to everybody pass
// without a signature; with one, it has to be right.
func (o *OVH) authenticate(r *request) error {
	h := r.Header
	if h.Get("X-Ovh-Signature") == "" && h.Get("X-Ovh-Consumer") == "" {
		if r.call.open {
			return nil
		}
		return api.NotLoggedIn()
	}
	if !api.Same(h.Get("X-Ovh-Application"), o.opt.ApplicationKey) {
		return api.InvalidKey()
	}
	rules, err := o.consumer(h.Get("X-Ovh-Consumer"))
	if err != nil {
		return err
	}
	at, err := strconv.ParseInt(h.Get("X-Ovh-Timestamp"), 10, 64)
	if err != nil {
		return api.InvalidSignature()
	}
	if age := r.now.Sub(time.Unix(at, 0)); age > timeWindow || age < -timeWindow {
		return api.OutOfTime()
	}
	want := api.Sign(o.opt.ApplicationSecret, h.Get("X-Ovh-Consumer"), r.Method, o.urlOf(r.Request.Request), r.Raw, at)
	if !api.Same(h.Get("X-Ovh-Signature"), want) {
		return api.InvalidSignature()
	}
	if rules != nil && !r.call.open && !api.Granted(rules, r.Method, r.below) {
		return api.NotGranted()
	}
	return nil
}

// consumer finds what a consumer key may do; nil rules are everything.
func (o *OVH) consumer(key string) ([]api.Rule, error) {
	if api.Same(key, o.opt.ConsumerKey) {
		return o.opt.Rules, nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, c := range o.state.Credentials {
		if !api.Same(key, c.Key) {
			continue
		}
		if !c.Validated {
			return nil, api.InvalidCredential()
		}
		return c.Rules, nil
	}
	return nil, api.UnknownCredential()
}

// urlOf is the full URL as the client wrote it: path and query byte by byte as they came over the wire.
func (o *OVH) urlOf(r *http.Request) string {
	uri := r.RequestURI
	if i := strings.Index(uri, "://"); i >= 0 { // absolute form, through a proxy
		return uri
	}
	if o.opt.Endpoint != "" {
		return strings.TrimSuffix(o.opt.Endpoint, "/1.0") + uri
	}
	scheme := "http://"
	if r.TLS != nil {
		scheme = "https://"
	}
	return scheme + r.Host + uri
}

// astray applies the faults that are about time and keys, which strike before a request is looked at.
func (o *OVH) astray(r *request) error {
	f, ok := o.opt.Faults.Take(o.occasion(r), faults.ClockSkew, faults.CredentialExpired)
	if !ok {
		return nil
	}
	o.opt.Log.Info("fault strikes", "kind", string(f.Kind), "call", r.call.name, "fault", f.ID)
	if f.Kind == faults.ClockSkew {
		ahead := f.For.D()
		if ahead == 0 {
			ahead = 10 * time.Minute
		}
		r.now = r.now.Add(ahead)
		return nil
	}
	if r.Header.Get("X-Ovh-Consumer") == "" {
		return nil
	}
	return api.InvalidCredential()
}

func (o *OVH) authTime(r *request) (any, error) { return r.now.Unix(), nil }

// askCredential makes a consumer key that is worth nothing until a person has opened the validation URL.
func (o *OVH) askCredential(r *request) (any, error) {
	var in struct {
		AccessRules []api.Rule `json:"accessRules"`
		Redirection *string    `json:"redirection"`
		AllowedIPs  []string   `json:"allowedIPs"`
	}
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	if !api.Same(r.Header.Get("X-Ovh-Application"), o.opt.ApplicationKey) {
		return nil, api.InvalidKey()
	}
	if len(in.AccessRules) == 0 {
		return nil, api.Bad("Missing accessRules")
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	c := &credential{Key: rand.Text(), Rules: in.AccessRules}
	o.state.Credentials = append(o.state.Credentials, c)
	o.save()
	return map[string]any{
		"consumerKey": c.Key, "state": "pendingValidation",
		"validationUrl": "https://lab.invalid/auth/?credentialToken=" + rand.Text(),
	}, nil
}

// Validate is the person who logs in at a validation URL and grants a consumer key what it asked for.
func (o *OVH) Validate(consumerKey string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, c := range o.state.Credentials {
		if c.Key == consumerKey {
			c.Validated = true
			o.save()
			return true
		}
	}
	return false
}
