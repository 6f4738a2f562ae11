package bootchain

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"popfleet/agents/initrd"
)

// TestNodePartIsReadBack: what Build writes, the parsers of this package and of initrd read.
func TestNodePartIsReadBack(t *testing.T) {
	p := nodePart()
	part, err := p.Build()
	if err != nil {
		t.Fatal(err)
	}
	tree := initrd.Tree{Keep: func(string) bool { return true }}
	if err := tree.Add(bytes.NewReader(part)); err != nil {
		t.Fatal(err)
	}
	data := func(path string) []byte {
		e, ok := tree.Regular(path)
		if !ok {
			t.Fatalf("%s is missing", path)
		}
		return e.Data
	}
	if n, err := ParseNetConf(data(NetConfFile)); err != nil || !reflect.DeepEqual(n, p.Network) {
		t.Errorf("network %+v, %v; want %+v", n, err, p.Network)
	}
	if k, err := ParseDropbearKey(data(DropbearKeyFile)); err != nil || !k.Equal(p.HostKey) {
		t.Errorf("host key: %v", err)
	}
	if k, err := ParseAuthorizedKeys(data(AuthorizedKeysFile)); err != nil || len(k) != 1 {
		t.Errorf("authorized keys: %d, %v", len(k), err)
	}
	c, err := ParseCrypttab(data(CrypttabFile))
	if err != nil || len(c) != 1 || c[0].Name != "fleet-root" || c[0].Source != "UUID="+p.LUKSUUID || c[0].Options[0] != "luks" {
		t.Errorf("crypttab: %+v, %v", c, err)
	}
}

const twoEntries = `set default=0
set fallback=1
if [ -f /grub/extra.cfg ]; then source /grub/extra.cfg; fi
menuentry "popfleet 2" {
  linux /vmlinuz-2 root=/dev/mapper/fleet-root ro $extra
  initrd /initrd.img-2 /fleet-node.cpio.zst
}
menuentry "popfleet 1" {
  linux /vmlinuz-1 root=/dev/mapper/fleet-root ro
  initrd /initrd.img-1 /fleet-node.cpio.zst
}
`

func TestParseGrub(t *testing.T) {
	g, err := ParseGrub([]byte(twoEntries))
	if err != nil || len(g.Entries) != 2 || g.Default != 0 || g.Fallback != 1 {
		t.Fatalf("%+v, %v", g, err)
	}
	if e := g.First(); e.Version() != "2" || e.Args[0] != "root=/dev/mapper/fleet-root" || e.LoadsNodePart() != nil {
		t.Errorf("%+v", e)
	}
	for name, c := range map[string]struct{ old, new, want string }{
		"cut":                 {"initrd.img-1 /fleet-node.cpio.zst\n}\n", "initrd.img-1 /f\n", "does not end"},
		"default beyond":      {"default=0", "default=7", "entry 7 is to boot"},
		"default by name":     {"default=0", "default=saved", "no number"},
		"no initrd":           {"  initrd /initrd.img-1 /fleet-node.cpio.zst\n", "", "lacks"},
		"two initrds":         {"  initrd /initrd.img-1", "  initrd /x\n  initrd /initrd.img-1", "two initrd lines"},
		"two kernels":         {"  linux /vmlinuz-1", "  linux /x\n  linux /vmlinuz-1", "no single kernel"},
		"something else":      {"  linux /vmlinuz-1", "  chainloader +1\n  linux /vmlinuz-1", "chainloader"},
		"another menu":        {"set default=0", "configfile /x.cfg", "configfile"},
		"nothing to boot":     {twoEntries, "set default=0\n", "no bootable entry"},
		"a title on no quote": {`menuentry "popfleet 1" {`, `menuentry popfleet {`, "not understood"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := ParseGrub([]byte(strings.Replace(twoEntries, c.old, c.new, 2))); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

func FuzzParsers(f *testing.F) {
	f.Add([]byte(twoEntries))
	f.Add([]byte("MAC=52:54:00:00:00:01\nADDRESSES=\"198.18.0.10/32\"\nGATEWAY4=172.31.1.1\nGATEWAY6=\n"))
	f.Add([]byte("fleet-root UUID=2b3c33b7 none luks,discard,initramfs\n"))
	f.Add([]byte("no-pty " + pubKey + "\n"))
	f.Add(dropbearKey(nodePart().HostKey))
	f.Fuzz(func(t *testing.T, b []byte) {
		if g, err := ParseGrub(b); err == nil {
			_ = g.First().Version()
		}
		if n, err := ParseNetConf(b); err == nil {
			if _, err := netConf(n); err != nil {
				t.Errorf("%q is read but could not be written: %v", b, err)
			}
		}
		_, _ = ParseAuthorizedKeys(b)
		_, _ = ParseDropbearKey(b)
		_, _ = ParseCrypttab(b)
	})
}
