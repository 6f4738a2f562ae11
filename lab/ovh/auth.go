package ovh

import (
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // the provider's signature is defined on it
	"crypto/subtle"
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"
	"time"

	"popfleet/lab/faults"
)

// timeWindow is how far a request's timestamp may be from the provider's clock.
const timeWindow = 30 * time.Second

// Rule is what a consumer key may call. A star in Path stands for anything.
type Rule struct {
	Method string `json:"method"`
	Path   string `json:"path"`
}

// credential is a consumer key that was asked for by POST /auth/credential.
type credential struct {
	Key       string `json:"key"`
	Rules     []Rule `json:"rules"`
	Validated bool   `json:"validated"`
}

// authenticate holds the request's headers against the keys and the signature. Calls that are open to everybody pass
// without a signature; with one, it has to be right.
func (o *OVH) authenticate(r *request) error {
	h := r.Header
	if h.Get("X-Ovh-Signature") == "" && h.Get("X-Ovh-Consumer") == "" {
		if r.call.open {
			return nil
		}
		return notLoggedIn()
	}
	if !same(h.Get("X-Ovh-Application"), o.opt.ApplicationKey) {
		return invalidKey()
	}
	rules, err := o.consumer(h.Get("X-Ovh-Consumer"))
	if err != nil {
		return err
	}
	at, err := strconv.ParseInt(h.Get("X-Ovh-Timestamp"), 10, 64)
	if err != nil {
		return invalidSignature()
	}
	if age := r.now.Sub(time.Unix(at, 0)); age > timeWindow || age < -timeWindow {
		return outOfTime()
	}
	want := sign(o.opt.ApplicationSecret, h.Get("X-Ovh-Consumer"), r.Method, o.urlOf(r.Request), r.body, at)
	if !same(h.Get("X-Ovh-Signature"), want) {
		return invalidSignature()
	}
	if rules != nil && !r.call.open && !granted(rules, r.Method, r.below) {
		return notGranted()
	}
	return nil
}

// consumer finds what a consumer key may do; nil rules are everything.
func (o *OVH) consumer(key string) ([]Rule, error) {
	if same(key, o.opt.ConsumerKey) {
		return o.opt.Rules, nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, c := range o.state.Credentials {
		if !same(key, c.Key) {
			continue
		}
		if !c.Validated {
			return nil, invalidCredential()
		}
		return c.Rules, nil
	}
	return nil, unknownCredential()
}

// sign is the provider's signature: "$1$" and the SHA-1 of everything that must not be changed on the way.
func sign(secret, consumer, method, url string, body []byte, at int64) string {
	sum := sha1.Sum([]byte(strings.Join([]string{secret, consumer, method, url, string(body), strconv.FormatInt(at, 10)}, "+")))
	return "$1$" + hex.EncodeToString(sum[:])
}

// urlOf is the full URL as the client wrote it: path and query byte by byte as they came over the wire.
func (o *OVH) urlOf(r *http.Request) string {
	uri := r.RequestURI
	if i := strings.Index(uri, "://"); i >= 0 { // absolute form, through a proxy
		return uri
	}
	if o.opt.Endpoint != "" {
		if base, ok := strings.CutSuffix(o.opt.Endpoint, "/1.0"); ok {
			return base + uri
		}
	}
	scheme := "http://"
	if r.TLS != nil {
		scheme = "https://"
	}
	return scheme + r.Host + uri
}

func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

func granted(rules []Rule, method, path string) bool {
	for _, r := range rules {
		if strings.EqualFold(r.Method, method) && matches(r.Path, path) {
			return true
		}
	}
	return false
}

// matches compares a path with a pattern whose stars stand for anything.
func matches(pattern, path string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == path
	}
	rest, ok := strings.CutPrefix(path, parts[0])
	if !ok {
		return false
	}
	for _, p := range parts[1 : len(parts)-1] {
		i := strings.Index(rest, p)
		if i < 0 {
			return false
		}
		rest = rest[i+len(p):]
	}
	return strings.HasSuffix(rest, parts[len(parts)-1])
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
	return invalidCredential()
}

func (o *OVH) authTime(r *request) (any, error) { return r.now.Unix(), nil }

// askCredential makes a consumer key that is worth nothing until a person has opened the validation URL.
func (o *OVH) askCredential(r *request) (any, error) {
	var in struct {
		AccessRules []Rule   `json:"accessRules"`
		Redirection *string  `json:"redirection"`
		AllowedIPs  []string `json:"allowedIPs"`
	}
	if err := r.decode(&in); err != nil {
		return nil, err
	}
	if !same(r.Header.Get("X-Ovh-Application"), o.opt.ApplicationKey) {
		return nil, invalidKey()
	}
	if len(in.AccessRules) == 0 {
		return nil, bad("Missing accessRules")
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
