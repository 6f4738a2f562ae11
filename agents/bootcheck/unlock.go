package bootcheck

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"popfleet/agents/bootchain"
	"popfleet/agents/hostkey"
	"popfleet/playbooks/spec"
)

const doNodePart = "run `fleet-agent keep-boot` on the node: it makes the per-node part anew"

// programs are those that have to run before the root is open; their libraries must be there as well.
var programs = []string{"dropbear", "cryptsetup", "busybox"}

// serving are the files that bring up the network, take the key and open the root. The first one that stops the boot
// without them names itself.
var serving = []string{
	"sbin/dropbear", "sbin/cryptsetup", "bin/busybox", "bin/cryptroot-unlock", "lib/cryptsetup/askpass",
	"scripts/local-top/cryptroot", unlockScript, "etc/fleet/net.sh",
}

// unlockScript starts dropbear; whoever logs in gets the command behind -c and nothing else.
const unlockScript = "scripts/init-premount/fleet-unlock"

var forcedCommand = regexp.MustCompile(`(?m)^[^#]*/dropbear .*-c (\S+)`)

func unlockServer(_ context.Context, n *node) spec.BootProof {
	if p, ok := n.withTree(); !ok {
		return p
	}
	var missing []string
	for _, f := range serving {
		if _, ok := n.tree.Regular(f); !ok {
			missing = append(missing, f)
		}
	}
	script, _ := n.tree.Regular(unlockScript)
	if m := forcedCommand.FindSubmatch(script.Data); m != nil && !n.hasCommand(string(m[1])) {
		missing = append(missing, string(m[1]))
	}
	if len(missing) > 0 {
		return failed(doInitramfs, "the initramfs lacks %s", strings.Join(missing, ", "))
	}
	if order, _ := n.tree.Lookup("scripts/init-premount/ORDER"); !bytes.Contains(order.Data, []byte("/fleet-unlock")) {
		return failed(doInitramfs, "scripts/init-premount/ORDER does not start fleet-unlock")
	}
	var errs []error
	for _, p := range programs {
		errs = append(errs, n.runnable(p))
	}
	if err := errors.Join(errs...); err != nil {
		return failed(doInitramfs, "%s", oneLine(err))
	}
	return passed("dropbear, cryptsetup and what they need are there")
}

func (n *node) hasCommand(name string) bool {
	if strings.Contains(name, "/") {
		_, ok := n.tree.Regular(name)
		return ok
	}
	return slices.ContainsFunc([]string{"bin", "sbin"}, func(dir string) bool {
		_, ok := n.tree.Regular(path.Join(dir, name))
		return ok
	})
}

// runnable says whether a program of the initramfs finds its loader and its libraries there.
func (n *node) runnable(name string) error {
	for _, dir := range []string{"sbin", "bin"} {
		e, ok := n.tree.Regular(path.Join(dir, name))
		if !ok {
			continue
		}
		f, err := elf.NewFile(bytes.NewReader(e.Data))
		if err != nil {
			return fmt.Errorf("%s is no program: %w", name, err)
		}
		libraries, err := f.ImportedLibraries()
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		for _, l := range libraries {
			if !n.library(l) {
				return fmt.Errorf("%s needs %s, which is not there", name, l)
			}
		}
		return nil
	}
	return fmt.Errorf("no %s", name)
}

func (n *node) library(name string) bool {
	return slices.ContainsFunc(n.tree.Paths(), func(p string) bool {
		if path.Base(p) != name || !strings.Contains(p, "lib") {
			return false
		}
		_, ok := n.tree.Regular(p)
		return ok
	})
}

// part reads one file of the per-node part.
func (n *node) part(file string) ([]byte, error) {
	e, ok := n.tree.Regular(file)
	if !ok {
		return nil, fmt.Errorf("no %s in the initramfs: the per-node part is missing or empty", file)
	}
	return e.Data, nil
}

// hostKey compares the key that the initramfs will show with the one that is pinned, and with the copy on the root, from
// which the per-node part is made anew.
func hostKey(_ context.Context, n *node) spec.BootProof {
	if p, ok := n.withTree(); !ok {
		return p
	}
	data, err := n.part(bootchain.DropbearKeyFile)
	if err != nil {
		return failed(doNodePart, "%v", err)
	}
	private, err := bootchain.ParseDropbearKey(data)
	if err != nil {
		return failed(doNodePart, "%s: %v", bootchain.DropbearKeyFile, err)
	}
	kept, err := n.keptHostKey()
	if err != nil {
		return failed(doSeal, "the node's own copy of the key: %v", err)
	}
	return judgeHostKey(fingerprint(hostkey.Key{Private: private}.Authorized()), kept, n.req.InitramfsHostKey)
}

