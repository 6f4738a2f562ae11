package scripted

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
)

type bootManifest struct {
	Files  []bootFile `json:"files"`
	Digest string     `json:"digest"`
}

type bootFile struct {
	Path      string `json:"path"`
	SizeBytes int64  `json:"size_bytes"`
	SHA256    string `json:"sha256"`
}

// Tamper changes a file that the installed system boots from, as somebody with the disk in their hands does; text ""
// takes the change back.
func (m *Machine) Tamper(path, text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	on := m.installed()
	changed := map[string]string{path: text}
	maps.Copy(changed, on.Tampered)
	changed[path] = text
	if text == "" {
		delete(changed, path)
	}
	on.Tampered = changed
}

// manifest is what the node boots from: it follows from the installation, its keys and the kernel packages applied.
func (x *exchange) manifest() (any, error) {
	if x.s.link != "system" {
		return nil, &remoteError{"wrong_node", "this machine does not run an installed system", ""}
	}
	d := x.m.snapshot()
	return d.manifest(), nil
}

func (d *content) manifest() (out bootManifest) {
	files := map[string]string{
		"boot/grub/grub.cfg": "grub of " + d.LUKSUUID, "boot/vmlinuz-6.1": "kernel", "boot/initrd.img-6.1": "initrd",
		"boot/fleet-node.cpio.zst": string(d.InitramfsKey.PublicKey().Marshal()),
	}
	for item := range d.Items {
		if strings.HasPrefix(item, "package linux-image-") {
			files["boot/vmlinuz-"+strings.TrimPrefix(item, "package linux-image-")] = item
		}
	}
	maps.Copy(files, d.Tampered)
	whole := sha256.New()
	for _, path := range slices.Sorted(maps.Keys(files)) {
		sum := sha256.Sum256([]byte(files[path]))
		f := bootFile{path, int64(len(files[path])), hex.EncodeToString(sum[:])}
		out.Files = append(out.Files, f)
		fmt.Fprintf(whole, "%s %d %s\n", f.Path, f.SizeBytes, f.SHA256)
	}
	out.Digest = hex.EncodeToString(whole.Sum(nil))
	return out
}
