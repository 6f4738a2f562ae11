package hetznerrobot

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"popfleet/provision/provider"
)

// server is a server as Robot lists it.
type server struct {
	Server struct {
		IP        string `json:"server_ip"`
		Net6      string `json:"server_ipv6_net"`
		Number    int    `json:"server_number"`
		Name      string `json:"server_name"`
		Product   string `json:"product"`
		DC        string `json:"dc"`
		Status    string `json:"status"` // ready, in process
		Cancelled bool   `json:"cancelled"`
		PaidUntil string `json:"paid_until"`
	} `json:"server"`
}

func (s *server) speaksOf(number string) bool { return strconv.Itoa(s.Server.Number) == number }

// servers is the whole account.
type servers []server

func (s *servers) speaksOf(string) bool {
	return !slices.ContainsFunc(*s, func(s server) bool { return s.Server.Number <= 0 })
}

// rescue is a rescue configuration, offered, armed or booted. Robot writes os as a list of what could be had while
// nothing is armed, and as one word when something is.
type rescue struct {
	Rescue rescueState `json:"rescue"`
}

func (r *rescue) speaksOf(number string) bool { return strconv.Itoa(r.Rescue.Number) == number }

type rescueState struct {
	Number     int        `json:"server_number"`
	OS         oneOrMany  `json:"os"`
	Active     bool       `json:"active"`
	Authorized []bootKey  `json:"authorized_key"`
	Hosts      []bootKey  `json:"host_key"`
	BootTime   nullString `json:"boot_time"` // of rescue/last only; time of Berlin without a zone
}

// bootKey is a key of a boot configuration. Authorized keys go by their MD5 fingerprint, host keys by SHA-256 in
// unpadded base64 without a prefix (seen on a live run; the documentation shows none).
type bootKey struct {
	Key struct {
		Fingerprint string `json:"fingerprint"`
		Type        string `json:"type"`
	} `json:"key"`
}

// accountKey is a key as the account holds it.
type accountKey struct{ bootKey }

func (k *accountKey) speaksOf(md5 string) bool { return strings.EqualFold(k.Key.Fingerprint, md5) }

// boot is everything that is armed for a server's next start. The parts that a server does not have are null.
type boot struct {
	Boot struct {
		Rescue  *rescueState `json:"rescue"`
		Linux   *armed       `json:"linux"`
		VNC     *armed       `json:"vnc"`
		Windows *armed       `json:"windows"`
		Plesk   *armed       `json:"plesk"`
		CPanel  *armed       `json:"cpanel"`
	} `json:"boot"`
}

type armed struct {
	Number int  `json:"server_number"`
	Active bool `json:"active"`
}

// speaksOf looks at the parts: the whole has no number of its own.
func (b *boot) speaksOf(number string) bool {
	parts := []*armed{b.Boot.Linux, b.Boot.VNC, b.Boot.Windows, b.Boot.Plesk, b.Boot.CPanel}
	if r := b.Boot.Rescue; r != nil {
		parts = append(parts, &armed{Number: r.Number})
	}
	some := false
	for _, p := range parts {
		if p != nil && p.Number != 0 {
			if strconv.Itoa(p.Number) != number {
				return false
			}
			some = true
		}
	}
	return some
}

// resetAnswer is how a server can be restarted.
type resetAnswer struct {
	Reset struct {
		Number int        `json:"server_number"`
		Types  oneOrMany  `json:"type"`
		Status nullString `json:"operating_status"` // running, stopped, not supported
	} `json:"reset"`
}

func (r *resetAnswer) speaksOf(number string) bool { return strconv.Itoa(r.Reset.Number) == number }

type reverse struct {
	RDNS struct {
		IP  string `json:"ip"`
		PTR string `json:"ptr"`
	} `json:"rdns"`
}

func (r *reverse) speaksOf(addr string) bool {
	a, err := netip.ParseAddr(r.RDNS.IP)
	return err == nil && a.String() == addr
}

// oneOrMany reads a word or a list of words; null is none.
type oneOrMany struct {
	list   []string
	single bool
}

func (o *oneOrMany) UnmarshalJSON(raw []byte) error {
	*o = oneOrMany{}
	var one *string
	if json.Unmarshal(raw, &one) == nil {
		if one != nil {
			*o = oneOrMany{list: []string{*one}, single: true}
		}
		return nil
	}
	var many []string
	if err := json.Unmarshal(raw, &many); err != nil {
		return errors.New("expected a word or a list of words")
	}
	o.list = many
	return nil
}

// nullString reads a string; null and an empty list, which Robot's PHP writes for nothing at times, are "".
type nullString string

func (n *nullString) UnmarshalJSON(raw []byte) error {
	var s *string
	switch err := json.Unmarshal(raw, &s); {
	case err == nil && s != nil:
		*n = nullString(*s)
	case err == nil, string(raw) == "[]", string(raw) == "false":
		*n = ""
	default:
		return err
	}
	return nil
}

// serverOf reads what the list knows; Off is left to Describe.
func serverOf(node string, s server) provider.Server {
	out := provider.Server{ID: strconv.Itoa(s.Server.Number), Node: node, Name: s.Server.Name, Type: s.Server.Product,
		Location: s.Server.DC, Trouble: troubleOf(s)}
	if a, err := netip.ParseAddr(s.Server.IP); err == nil && a.Is4() {
		out.Addr4 = a
	}
	if a, err := netip.ParseAddr(s.Server.Net6); err == nil && a.Is6() {
		out.Addr6 = a.Next().Next() // ::2 of its net, as Hetzner configures it; ::1 is left free
	}
	return out
}

func troubleOf(s server) string {
	switch {
	case s.Server.Cancelled:
		return "cancelled, paid until " + printable(s.Server.PaidUntil, 20)
	case s.Server.Status != "ready":
		return printable(s.Server.Status, 40)
	}
	return ""
}

// fingerprints reads host keys into the form that SSH shows. Those that are not SHA-256 cannot be compared and are left
// out.
func fingerprints(keys []bootKey) []string {
	var out []string
	for _, k := range keys {
		f := strings.TrimRight(strings.TrimPrefix(k.Key.Fingerprint, "SHA256:"), "=")
		if sum, err := base64.RawStdEncoding.DecodeString(f); err == nil && len(sum) == 32 {
			out = append(out, "SHA256:"+f)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// holds says whether one of keys has this MD5 fingerprint.
func holds(keys []bootKey, md5 string) bool {
	return slices.ContainsFunc(keys, func(k bootKey) bool { return strings.EqualFold(k.Key.Fingerprint, md5) })
}

// fingerprintMD5 is the form that Robot indexes keys by.
func fingerprintMD5(public string) (string, error) {
	key, _, _, rest, err := ssh.ParseAuthorizedKey([]byte(public))
	if err != nil || len(strings.TrimSpace(string(rest))) > 0 {
		return "", fmt.Errorf("public key: expected one line of authorized_keys")
	}
	return ssh.FingerprintLegacyMD5(key), nil
}

const robotTime = "2006-01-02 15:04:05"

// parseTime reads a time of Berlin. In the hour that autumn repeats, the later of the two is taken: what may have happened
// since is not overlooked.
func parseTime(text string, zone *time.Location) (time.Time, error) {
	t, err := time.ParseInLocation(robotTime, text, zone)
	if err != nil {
		return time.Time{}, fmt.Errorf("time %.40q: expected %s", text, robotTime)
	}
	if later := t.Add(time.Hour); later.Format(robotTime) == text {
		return later, nil
	}
	return t, nil
}