const doSeal = "seal the node anew: `fleet up`"

func (n *node) keptHostKey() (string, error) {
	data, err := os.ReadFile(n.path(hostkey.InitramfsFile))
	if err != nil {
		return "", err
	}
	k, err := hostkey.Parse(data)
	if err != nil {
		return "", err
	}
	return fingerprint(k.Authorized()), nil
}

// judgeHostKey has the fingerprints of what would be shown and of what is kept, and the pinned key, if it is known.
func judgeHostKey(shown, kept, pin string) spec.BootProof {
	switch {
	case pin == "" && shown != kept:
		return failed("`fleet check reboot` knows which one is pinned; if the node's is, "+doNodePart,
			"the initramfs would show %s, the node's own copy is %s", shown, kept)
	case pin == "":
		return passed("%s, as kept on the node; no pin was given to compare", shown)
	case shown != fingerprint(pin) && kept == fingerprint(pin):
		return failed(doNodePart, "the initramfs would show %s, %s is pinned", shown, fingerprint(pin))
	case shown != fingerprint(pin):
		return failed(doSeal, "nobody would unlock it: the initramfs would show %s, %s is pinned, and the node has no copy of it", shown, fingerprint(pin))
	case kept != shown:
		return failed(doSeal, "%s, as pinned, but the node's own copy is %s: the next per-node part would be made with that", shown, kept)
	}
	return passed("%s, as pinned", shown)
}

func fingerprint(authorized string) string {
	k, _, _, _, err := ssh.ParseAuthorizedKey([]byte(authorized))
	if err != nil {
		return "no key"
	}
	return ssh.FingerprintSHA256(k)
}

func authorizedKeys(_ context.Context, n *node) spec.BootProof {
	if p, ok := n.withTree(); !ok {
		return p
	}
	data, err := n.part(bootchain.AuthorizedKeysFile)
	if err != nil {
		return failed(doNodePart, "nobody could hand over the disk key: %v", err)
	}
	have, err := bootchain.ParseAuthorizedKeys(data)
	if err != nil || len(have) == 0 {
		return failed(doNodePart, "nobody could hand over the disk key: %d keys, %v", len(have), err)
	}
	want := n.req.AuthorizedKeys
	if len(want) == 0 {
		want = n.kept.AuthorizedKeys
	}
	for _, w := range want {
		if !slices.ContainsFunc(have, func(k ssh.PublicKey) bool { return ssh.FingerprintSHA256(k) == fingerprint(w) }) {
			return failed(doNodePart, "%s may not hand over the disk key", fingerprint(w))
		}
	}
	return passed("%d may hand over the disk key", len(have))
}

// crypttab looks at the line that opens the root, in the initramfs, and at the header it names.
func crypttab(_ context.Context, n *node) spec.BootProof {
	if p, ok := n.withTree(); !ok {
		return p
	}
	data, err := n.part(bootchain.CrypttabFile)
	if err != nil {
		return failed(doNodePart, "%v", err)
	}
	if err := n.opensRoot(data, true); err != nil {
		return failed(doNodePart, "in the initramfs: %v", err)
	}
	return passed("fleet-root is opened by the UUID of its header")
}

// opensRoot says whether a crypttab opens the root that is in use.
func (n *node) opensRoot(data []byte, inInitramfs bool) error {
	entries, err := bootchain.ParseCrypttab(data)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(entries, func(e bootchain.CryptEntry) bool { return e.Name == "fleet-root" })
	if i < 0 {
		return errors.New("no line for fleet-root")
	}
	e := entries[i]
	h, err := n.header()
	if err != nil {
		return err
	}
	switch {
	case e.Source != "UUID="+h.UUID:
		return fmt.Errorf("fleet-root is to be opened from %s, its header is UUID=%s", e.Source, h.UUID)
	case e.Key != "none":
		return fmt.Errorf("fleet-root is to be opened with the key file %s", e.Key)
	case !slices.Contains(e.Options, "luks") || inInitramfs && !slices.Contains(e.Options, "initramfs"):
		return fmt.Errorf("fleet-root has the options %q, without luks or initramfs", strings.Join(e.Options, ","))
	}
	return nil
}
