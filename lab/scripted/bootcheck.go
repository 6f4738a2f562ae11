package scripted

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

type bootCheckSpec struct {
	Node             string   `json:"node"`
	InitramfsHostKey string   `json:"initramfs_host_key"`
	AuthorizedKeys   []string `json:"authorized_keys"`
	Key              []byte   `json:"key"`
	Peers            *struct {
		Commitments string      `json:"commitments"`
		Logins      []peerLogin `json:"logins"`
	} `json:"peers"`
}

type bootCheck struct {
	Node      string      `json:"node"`
	BootID    string      `json:"boot_id"`
	UnixMilli int64       `json:"unix_milli"`
	Kernel    string      `json:"kernel"`
	Running   string      `json:"running"`
	Checks    []bootProof `json:"checks"`
}

type bootProof struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	Why  string `json:"why"`
	Do   string `json:"do,omitempty"`
}

// bootCheck looks at what a scripted machine's next boot depends on: what was changed by hand, the keys it would show and
// take, and the slot that the key sent opens.
func (x *exchange) bootCheck(spec bootCheckSpec) (any, error) {
	if x.s.link != "system" {
		return nil, &remoteError{"failed", "boot check: this machine is no installed node", ""}
	}
	d := x.m.snapshot()
	if spec.Node != "" && spec.Node != d.Node {
		return nil, &remoteError{"wrong_node", fmt.Sprintf("this machine is node %q, not %q", d.Node, spec.Node), ""}
	}
	out := bootCheck{Node: d.Node, BootID: x.bt.id, UnixMilli: time.Now().UnixMilli(), Kernel: "6.1", Running: "6.1"}
	say := func(name string, ok bool, why, do string) {
		if ok {
			do = ""
		}
		out.Checks = append(out.Checks, bootProof{name, ok, why, do})
	}
	changed := slices.Sorted(maps.Keys(d.Tampered))
	say("initramfs", len(changed) == 0, fmt.Sprintf("%d files of /boot were changed: %s", len(changed), strings.Join(changed, ", ")), "put them back")
	key := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(d.InitramfsKey.PublicKey())))
	say("host-key", spec.InitramfsHostKey == "" || sameKey(spec.InitramfsHostKey, key), "it would show "+key, "seal the node anew")
	mayUnlock := true
	for _, k := range spec.AuthorizedKeys {
		mayUnlock = mayUnlock && slices.ContainsFunc(d.UnlockKeys, func(have string) bool { return sameKey(have, k) })
	}
	say("authorized-keys", mayUnlock, fmt.Sprintf("%d may hand over the disk key", len(d.UnlockKeys)), "install the node anew")
	asGiven := spec.Peers == nil || spec.Peers.Commitments == d.PeersFile && len(spec.Peers.Logins) == len(d.PeerLogins)
	say("peers", asGiven, fmt.Sprintf("%d peers may hand over shares", len(d.PeerLogins)), "give them their shares anew")
	opens := len(d.Slots) > 0 && (len(spec.Key) == 0 || d.opens(spec.Key))
	say("key-slot", opens, fmt.Sprintf("%d slots", len(d.Slots)), "do not reboot")
	return out, nil
}

func sameKey(a, b string) bool {
	ka, _, _, _, erra := ssh.ParseAuthorizedKey([]byte(a))
	kb, _, _, _, errb := ssh.ParseAuthorizedKey([]byte(b))
	return erra == nil && errb == nil && string(ka.Marshal()) == string(kb.Marshal())
}
